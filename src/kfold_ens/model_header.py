"""What the file of a trained model says of itself. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from kfold_ens.errors import DataError


def header_of(model: str | Path) -> dict[str, str]:
    """What a trained model's file says that it was trained from, and with. Imports no torch.

    Raises:
        DataError: naming the file, if it is not a trained model.
    """
    try:
        with safe_open(model, framework="np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise DataError(f"{model} is not a trained model ({error}); remove it and run again") from None
