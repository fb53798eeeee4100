"""An ensemble as an ONNX file, checked and then opened with onnxruntime. Imports no torch.

The file holds the metadata of an ensemble file. If its weights exceed 1.5 GB, they are in a second file beside it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kfold_ens.bundle.about import NO_HASH, About, EnsembleError, damaged, naming, refuse_foreign, validated
from kfold_ens.files import sha256_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = "kfold_ens ensemble as ONNX"
METADATA = ("format", "format_version", "sha256", "weights", "about")
PROVIDERS = {"auto": ("CUDAExecutionProvider", "CPUExecutionProvider"), "cuda": ("CUDAExecutionProvider",)}
CPU = ("CPUExecutionProvider",)


def weights_beside(path: Path) -> Path:
    """Return the file of the weights, if they are not in the file of the graph."""
    return path.with_name(f"{path.name}.data")


def read_onnx(path: str | Path) -> tuple[About, str]:
    """Read the description of an exported ensemble, and the hash of its content.

    Raises:
        EnsembleError: if the file is not such an export, has a newer format, or was changed.
    """
    with naming(path):
        metadata, content_hash = _checked_content(path)
        refuse_foreign(metadata, FORMAT, path)
        if metadata["sha256"] != content_hash:
            raise damaged(path)
        _refuse_other_weights(Path(path), json.loads(metadata["weights"]))
    return validated(json.loads(metadata["about"]), path), content_hash


def _refuse_other_weights(path: Path, sha256_by_name: Mapping[str, str]) -> None:
    if not sha256_by_name:
        return
    weights = weights_beside(path)
    if not weights.is_file():
        raise EnsembleError(
            f"{path} needs {weights.name} beside it, which holds its weights; copy both, with these names"
        )
    if [sha256_of(weights)] != list(sha256_by_name.values()):
        raise damaged(weights)


def put_hash(path: Path) -> None:
    """Write the hash of a file's content into the file, in place of the zeros."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at, _ = _place(content, "sha256")
        content[at : at + len(NO_HASH)] = _hash(content, at).encode()


def _checked_content(path: str | Path) -> tuple[dict[str, str], str]:
    """Return the metadata and the hash of the content; no metadata if some of it is missing."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            places = {key: _place(content, key) for key in METADATA}
            metadata = {key: content[at : at + length].decode() for key, (at, length) in places.items()}
            return metadata, _hash(content, places["sha256"][0])
    except ValueError:  # an empty file, which mmap refuses; one of another tool, without metadata; or a damaged one
        return {}, ""


def _place(content: mmap.mmap, key: str) -> tuple[int, int]:
    """Return where the value of a metadata key starts, and its length in bytes.

    In protobuf, an entry is 0x0a, the key's length, the key, 0x12, the value's length, the value.
    https://protobuf.dev/programming-guides/encoding
    """
    entry = b"\x0a" + bytes([len(key)]) + key.encode() + b"\x12"
    at = content.rfind(entry)
    if at < 0:
        raise ValueError(f"no {key}")
    return _varint(content, at + len(entry))


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Return where a protobuf number ends, and its value."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return at, value


def _hash(content: mmap.mmap, at: int) -> str:
    """Return the SHA-256 of the content, with zeros in place of the hash itself, which starts at ``at``."""
    view = memoryview(content)
    try:
        digest = hashlib.sha256(view[:at])
        digest.update(NO_HASH.encode())
        digest.update(view[at + len(NO_HASH) :])
        return digest.hexdigest()
    finally:
        view.release()


def open_session(path: str | Path, device: str, threads: int) -> InferenceSession:
    """Open the graph on a device.

    Raises:
        EnsembleError: if onnxruntime is not installed, cannot read the file, or does not have the device.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EnsembleError(f"{path} needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = [each for each in PROVIDERS.get(device, CPU) if each in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers or list(CPU))
    except Exception as error:  # the errors of onnxruntime have no common base
        raise EnsembleError(f"onnxruntime cannot open {path}: {error}") from None
    if not set(session.get_providers()) & set(PROVIDERS.get(device, CPU)):  # it falls back to the CPU
        raise EnsembleError(f"--device {device}: onnxruntime has no such device here; pip install onnxruntime-gpu")
    return session
