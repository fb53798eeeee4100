"""The metadata of an ensemble file, and the check of its hash. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from kfold_ens.config import IntensityRange, Method, Section, TrainingRecipe, Tta
from kfold_ens.errors import KfoldError
from kfold_ens.versions import versions

FORMAT, FORMAT_VERSION = "kfold_ens ensemble", 1
NO_HASH = "0" * 64  # in place of the hash while the file is hashed
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


class EnsembleError(KfoldError):
    """An ensemble file cannot be used."""


class Member(Section):
    """A trained model: its name, its recipe, and how it predicts."""

    name: str
    recipe_name: str
    recipe: TrainingRecipe
    tta: Tta
    fingerprint: str
    versions: dict[str, str]  # of the packages that trained it


class Rounding(Section):
    """The out-of-fold metric before and after rounding the weights.

    Rounding is accepted if the metric worsens by at most ``tolerance``. ``relabelled`` of ``images`` changed labels.
    """

    metric: str
    before: float
    after: float
    tolerance: float
    images: int
    relabelled: int

    @property
    def in_words(self) -> str:
        """The metric before and after, and how many labels change."""
        from kfold_ens.metrics import find_metric  # loads scipy.stats, which takes longer than all of kfold-predict

        return (
            f"{find_metric(self.metric).label} {self.before:.4f} before rounding and {self.after:.4f} after it "
            f"(tolerance {self.tolerance}); {self.relabelled:,} of {self.images:,} images get another label"
        )


class About(Section):
    """The content of an ensemble file besides the weights.

    ``temperature`` divides the combined logits; None if probabilities are not calibrated. ``scores`` is metrics.json.
    ``licences`` has a note for each set of pretrained weights. ``rounding`` is None unless ``dtype`` is bf16.
    """

    classes: tuple[str, ...]
    members: tuple[Member, ...]
    method: Method
    temperature: float | None = None
    intensity_range: IntensityRange = "full"
    dtype: Literal["fp32", "bf16"] = "fp32"
    rounding: Rounding | None = None
    scores: dict[str, Any]
    licences: dict[str, str]
    versions: dict[str, str]  # of the packages that wrote the file

    @property
    def short_side(self) -> int:
        """The short side at which images are stored, in pixels; the largest if members differ."""
        return max(member.recipe.image.short_side for member in self.members)

    def written(self) -> dict[str, Any]:
        """Return the JSON-like content; without ``rounding`` if it is None, as in files of earlier versions."""
        return self.model_dump(mode="json", exclude=None if self.rounding else {"rounding"})


def read_about(path: str | Path) -> tuple[About, str]:
    """Check an ensemble file; return its metadata and the hash of its content.

    Raises:
        EnsembleError: if it is not an ensemble file, has a newer format, or is damaged.
    """
    with naming(path):
        metadata = _metadata(path)
        refuse_foreign(metadata, FORMAT, path)
        if content_hash(path) != metadata["sha256"]:
            raise damaged(path)
    return validated(json.loads(metadata["about"]), path), metadata["sha256"]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Raise an EnsembleError with the path if the file is missing or unreadable."""
    try:
        yield
    except FileNotFoundError:
        raise EnsembleError(f"there is no file {path} (looked in {Path.cwd()})") from None
    except OSError as error:
        raise EnsembleError(f"{path} cannot be read: {error.strerror}") from None


def refuse_foreign(metadata: Mapping[str, str], expected: str, path: str | Path) -> None:
    """Refuse a file that is not an ensemble in the ``expected`` format, or that has a newer version of it."""
    if metadata.get("format") != expected:
        raise EnsembleError(
            f"{path} is not an ensemble of kfold_ens, or it is damaged; copy it again, or make one with "
            "`snakemake ensemble`"
        )
    number = metadata["format_version"]
    if number.isdecimal() and int(number) > FORMAT_VERSION:  # the check of the hash refuses other text as damaged
        raise EnsembleError(
            f"{path} has format {number}, but this kfold_ens reads up to {FORMAT_VERSION}; install a newer kfold_ens"
        )


def damaged(path: str | Path) -> EnsembleError:
    """Return the error for a file whose content does not match its hash."""
    return EnsembleError(f"{path} is damaged: its content does not match its SHA-256; copy it again")


def validated(values: dict[str, Any], path: str | Path) -> About:
    """Parse the metadata of a file.

    Raises:
        EnsembleError: if another version of kfold_ens wrote other keys; it names both versions.
    """
    try:
        return About.model_validate(values)
    except ValidationError as error:
        written, here = (each.get("kfold_ens") for each in (values.get("versions", {}), versions()))
        raise EnsembleError(
            f"{path} was written by kfold_ens {written}, which {here} cannot read; install {written}\n  {error}"
        ) from None


def _metadata(path: str | Path) -> dict[str, str]:
    """Read the metadata from the header; empty if there is none."""
    try:
        with open(path, "rb") as file:
            metadata = json.loads(header_bytes(file)).get("__metadata__", {})
        return metadata if {"format_version", "sha256", "about"} <= metadata.keys() else {}
    except (ValueError, AttributeError):  # bytes that are not a header, or other JSON
        return {}


def header_bytes(file: Any) -> bytes:
    """Read the JSON header of an open safetensors file, up to the first tensor.

    The file starts with 8 bytes for the length of the header, then the header:
    https://huggingface.co/docs/safetensors/index#format.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, os.fstat(file.fileno()).st_size):
        raise ValueError("not a safetensors file")
    return file.read(length)


def content_hash(path: str | Path) -> str:
    """Return the SHA-256 of the file's bytes, with zeros in place of the hash itself."""
    with open(path, "rb") as file:
        header = header_bytes(file)
        own = json.loads(header)["__metadata__"]["sha256"]
        blank = header.replace(_entry(own), _entry(NO_HASH), 1)
        digest = hashlib.sha256(len(header).to_bytes(8, "little") + blank)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def put_hash(path: Path) -> None:
    """Write the hash of a file's content into the file, in place of the zeros."""
    digest = content_hash(path)
    with open(path, "r+b") as file:
        at = 8 + header_bytes(file).index(_entry(NO_HASH))
        file.seek(at)
        file.write(_entry(digest))


def _entry(digest: str) -> bytes:
    """Return the bytes of the hash in the header; no other entry can contain them, as it would escape the quotes."""
    return f'"sha256":"{digest}"'.encode()
