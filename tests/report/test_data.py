"""What the report says about the images."""

import pandas as pd

from kfold_ens.report.data import far_outside

MANIFEST = pd.DataFrame({"image_id": ["a", "b"], "split": "train", "width": [20, 9000], "height": 20})


class Decoded:
    """A store that knows, or does not know, how its images look."""

    def __init__(self, looks):
        self.looks = lambda: looks


def test_images_that_nobody_measured_are_not_said_to_be_ordinary():
    (words,) = far_outside(MANIFEST, Decoded(pd.DataFrame(columns=["mean", "contrast"])))
    assert "Not looked for: an earlier version decoded these images" in words


def test_ordinary_images_are_said_to_be_so():
    looks = pd.DataFrame({"mean": [100.0, 110.0], "contrast": 50.0}, index=["a", "b"])
    (words,) = far_outside(MANIFEST.assign(width=20), Decoded(looks))
    assert "There are none" in words
