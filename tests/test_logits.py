import numpy as np
import pytest

from kfold_ens.errors import DataError
from kfold_ens.logits import Logits, read_logits, write_logits

IDS = ("train/1/a.png", "train/ü ☃/b, c.png", "train/10/two\nlines.png")
CLASSES = ("007", "2", "NA", "naïve 猫")
VALUES = np.linspace(-3, 1e30, 12, dtype=np.float32).reshape(3, 4)


def logits_of(image_id=IDS, values=VALUES, classes=CLASSES):
    return Logits(np.array(image_id, dtype=object), values, tuple(classes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_are_read_as_written(tmp_path, dtype):
    write_logits(tmp_path / "logits.npz", logits_of(values=VALUES.astype(dtype)))
    logits = read_logits(tmp_path / "logits.npz")
    assert logits.image_id.tolist() == list(IDS)
    assert logits.classes == CLASSES
    assert all(type(text) is str for text in (*logits.image_id, *logits.classes))
    assert logits.values.dtype == dtype
    np.testing.assert_array_equal(logits.values, VALUES.astype(dtype))


def test_a_logits_file_needs_no_pickle(tmp_path):
    write_logits(tmp_path / "logits.npz", logits_of())
    with np.load(tmp_path / "logits.npz", allow_pickle=False) as columns:
        assert {name: columns[name].dtype.kind for name in columns} == {"image_id": "U", "logits": "f", "classes": "U"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image_id": ("a", "b", "a")}, "holds an image twice"),
        ({"values": np.full_like(VALUES, np.nan)}, "not finite"),
        ({"values": np.append([-np.inf], VALUES.flat[1:]).reshape(3, 4)}, "not finite"),
    ],
    ids=["repeated id", "nan", "infinity"],
)
def test_invalid_logits_files_are_refused_by_name(tmp_path, wrong, message):
    path = tmp_path / "fold3" / "oof_logits.npz"
    write_logits(path, logits_of(**wrong))
    with pytest.raises(DataError, match=message) as refusal:
        read_logits(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("wrong", [{"image_id": IDS[:2]}, {"classes": CLASSES[:3]}, {"values": VALUES.T}])
def test_logits_that_do_not_fit_their_images_and_classes_are_refused(wrong):
    with pytest.raises(ValueError, match="do not fit"):
        logits_of(**wrong)


def test_predictions_are_labels_and_the_first_class_wins_a_tie():
    values = np.array([[0, 3, 1, 2], [5, 1, 5, 5], [-9, -9, -9, -1]], dtype=np.float32)
    assert logits_of(values=values).predictions().tolist() == ["2", "007", "naïve 猫"]
