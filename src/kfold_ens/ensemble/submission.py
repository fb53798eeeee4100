"""The submission: one row per test image, in the user's columns, file names and labels."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import pandas as pd

from kfold_ens.config import Config, Scoring, Submission
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.kinds import KINDS, Form
from kfold_ens.ensemble.known_labels import known_labels
from kfold_ens.errors import DataError, KfoldError, Together, listing
from kfold_ens.files import atomic, read_table
from kfold_ens.logits import Logits
from kfold_ens.metrics import find_metric, refuse_unfit_metrics

log = logging.getLogger(__name__)

SHOWN = 6  # columns in a message


def build_submission(logits: Logits, form: Form) -> pd.DataFrame:
    """Return the submission's table: the prediction for every test image, in the form's order.

    Raises:
        KfoldError: if the logits are not exactly those of the test images.
    """
    differing = sorted(set(logits.image_id) ^ set(form.image_ids))
    if differing:
        raise KfoldError(f"logits and manifest differ in these test images; predict again:\n{listing(differing)}")
    rows = pd.Index(logits.image_id).get_indexer(pd.Index(form.image_ids))
    ordered = Logits(np.array(form.image_ids, dtype=object), logits.values[rows], logits.classes)
    return pd.DataFrame({form.id_column: form.ids, **KINDS[form.kind].values(ordered, form)})[list(form.header)]


def refuse_what_cannot_be_submitted(
    manifest: pd.DataFrame, run: Config, of_recipes: Mapping[str, Scoring] = MappingProxyType({})
) -> None:
    """Check before training that the submission can be written and scored for the images of a manifest.

    ``of_recipes`` are the metrics that select, early stopping and schedules of recipes use, by recipe and key. Logs
    what is inferred from a sample.

    Raises:
        DataError: if a metric does not fit the classes, if the sample or the table of test labels does not fit the
            images and classes, or if the submission needs probabilities and the ensembling method gives none.
    """
    test, together = manifest[manifest["split"] == "test"], Together(DataError)
    classes = sorted(set(manifest.loc[manifest["split"] == "train", "label"]))
    own = {"metric": Scoring(metric=run.metric, class_order=run.data.class_order)}
    with together.gather():
        refuse_unfit_metrics({**own, **of_recipes}, classes)
    if len(test):
        _refuse_unfit_tables(manifest, test, classes, run, together)
    together.raise_all()


def _refuse_unfit_tables(
    manifest: pd.DataFrame, test: pd.DataFrame, classes: list[str], run: Config, together: Together
) -> None:
    with together.gather():
        known_labels(manifest, run.data.test_labels, run.submission, run.submission_names)
    with together.gather():
        form = resolved(run.submission, run.submission_names, test, classes)
        if KINDS[form.kind].needs_probabilities and not METHODS[run.ensemble].gives_probabilities:
            raise DataError(
                f"submission.sample: {run.submission.sample} needs probabilities, but ensemble: {run.ensemble} gives "
                f"none; set ensemble to one of: {_probable()}"
            )
        _tell_how_votes_rank(form, run)


def _tell_how_votes_rank(form: Form, run: Config) -> None:
    """Warn if a vote has to rank classes, which it does by few folds."""
    asked = {"the submission's k labels": form.k, f"metric: {run.metric}": find_metric(run.metric).k or 1}
    ranked = " and ".join(key for key, k in asked.items() if k > 1)
    if ranked and not METHODS[run.ensemble].gives_probabilities:
        log.warning(
            "ensemble: %s ranks classes by their votes, and classes with equal votes by their summed softmax, for %s. "
            "To rank by probability alone, set ensemble to one of: %s",
            *(run.ensemble, ranked, _probable()),
        )


def _probable() -> str:
    """List the ensembling methods that give probabilities."""
    return ", ".join(name for name, method in METHODS.items() if method.gives_probabilities)


def as_written(submission: Submission, path: str) -> Submission:
    """Use a written submission as the sample, if the configuration has a sample: both have the same form."""
    return submission.model_copy(update={"sample": path}) if submission.sample else submission


def predicted_labels(table: pd.DataFrame, form: Form) -> pd.Series:
    """Return the most likely label of each row of a submission."""
    return KINDS[form.kind].predicted(table, form)


def write_zip(path: str, submission: str, member: str) -> None:
    """Write a zip file that holds a submission as ``member``; equal submissions give equal bytes."""
    entry = ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
    with atomic(path) as temporary, ZipFile(temporary, "w") as archive:
        archive.writestr(entry, Path(submission).read_bytes())


def check_submission(path: str, form: Form) -> list[str]:
    """Read a written submission again and check it; return the checks that passed, in words.

    Raises:
        KfoldError: if a check fails; it lists all failed checks.
    """
    table = read_table(path)
    header = list(form.header)
    wide = len(table.columns) == len(header)
    as_wanted = table.set_axis(header, axis=1) if wide else table.reindex(columns=header, fill_value="")
    given = as_wanted[form.id_column].tolist()
    checks = {
        f"the header is {','.join(header[:SHOWN])}{f' and {len(header) - SHOWN} more' * (len(header) > SHOWN)}": tuple(
            table
        )
        == form.header,
        f"there are {len(form.ids):,} rows, one for each test image": len(given) == len(form.ids),
        "no test image is missing, and no other image is listed": set(given) == set(form.ids),
        "no image is listed twice": len(set(given)) == len(given),
        **KINDS[form.kind].checks(as_wanted, form),
    }
    wrong = [check for check, right in checks.items() if not right]
    if wrong:
        raise KfoldError(
            f"{path} is not a submission for these test images. Delete it and run snakemake again. These checks "
            f"failed:\n{listing(wrong)}"
        )
    return list(checks)
