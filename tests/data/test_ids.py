import logging
import os
import time

import pytest

from kfold_ens.data import ids
from kfold_ens.data.ids import find_images
from kfold_ens.errors import DataError


@pytest.fixture
def have(in_folder):
    """Create files below images/; "name -> target" creates a link."""

    def have(*names: str) -> None:
        for name in names:
            name, _, target = name.partition(" -> ")
            path = in_folder / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target) if target else path.write_text(name)

    return have


def paths(*names: str, folder: str = "images") -> list[str]:
    return [path for each in find_images(names, folder, "data.train: t.csv") for path in each.files.values()]


def refusal(*names: str, folder: str = "images") -> str:
    with pytest.raises(DataError) as refused:
        paths(*names, folder=folder)
    assert all(line.startswith(("data.train: t.csv", "  ")) for line in str(refused.value).splitlines())
    return str(refused.value)


def test_an_id_is_a_file_name_with_or_without_its_extension(have):
    have("a.png", "b.JPG", "c.Jpeg", "7", "x.y.tif", "sub/d.PNG", "notes.txt", ".e.png", "f.jfif")
    names = ["a", "b", "c", "7", "x.y", "sub/d", "notes.txt", ".e", "f"]
    found = ["a.png", "b.JPG", "c.Jpeg", "7", "x.y.tif", "sub/d.PNG", "notes.txt", ".e.png", "f.jfif"]
    assert paths(*names) == [f"images/{name}" for name in found]
    assert paths(*found) == [f"images/{name}" for name in found]
    assert "images that are not in images; add or rename them:\n  notes: did you mean notes.txt?" in refusal("notes")


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (("110.jpg", "110.png"), "110"),
        (("7", "7.png"), "7"),
        (("sub/a.gif", "sub/a.BMP"), "sub/a"),
        (("a.png", "a.bmp -> b.bmp", "b.bmp"), "a"),
        (("x.y.png", "x.y.webp"), "x.y"),
    ],
)
def test_an_id_that_matches_two_files_is_refused(have, files, name):
    have(*files)
    one, other = sorted(f"images/{file.partition(' -> ')[0]}" for file in files[:2])
    assert f"match several files; rename or remove all but one:\n  {name}: {one} or {other}" in refusal(name)


def test_a_full_name_or_two_names_of_one_file_are_unambiguous(have):
    have("110.jpg", "110.png", "cat.jpg", "cat.jpg.png", "a.png", "a.jpg -> a.png", "b.png")
    os.link("images/b.png", "images/b.webp")
    assert paths("110.jpg", "110.png", "cat.jpg", "cat.jpg.png") == [
        "images/110.jpg",
        "images/110.png",
        "images/cat.jpg",
        "images/cat.jpg.png",
    ]
    assert paths("a", "b") == ["images/a.jpg", "images/b.png"]


@pytest.mark.parametrize(
    "pair",
    [("7", "7.png"), ("7", "./7"), ("7.png", "sub/../7.png"), ("sub/8", "linked/8"), ("sub/8.png", "<here>/sub/8")],
)
def test_two_ids_of_one_file_are_refused(have, in_folder, pair):
    have("7.png", "sub/8.png", "linked -> sub")
    one, other = (name.replace("<here>", str(in_folder / "images")) for name in pair)
    message = refusal(one, other)
    assert f"one image under two ids; keep one row of each:\n  {one} and {other}: images/" in message


def test_a_repeated_id_is_refused(have):
    have("7.png", "8.png")
    assert "more than once; keep one row of each:\n  7\n  8" in refusal("8", "7", "8", "7", "7")


def test_ids_with_surrounding_whitespace_are_warned_about(have, caplog):
    have("7.png", " 8.png")
    assert "  ' 7': did you mean 7.png? (white space around it)" in refusal(" 7")
    with caplog.at_level(logging.INFO):
        assert paths("7", " 8") == ["images/7.png", "images/ 8.png"]
    assert [record.getMessage() for record in caplog.records] == [
        "data.train: t.csv: these ids, like their files, start or end with whitespace:\n  ' 8'"
    ]


