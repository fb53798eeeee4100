"""Tensors in safetensors files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors of any device and layout; equal tensors and metadata give equal bytes.

    Raises:
        OSError: if there is no room, or the file cannot be written. safetensors has an error of its own for that.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(stored, path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None
    if metadata:
        _sort_metadata(path)


def _sort_metadata(path: Path) -> None:
    """Sort the keys of a header's metadata, so that equal models are equal files: safetensors orders them at random.

    https://huggingface.co/docs/safetensors/index#format: 8 bytes of the header's length, then the header as JSON.
    """
    with open(path, "r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length)
        if len(content) == length:
            file.seek(8)
            file.write(content)
