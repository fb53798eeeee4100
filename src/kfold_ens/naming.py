"""The names of images in the submission."""

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
    """Return the name of each test image in the submission, in the manifest's order.

    Raises:
        DataError: if two images would share a name; it lists these names.
    """
    wanted = test["name"].map(NAMES[names])
    shared = sorted(wanted[wanted.duplicated()].unique())
    if shared:
        raise DataError(
            f"submission.names: {names}: several test images would share these names; use a longer form (file or "
            f"path):\n{listing(shared)}"
        )
    return wanted.tolist()
