"""What an ensemble file says of itself, and whether it is whole. Imports no torch."""

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
NO_HASH = "0" * 64  # what the place of the hash holds while the file is hashed
LONGEST_HEADER = 100_000_000  # bytes, as in safetensors


class EnsembleError(KfoldError):
    """An ensemble file cannot be used."""


class Member(Section):
    """A trained model: its name among those of its recipe, and what it needs to predict."""

    name: str
    recipe_name: str
    recipe: TrainingRecipe
    tta: Tta
    fingerprint: str
    versions: dict[str, str]  # of what trained it


class Rounding(Section):
    """A metric out of fold with the weights as they were trained, and with them rounded.

    It was accepted if it is worse by no more than ``tolerance``. ``relabelled`` of ``images`` got another label.
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
    """All that an ensemble file holds besides weights.

    ``temperature`` divides the combined logits; None if probabilities are not calibrated. ``scores`` is metrics.json.
    ``licences`` is a note for each of the pretrained weights that training started from. ``rounding`` is there only
    with bf16.
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
    versions: dict[str, str]  # of what wrote the file

    @property
    def short_side(self) -> int:
        """The short side, in pixels, that images are stored with; the largest if members differ."""
        return max(member.recipe.image.short_side for member in self.members)

    def written(self) -> dict[str, Any]:
        """What the file holds, JSON-like; without ``rounding`` if there was none, as in files of earlier versions."""
        return self.model_dump(mode="json", exclude=None if self.rounding else {"rounding"})


def read_about(path: str | Path) -> tuple[About, str]:
    """What a whole ensemble file says of itself, and the hash of its content.

    Raises:
        EnsembleError: if it is no ensemble file, of a newer format, or not as it was written.
    """
    with naming(path):
        metadata = _metadata(path)
        refuse_foreign(metadata, FORMAT, path)
        if content_hash(path) != metadata["sha256"]:
            raise damaged(path)
    return validated(json.loads(metadata["about"]), path), metadata["sha256"]


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Say which file is not there, or cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise EnsembleError(f"there is no file {path} (looked in {Path.cwd()})") from None
    except OSError as error:
        raise EnsembleError(f"{path} cannot be read: {error.strerror}") from None


def refuse_foreign(metadata: Mapping[str, str], expected: str, path: str | Path) -> None:
    """Refuse a file whose metadata is not that of an ensemble of this format, or of a newer one."""
    if metadata.get("format") != expected:
        raise EnsembleError(
            f"{path} is not an ensemble of kfold_ens, or it is damaged; copy it again, or make one with: "
            "snakemake ensemble"
        )
    number = metadata["format_version"]
    if number.isdecimal() and int(number) > FORMAT_VERSION:  # of another text, the hash says that it is damaged
        raise EnsembleError(
            f"{path} has format {number}, and this kfold_ens reads up to {FORMAT_VERSION}: install a newer kfold_ens"
        )


def damaged(path: str | Path) -> EnsembleError:
    """What to raise if the content does not fit the hash."""
    return EnsembleError(f"{path} is damaged: its content is not what its SHA-256 says; copy it again")


def validated(values: dict[str, Any], path: str | Path) -> About:
    """What a file says of itself.

    Raises:
        EnsembleError: with both versions, if another version of kfold_ens wrote other keys.
    """
    try:
        return About.model_validate(values)
    except ValidationError as error:
        written, here = (each.get("kfold_ens") for each in (values.get("versions", {}), versions()))
        raise EnsembleError(
            f"{path} was written by kfold_ens {written} and cannot be read by {here}; install that version\n  {error}"
        ) from None


def _metadata(path: str | Path) -> dict[str, str]:
    """The metadata in the header; empty if there is none."""
    try:
        with open(path, "rb") as file:
            metadata = json.loads(header_bytes(file)).get("__metadata__", {})
        return metadata if {"format_version", "sha256", "about"} <= metadata.keys() else {}
    except (ValueError, AttributeError):  # bytes that are no header, or JSON that is something else
        return {}


def header_bytes(file: Any) -> bytes:
    """The header of an open safetensors file, as JSON; the file is then at the first tensor.

    https://huggingface.co/docs/safetensors/index#format: 8 bytes of the header's length, then the header.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > min(LONGEST_HEADER, os.fstat(file.fileno()).st_size):
        raise ValueError("not a safetensors file")
    return file.read(length)


def content_hash(path: str | Path) -> str:
    """The SHA-256 of the file's bytes with zeros in place of the hash itself."""
    with open(path, "rb") as file:
        header = header_bytes(file)
        own = json.loads(header)["__metadata__"]["sha256"]
        blank = header.replace(_entry(own), _entry(NO_HASH), 1)
        digest = hashlib.sha256(len(header).to_bytes(8, "little") + blank)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def put_hash(path: Path) -> None:
    """Write the hash of a file's content into it, in place of zeros."""
    digest = content_hash(path)
    with open(path, "r+b") as file:
        at = 8 + header_bytes(file).index(_entry(NO_HASH))
        file.seek(at)
        file.write(_entry(digest))


def _entry(digest: str) -> bytes:
    """How the hash appears in the header; within the text of another entry, quotation marks would be escaped."""
    return f'"sha256":"{digest}"'.encode()
