"""What the submission calls an image."""

from __future__ import annotations

from pathlib import PurePosixPath

import pandas as pd

from kfold_ens.errors import DataError, listing

NAMES = {
    "stem": lambda name: PurePosixPath(name).stem,
    "file": lambda name: PurePosixPath(name).name,
    "path": lambda name: name,
}


def submission_names(test: pd.DataFrame, names: str) -> list[str]:
    """What the submission calls each test image of a manifest, in its order.

    Raises:
        DataError: listing the names that two images would share.
    """
    wanted = test["name"].map(NAMES[names])
    shared = sorted(wanted[wanted.duplicated()].unique())
    if shared:
        raise DataError(
            f"test images would share these names in the submission; write a longer form at submission.names "
            f"(stem, file or path; it is {names}):\n{listing(shared)}"
        )
    return wanted.tolist()
