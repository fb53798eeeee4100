"""The submission: one row a test image, in the user's columns, file names and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pandas as pd

from kfold_ens.config import Config, Submission
from kfold_ens.ensemble.metrics import columns_of, known_labels
from kfold_ens.errors import DataError, KfoldError, listing
from kfold_ens.files import atomic, read_table
from kfold_ens.logits import Logits
from kfold_ens.naming import submission_names
from kfold_ens.nearest import with_suggestions
from kfold_ens.user_tables import read_user_table


def build_submission(logits: Logits, test: pd.DataFrame, columns: Submission, names: str) -> pd.DataFrame:
    """The submission's table: the prediction for every test image, in the order of the sample, or of the manifest.

    Raises:
        KfoldError: where the logits, or the sample, are not those of exactly these images.
    """
    predicted = dict(zip(logits.image_id, logits.predictions(), strict=True))
    differing = sorted(set(predicted) ^ set(test["image_id"]))
    if differing:
        raise KfoldError(f"logits and manifest differ in these test images; predict again:\n{listing(differing)}")
    table = pd.DataFrame(
        {
            columns.id_column: submission_names(test, names),
            columns.label_column: [predicted[image_id] for image_id in test["image_id"]],
        }
    )
    ids = ids_in_order(test, columns, names)
    return table.set_index(columns.id_column).loc[ids].reset_index()


def refuse_what_cannot_be_submitted(manifest: pd.DataFrame, run: Config) -> None:
    """Check, before anything is trained, what the submission and its scores will need of a manifest's test images.

    Raises:
        DataError: if the table of test labels, or the sample, is not one for exactly these images.
    """
    test = manifest[manifest["split"] == "test"]
    if len(test):
        known_labels(manifest, run.data.test_labels, run.submission, run.submission_names)
        ids_in_order(test, run.submission, run.submission_names)


def ids_in_order(test: pd.DataFrame, columns: Submission, names: str) -> list[str]:
    """What the submission calls the test images, in the order of the sample where there is one.

    Raises:
        DataError: where the sample is not one for exactly these images.
    """
    wanted = submission_names(test, names)
    return sample_ids(columns.sample, wanted, columns) if columns.sample else wanted


def sample_ids(path: str, wanted: Sequence[str], columns: Submission) -> list[str]:
    """The ids of a sample submission, in its order, where it is one for exactly the wanted ids.

    Raises:
        DataError: listing in which columns or ids it differs.
    """
    header = [columns.id_column, columns.label_column]
    sample = read_user_table(path, columns_of(columns), "submission.sample")
    if list(sample) != header:
        raise DataError(f"submission.sample: {path} has the columns {list(sample)}, config.yaml has {header}")
    ids = sample[columns.id_column].tolist()
    findings = [f"{name}: there {times} times" for name, times in Counter(ids).items() if times > 1]
    if foreign := sorted(set(ids) - set(wanted)):
        findings += with_suggestions(foreign, wanted, "no test image is called so")
    findings += [f"{name}: a test image, but not in the sample" for name in sorted(set(wanted) - set(ids))]
    if findings:
        raise DataError(
            f"submission.sample: {path} and the test images differ (see submission.names too):\n{listing(findings)}"
        )
    return ids


def write_zip(path: str, submission: str, member: str) -> None:
    """A zip that holds a submission under a name of the user's; the same bytes for the same submission."""
    entry = ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.external_attr = ZIP_DEFLATED, 0o644 << 16
    with atomic(path) as temporary, ZipFile(temporary, "w") as archive:
        archive.writestr(entry, Path(submission).read_bytes())


def check_submission(
    path: str, test: pd.DataFrame, classes: Sequence[str], columns: Submission, names: str
) -> list[str]:
    """Read a written submission again, and say in words what was found right.

    Raises:
        KfoldError: listing all that is wrong.
    """
    table = read_table(path)
    wanted, given = submission_names(test, names), table.iloc[:, 0].tolist()
    foreign = sorted(set(table.iloc[:, -1]) - set(classes))
    checks = {
        f"the header is {columns.id_column},{columns.label_column}": list(table)
        == [columns.id_column, columns.label_column],
        f"there are {len(wanted):,} rows, one for each test image": len(given) == len(wanted),
        "no image is missing, and none is foreign": set(given) == set(wanted),
        "no image is there twice": len(set(given)) == len(given),
        f"every label is one of the {len(classes):,} training classes": not foreign,
    }
    wrong = [check for check, right in checks.items() if not right]
    if wrong:
        raise KfoldError(
            f"{path} is not a submission for these test images; this should be true, and is not:\n{listing(wrong)}"
        )
    return list(checks)
