"""The submission: one row a test image, in the user's columns, file names and labels."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.errors import KfoldError, listing
from kfold_ens.exchange import Logits
from kfold_ens.files import read_table
from kfold_ens.naming import submission_names


def build_submission(logits: Logits, test: pd.DataFrame, columns: Submission, names: str) -> pd.DataFrame:
    """The submission's table: the prediction for every test image of the manifest, in the manifest's order.

    Raises:
        KfoldError: where the logits are not those of exactly these images.
    """
    predicted = dict(zip(logits.image_id, logits.predictions(), strict=True))
    differing = sorted(set(predicted) ^ set(test["image_id"]))
    if differing:
        raise KfoldError(f"logits and manifest differ in these test images; predict again:\n{listing(differing)}")
    return pd.DataFrame(
        {
            columns.id_column: submission_names(test, names),
            columns.label_column: [predicted[image_id] for image_id in test["image_id"]],
        }
    )


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
