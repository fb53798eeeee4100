import pandas as pd
import pytest

from kfold_ens.errors import DataError
from kfold_ens.naming import submission_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("stem", ["007", "a.b", ".x", "ü ☃", "no ending"]),
        ("file", ["007.png", "a.b.JPG", ".x", "ü ☃.png", "no ending"]),
        ("path", ["sub/007.png", "a.b.JPG", ".x", "s p/ü ☃.png", "no ending"]),
    ],
)
def test_images_are_named_by_stem_file_or_path(names, expected):
    test = pd.DataFrame({"name": ["sub/007.png", "a.b.JPG", ".x", "s p/ü ☃.png", "no ending"]})
    assert submission_names(test, names) == expected


@pytest.mark.parametrize(
    ("names", "images", "shared"),
    [
        ("stem", ["b.png", "b.jpg", "c/a.png", "a.png", "d.png"], ["a", "b"]),
        ("file", ["b.png", "b.jpg", "c/a.png", "a.png", "d.png"], ["a.png"]),
        ("path", ["b", "a", "b"], ["b"]),
    ],
)
def test_all_shared_names_are_listed(names, images, shared):
    with pytest.raises(DataError, match="submission.names") as refusal:
        submission_names(pd.DataFrame({"name": images}), names)
    assert str(refusal.value).splitlines()[1:] == [f"  {name}" for name in shared]
