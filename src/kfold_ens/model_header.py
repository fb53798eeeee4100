"""The metadata in a trained model's file. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from kfold_ens.errors import DataError


def header_of(model: str | Path) -> dict[str, str]:
    """Read the metadata of a trained model: recipe, fingerprint, versions.

    Raises:
        DataError: if the file is not a trained model.
    """
    try:
        with safe_open(model, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{model} is not a trained model ({error}); delete it and run again") from None
