"""The submission: one row a test image, in the user's columns, file names and labels."""

from __future__ import annotations

import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.errors import KfoldError, listing
from kfold_ens.exchange import Logits
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
