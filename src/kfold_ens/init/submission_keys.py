"""Guess the keys of ``submission`` from a sample, or from the names of the test images."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.ensemble.forms import resolved
from kfold_ens.errors import DataError
from kfold_ens.init.findings import Answer, Finding, counted, doubt, guess
from kfold_ens.init.tables import Table
from kfold_ens.naming import NAMES, submission_names


def from_sample(samples: Sequence[Table], names: str, test: Sequence[str], classes: Sequence[str]) -> list[Finding]:
    """Guess ``sample``. Empty if there is no sample.

    ``test`` lists the names of the test images and ``classes`` the labels. If one is empty, it is unknown and the
    sample is compared with nothing. ``names`` is how a submission names images unless the sample says.
    """
    if not samples:
        return []
    if len(samples) > 1:
        return [
            doubt("submission", [Answer({"sample": each.path}, counted(len(each.cells), "row")) for each in samples])
        ]
    (sample,) = samples
    if not (test and classes):
        return [guess("submission", "by its name; not compared with images and classes", sample=sample.path)]
    try:
        return [guess("submission", _form(sample, names, test, classes), sample=sample.path)]
    except DataError as error:
        lines = str(error).removeprefix("submission.sample: ").splitlines()
        return [
            doubt("submission", [Answer({"sample": sample.path}, "by its name")], " ".join(map(str.strip, lines[:2])))
        ]


def _form(sample: Table, names: str, test: Sequence[str], classes: Sequence[str]) -> str:
    """Describe the form of a sample in words."""
    images = pd.DataFrame({"image_id": test, "name": test}, dtype=object)
    form = resolved(Submission(sample=sample.path), names, images, classes)
    columns = f"{len(form.columns)} columns of probabilities" if form.kind == "probabilities" else form.columns[0]
    several = f", {form.k} labels in each row" if form.kind == "top_k" else ""
    return f"its column {form.id_column!r} names the test images, such as {form.ids[0]!r}; predicts {columns}{several}"


def from_names(test: Sequence[str]) -> list[Finding]:
    """Guess ``names`` if names without folder and extension are not unique."""
    images = pd.DataFrame({"name": test}, dtype=object)
    for names in NAMES:
        try:
            submission_names(images, names)
        except DataError:
            continue
        return [] if names == "stem" else [guess("submission", "shorter names are not unique", names=names)]
    return []
