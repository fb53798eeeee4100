"""What the names of files and folders say they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Literal

Half = Literal["val", "train", "test"]
Role = Literal["sample"] | Half

WORDS: dict[Role, str] = {  # a sample may be called sample_test.csv
    "sample": "sample|submission|samplesubmission|submit|example|prediction|template",
    "val": "val|valid|validation|dev",
    "train": "train|training",
    "test": "test|testing",
}
KINDS = "set|data|dataset|imgs?|images?|photos?|pictures?"
LETTER = r"[^\W\d_]"
ROLES = {role: re.compile(rf"(?<!{LETTER})({words})({KINDS})?(?!{LETTER})") for role, words in WORDS.items()}
ALL_HALVES = "|".join(words for role, words in WORDS.items() if role != "sample")
SAYS_NO_MORE = re.compile(rf"({ALL_HALVES})?({KINDS})?|{LETTER}")  # a word beside a half's that adds nothing: test_a


def role_of(path: str) -> Role | None:
    """What the name of a table says it is, or that of the closest folder above; None if none does."""
    for name in reversed(PurePosixPath(path).parts):
        if found := _roles_in(name):
            return found[0] if len(found) == 1 or found[0] == "sample" else None
    return None


def half_in(name: str) -> Half | None:
    """The one half of the data that a folder's name mentions."""
    found = [role for role in _roles_in(name) if role != "sample"]
    return found[0] if len(found) == 1 else None


def halves_among(names: Iterable[str]) -> dict[str, Half]:
    """Which of the folders that lie beside each other are named as halves of the data.

    ``test`` and ``test_images_2`` are. ``birds_test`` is beside ``birds_train`` or ``birds``. ``test_tube`` is not.
    """
    rests = {name: _rest(name) for name in names}
    partners: dict[tuple[str, ...], set[Half | None]] = {}
    for name, rest in rests.items():
        partners.setdefault(rest, set()).add(half_in(name))
    return {
        name: half for name, rest in rests.items() if (half := half_in(name)) and (not rest or len(partners[rest]) > 1)
    }


def _rest(name: str) -> tuple[str, ...]:
    """The words of a name besides those that say that it is a half."""
    words = re.findall(f"{LETTER}+", _plain(name))
    return tuple(word for word in words if not SAYS_NO_MORE.fullmatch(word))


def _roles_in(name: str) -> list[Role]:
    return [role for role, words in ROLES.items() if words.search(_plain(name))]


def _plain(name: str) -> str:
    """The name in lower case, with its words apart: sample_submission for sampleSubmission."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
