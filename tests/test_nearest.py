import time

import pytest

from kfold_ens.nearest import MOST, with_suggestions

KNOWN = [
    "007.png",
    "a.jpg",
    "B.JPG",
    "sub/d.png",
    "caf\u00e9.png",
    "1000.png",
    "img_0012.png",
    "x y.png",
    "12345678.png",
]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("7", "7: did you mean 007.png? (another form of a number)"),
        ("00007.png", "00007.png: did you mean 007.png? (another form of a number)"),
        ("7.0", "7.0: did you mean 007.png? (another form of a number)"),
        ("1e3", "1e3: did you mean 1000.png? (another form of a number)"),
        ("1.0E+03", "1.0E+03: did you mean 1000.png? (another form of a number)"),
        ("1.2345678e7", "1.2345678e7: did you mean 12345678.png? (another form of a number)"),
        ("img_12.png", "img_12.png: did you mean img_0012.png? (another form of a number)"),
        ("a.png", "a.png: did you mean a.jpg? (another ending)"),
        ("b.jpg", "b.jpg: did you mean B.JPG? (upper or lower case)"),
        ("b.png", "b.png: did you mean B.JPG? (upper or lower case, another ending)"),
        ("cafe\u0301", "cafe\u0301: did you mean caf\u00e9.png? (another Unicode normal form)"),
        (" a.jpg", "' a.jpg': did you mean a.jpg? (white space around it)"),
        ("a\n", "'a\\n': did you mean a.jpg? (white space around it)"),
        ("sub\\d.png", "sub\\d.png: did you mean sub/d.png? (backslashes)"),
        ("images/a.jpg", "images/a.jpg: did you mean a.jpg? (another folder)"),
        ("d", "d: did you mean sub/d.png? (another folder)"),
        ("img_0021.png", "img_0021.png: did you mean img_0012.png?"),
        ("x_y.png", "x_y.png"),  # a third of three letters is other
        ("1e99999999999", "1e99999999999"),
        ("1.5", "1.5"),
        ("", "''"),
        ("..", ".."),
        ("\u0667", "\u0667"),
        ("w" * 300, "w" * 300),
    ],
)
def test_a_suggestion_names_the_difference(name, suggestion):
    assert with_suggestions([name], KNOWN) == [suggestion]


def test_up_to_three_names_are_suggested_the_most_similar_first():
    known = ["w/1.png", "x/1.png", "y/01.png", "z/1.png", "1.PNG"]
    assert with_suggestions(["1.png"], known) == [
        "1.png: did you mean 1.PNG or w/1.png or x/1.png? (upper or lower case)"
    ]
    assert with_suggestions(["sub/1.png"], ["1.jpg", "sub/001.png"]) == [
        "sub/1.png: did you mean sub/001.png or 1.jpg? (another form of a number)"
    ]


def test_all_names_are_listed_and_the_first_twenty_with_suggestions():
    lines = with_suggestions([f"{index}.jpg" for index in range(100, 150)], [f"{index}.png" for index in range(200)])
    assert [line.partition(":")[0] for line in lines] == [f"{index}.jpg" for index in range(100, 150)]
    assert [" did you mean " in line for line in lines] == [True] * MOST + [False] * 30


def test_the_finding_precedes_the_suggestion():
    assert with_suggestions(["b.jpg", "zzz"], KNOWN, "not here") == [
        "b.jpg: not here; did you mean B.JPG? (upper or lower case)",
        "zzz: not here",
    ]
    assert with_suggestions(["a"], []) == ["a"]


def test_a_letter_too_many_among_100_000_names_is_found_in_seconds():
    known = [f"sub/img_{index:06d}.png" for index in range(100_000)]
    started = time.process_time()
    lines = with_suggestions([f"img_{index:06d}x" for index in range(0, 90_000, 900)], known)
    assert time.process_time() - started < 10
    for index in range(MOST):
        assert lines[index].endswith(f"x: did you mean sub/img_{900 * index:06d}.png?")