# --- where files may be ----------------------------------------------------------------------------------


def test_a_longer_path_to_a_file_in_the_folder_is_accepted(have, in_folder):
    have("sub/a.png", "b.png")
    os.symlink("images", "linked")
    here = in_folder / "images"
    for name in (
        str(here / "sub" / "a"),
        "sub/../sub/a.png",
        "../images/sub/a",
        "../linked/sub/a",
        f"{here}//sub/a",
        "./sub/a",
    ):
        assert paths(name, "b") == ["images/sub/a.png", "images/b.png"], name
    assert paths(str(here / "b"), folder="linked") == ["linked/b.png"]
    assert paths("images/b", "linked/sub/a", folder=".") == ["images/b.png", "linked/sub/a.png"]
    assert [each.relative for each in find_images([str(here / "sub" / "a")], "images", "")] == ["sub/a"]


def test_links_out_of_the_folder_are_followed_by_any_path(have, in_folder):
    have("a.png -> ../away/x.png", "more -> ../away")
    (in_folder / "away").mkdir()
    (in_folder / "away" / "x.png").touch()
    assert paths("a", "more/x") == ["images/a.png", "images/more/x.png"]
    assert paths(str(in_folder / "images" / "more" / "x")) == ["images/more/x.png"]


@pytest.mark.parametrize(
    "name",
    [
        "../source.png",
        "/etc/hostname",
        "sub/../../source",
        "<here>/source",
        "<here>/images2/a",
        "more/../source",
        "..",
        "/",
    ],
)
def test_a_file_outside_the_folder_is_refused(have, in_folder, name):
    have("a.png", "../source.png", "../images2/a.png", "../away/sub/x.png", "more -> ../away/sub", "../away/source.png")
    name = name.replace("<here>", str(in_folder))
    message = f"lists images outside images; move them into it, or change data.images (data.test_images):\n  {name}"
    assert refusal("a", name) == f"data.train: t.csv {message}"


def test_a_missing_or_unreadable_image_folder_is_refused(have, monkeypatch):
    have("sub/a.png")
    assert refusal("a", folder="gone").startswith("data.train: t.csv: there is no folder gone for its images")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="the folder images/sub cannot be read: Permission denied"):
        paths("sub/a")


def test_folders_and_broken_links_match_no_id(have):
    have("folder.png/x.png", "loop.png -> loop.png", "gone.png -> nowhere", *(f"{index}.png" for index in range(50)))
    assert refusal("folder", "loop.png", "gone.png").splitlines()[1:] == ["  folder", "  loop.png", "  gone.png"]
    assert len(paths(*map(str, range(50)))) == 50


def test_ids_work_on_disks_that_ignore_case_or_unicode_form(have, monkeypatch):
    have("A.PNG", "cafe\u0301.jpg", "sub/b.png")  # as HFS+ lists them
    assert "  a.png: did you mean A.PNG? (upper or lower case)" in refusal("a.png")
    monkeypatch.setattr(os.path, "isfile", lambda path: ids._folded(path) in KNOWN)
    KNOWN = {ids._folded(f"images/{name}") for name in ("A.PNG", "cafe\u0301.jpg", "sub/b.png")}
    assert paths("a", "caf\u00e9", "sub/B.png") == ["images/a.PNG", "images/caf\u00e9.jpg", "images/sub/B.png"]
    assert "a.png and A.PNG" in refusal("a.png", "A.PNG")


def test_200_000_ids_are_found_in_seconds_without_checking_each_file(in_folder, monkeypatch):
    names = [f"img_{index:06d}" for index in range(200_000)]
    (in_folder / "images").mkdir()
    monkeypatch.setattr(ids, "_files_in", lambda path: (f"{name}.png" for name in names))
    looks = []
    monkeypatch.setattr(os.path, "isfile", looks.append)
    started = time.process_time()
    assert paths(*names) == [f"images/{name}.png" for name in names]
    assert time.process_time() - started < 10
    assert not looks
