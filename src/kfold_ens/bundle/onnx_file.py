"""An ensemble as an ONNX file, opened with onnxruntime. Imports no torch.

Its metadata is that of ``about.py``. Large weights are in a second file beside it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from kfold_ens.bundle.about import NO_HASH, About, EnsembleError, damaged, naming, refuse_foreign, validated
from kfold_ens.files import sha256_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORMAT = "kfold_ens ensemble as ONNX"
HASH_KEY = b"sha256\x12\x40"  # in protobuf: the key, the tag of its value, and the length of the value (64)
PROVIDERS = {"auto": ("CUDAExecutionProvider", "CPUExecutionProvider"), "cuda": ("CUDAExecutionProvider",)}


def read_onnx(path: str | Path, device: str, threads: int) -> tuple[About, str]:
    """Check an exported ensemble; return its metadata and the hash of its content.

    Raises:
        EnsembleError: if it is not such a file, has a newer format, or is damaged.
    """
    with naming(path):
        own, there = _hashes(path)
        if own != there:
            raise damaged(path)
        metadata = open_session(str(path), device, threads).get_modelmeta().custom_metadata_map
        refuse_foreign(metadata, FORMAT, path)
        _refuse_other_weights(Path(path), json.loads(metadata["weights"]))
    return validated(json.loads(metadata["about"]), path), own


def _refuse_other_weights(path: Path, sha256_by_name: Mapping[str, str]) -> None:
    for name, sha256 in sha256_by_name.items():
        if sha256_of(path.with_name(name)) != sha256:
            raise damaged(path.with_name(name))


def put_hash(path: Path) -> None:
    """Write the hash of a file's content into the file, in place of the zeros."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        at = _place_of_hash(content)
        content[at : at + len(NO_HASH)] = _blank_hash(content, at).encode()


def _hashes(path: str | Path) -> tuple[str, str]:
    """Return the hash in a file and the hash of its content.

    Raises:
        EnsembleError: if the file has no hash.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = _place_of_hash(content)
            return content[at : at + len(NO_HASH)].decode(), _blank_hash(content, at)
    except ValueError:  # the file is empty, which mmap refuses, or comes from another tool and has no hash
        refuse_foreign({}, FORMAT, path)
        raise


def _place_of_hash(content: mmap.mmap) -> int:
    at = content.rfind(HASH_KEY)
    if at < 0:
        raise ValueError("no hash")
    return at + len(HASH_KEY)


def _blank_hash(content: mmap.mmap, at: int) -> str:
    """Return the SHA-256 of the content, with zeros in place of the hash itself."""
    view = memoryview(content)
    try:
        digest = hashlib.sha256(view[:at])
        digest.update(NO_HASH.encode())
        digest.update(view[at + len(NO_HASH) :])
        return digest.hexdigest()
    finally:
        view.release()


@lru_cache(maxsize=1)
def open_session(path: str, device: str, threads: int) -> InferenceSession:
    """Return ``new_session`` from a cache, so that reading and predicting share one session."""
    return new_session(path, device, threads)


def new_session(path: str, device: str, threads: int) -> InferenceSession:
    """Open the file's graph for inference.

    Raises:
        EnsembleError: if onnxruntime is not installed, cannot read the file, or does not support the device.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise EnsembleError(f"{path} needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # onnxruntime's errors have no common base class
        raise EnsembleError(f"onnxruntime cannot open {path}: {error}") from None


def _providers(device: str, available: list[str]) -> list[str]:
    found = [each for each in PROVIDERS.get(device, ("CPUExecutionProvider",)) if each in available]
    if not found:
        raise EnsembleError(
            f"--device {device}: this onnxruntime has no {' or '.join(PROVIDERS[device])}; run: pip install "
            "onnxruntime-gpu"
        )
    return found
