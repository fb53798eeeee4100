import csv
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfold_ens.config import Submission
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.submission import build_submission, check_submission, write_zip
from kfold_ens.errors import DataError, KfoldError
from kfold_ens.files import read_table, write_table
from kfold_ens.logits import Logits

AWKWARD = (
    "1",
    "10",
    "2",
    "007",
    "a, b",
    'say "so"',
    "two\nlines",
    "c\rr",
    " spaced ",
    "NA",
    "1e3",
    "naïve ☃ 猫",
    "=1+1",
    "",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def table_of(names):
    return pd.DataFrame({"image_id": [f"test/{name}" for name in names], "name": names})


def predicting(labels, names, classes=None):
    """Logits of test images by name that predict these labels."""
    classes = tuple(classes or dict.fromkeys(labels))
    values = np.array([[label == name for name in classes] for label in labels], dtype=np.float32)
    return Logits(np.array([f"test/{name}" for name in names], dtype=object), values, classes)


def built(logits, test, columns, names):
    return build_submission(logits, resolved(columns, names, test, logits.classes))


def written(path, logits, test, columns=None, names="path"):
    write_table(path, built(logits, test, columns or Submission(), names))
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_the_header_is_the_users_and_rows_have_the_manifests_order(tmp_path):
    logits = predicting(["1", "2", "10"], ["c.png", "a.png", "b.png"])
    columns = Submission(id_column="id, of the image", label_column="Étiquette")
    rows = written(tmp_path / "submission.csv", logits, table_of(["b.png", "a.png", "c.png"]), columns)
    assert rows == [["id, of the image", "Étiquette"], ["b.png", "10"], ["a.png", "2"], ["c.png", "1"]]


def test_awkward_labels_come_out_as_they_are(tmp_path):
    names = [f"{index}.png" for index in range(len(AWKWARD))]
    rows = written(tmp_path / "submission.csv", predicting(AWKWARD, names), table_of(names))
    assert tuple(label for _, label in rows[1:]) == AWKWARD


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5, unique_by=lambda pair: pair[0]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_names_and_labels_come_back_as_they_were(tmp_path, pairs):
    names, labels = zip(*pairs, strict=True)
    written(tmp_path / "submission.csv", predicting(labels, names), table_of(names))
    assert read_table(tmp_path / "submission.csv").to_numpy().tolist() == [list(pair) for pair in pairs]


@pytest.mark.parametrize(
    ("names", "expected"),
    [("stem", ["007", "x.y"]), ("file", ["007.png", "x.y.jpg"]), ("path", ["sub/007.png", "x.y.jpg"])],
)
def test_images_are_named_by_stem_file_or_path(names, expected):
    images = ["sub/007.png", "x.y.jpg"]
    table = built(predicting(["1", "1"], images), table_of(images), Submission(), names)
    assert table["image_name"].tolist() == expected


@pytest.mark.parametrize("others", [["a.png"], ["a.png", "b.png", "c.png"], ["a.png", "c.png"]])
def test_logits_of_other_images_are_refused(others):
    logits = predicting(["1"] * len(others), others)
    different = "\n".join(f"  test/{name}" for name in sorted({"a.png", "b.png"} ^ set(others)))
    with pytest.raises(KfoldError, match=f"predict again:\n{different}$"):
        built(logits, table_of(["a.png", "b.png"]), Submission(), "path")


# --- checks of the written file --------------------------------------------------------------------------

NAMES = ["a", "b", "c"]
RIGHT = "image_name,pred_label\na,1\nb,2\nc,1\n"


def checked(tmp_path, text):
    (tmp_path / "submission.csv").write_text(text)
    form = resolved(Submission(), "path", table_of(NAMES), ("1", "2"))
    return check_submission(str(tmp_path / "submission.csv"), form)


def test_passed_checks_are_listed(tmp_path):
    assert "there are 3 rows, one for each test image" in checked(tmp_path, RIGHT)


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("image_name", "name", "the header is image_name,pred_label"),
        ("c,1\n", "", "there are 3 rows"),
        ("c,1", "d,1", "no test image is missing, and no other image is listed"),
        ("c,1", "a,1", "no image is listed twice"),
        ("b,2", "b,3", "every label is one of the 2 training classes"),
    ],
)
def test_a_submission_that_does_not_fit_is_refused(old, new, finding, tmp_path):
    with pytest.raises(KfoldError, match=finding):
        checked(tmp_path, RIGHT.replace(old, new))


# --- a sample submission, and a zip ----------------------------------------------------------------------


def sampled(tmp_path, text):
    (tmp_path / "sample.csv").write_text(text)
    return of_sample(tmp_path, Submission()).ids


def of_sample(tmp_path, columns, classes=("1", "2")):
    asked = columns.model_copy(update={"sample": str(tmp_path / "sample.csv")})
    return resolved(asked, "path", table_of(NAMES), classes)


def test_rows_have_the_order_of_the_sample(tmp_path):
    (tmp_path / "sample.csv").write_text("image_name,pred_label\nc,0\na,0\nb,0\n")
    columns = Submission(sample=str(tmp_path / "sample.csv"))
    table = built(predicting(["1", "2", "3"], NAMES), table_of(NAMES), columns, "path")
    assert table.to_dict("list") == {"image_name": ["c", "a", "b"], "pred_label": ["3", "1", "2"]}


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("image_name,pred_label,more\na,0,\nb,0,\nc,0,\n", "has the columns .*'more'.*the classes are '1', '2'"),
        ("image_name,pred_label,image_name\na,0,a\n", "has these columns more than once"),
        ("image_name,pred_label\n", "submission.sample: .*sample.csv has the columns .* but no rows"),
        ("image_name,pred_label\na,0\nb,0\nC.png,0\n", "C.png: no test image has this name; did you mean c.*case"),
        ("image_name,pred_label\na,0\nb,0\n", "c: a test image that the sample lacks"),
        ("image_name,pred_label\na,0\nb,0\nc,0\nd,0\n", "d: no test image has this name"),
        ("image_name,pred_label\na,0\nb,0\nc,0\nc,0\n", "c: listed 2 times"),
    ],
)
def test_a_sample_of_other_images_is_refused(text, finding, tmp_path):
    with pytest.raises(DataError, match=finding):
        sampled(tmp_path, text)


def test_a_sample_with_semicolons_or_from_excel_is_read(tmp_path, caplog):
    (tmp_path / "sample.csv").write_text("image_name;pred_label\nc;0\na;0\nb;0\n", encoding="utf-16")
    with caplog.at_level("INFO"):
        assert of_sample(tmp_path, Submission()).ids == ("c", "a", "b")
    assert "submission.sample: " in caplog.text
    assert "read as separated by semicolons; results are written with commas" in caplog.text


def test_the_zip_holds_the_submission_under_the_given_name_and_is_reproducible(tmp_path):
    (tmp_path / "submission.csv").write_text(RIGHT)
    for name in ("one.zip", "two.zip"):
        write_zip(str(tmp_path / name), str(tmp_path / "submission.csv"), "prediction.csv")
    with ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["prediction.csv"]
        assert archive.read("prediction.csv").decode() == RIGHT
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
