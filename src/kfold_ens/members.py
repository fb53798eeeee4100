"""The models of a recipe, and their names in rules and paths. The Snakefile imports it, so it must load fast."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

FULL = "full"  # the full fit's name in place of a fold's number
Number = int | str  # of a fold in tables and figures: 3, or "3 of repeat 1"

# The end of a path: recipe, then fold3, repeat1/fold3 or full, then a file.
MEMBER = r"(?:repeat(?P<repeat>\d+)/)?fold(?P<fold>\d+)|full"
PLACE = re.compile(rf"(?:^|/)(?:results|state)/(?P<recipe>[^/]+)/(?:{MEMBER})/[^/]+$")
FOLDERS = ("fold*", "repeat*/fold*", "full")  # folders of members, as glob patterns

Value = TypeVar("Value")


@dataclass(frozen=True)
class Member:
    """One model of a recipe: that of a fold, or the full fit if ``fold`` is None."""

    repeat: int = 0
    fold: int | None = None

    @property
    def holds_out(self) -> bool:
        """Whether it holds out images and so has an out-of-fold score."""
        return self.fold is not None

    def __lt__(self, other: Member) -> bool:
        return (self.fold is None, self.repeat, self.fold or 0) < (other.fold is None, other.repeat, other.fold or 0)

    @property
    def name(self) -> str:
        """The suffix of its rules' names: fold3, repeat1_fold3, full."""
        return self.folder.replace("/", "_")

    @property
    def folder(self) -> str:
        """Its folder below that of the recipe: fold3, repeat1/fold3, full."""
        if self.fold is None:
            return FULL
        return f"repeat{self.repeat}/fold{self.fold}" if self.repeat else f"fold{self.fold}"

    @property
    def number(self) -> Number:
        """Its number in tables and figures: 3, "3 of repeat 1", "full"."""
        if self.fold is None:
            return FULL
        return f"{self.fold} of repeat {self.repeat}" if self.repeat else self.fold

    @property
    def trained_as(self) -> Number:
        """The fold's number in its split, which seeds its randomness."""
        return FULL if self.fold is None else self.fold


def folds_of(repeats: int, num_folds: int) -> list[Member]:
    """List the folds of all repeats, repeat 0 first."""
    return [Member(repeat, fold) for repeat in range(repeats) for fold in range(num_folds)]


def place_of(file: str | Path) -> tuple[str, Member] | None:
    """Return the recipe and member of a file in a member's folder; None for other files."""
    found = PLACE.search(Path(file).as_posix())
    return (found["recipe"], _member(found)) if found else None


def of_recipes(files: Iterable[str]) -> dict[str, list[str]]:
    """Group files in members' folders by their recipes."""
    groups: dict[str, list[str]] = {}
    for file in files:
        place = place_of(file)
        assert place, f"{file} is not in the folder of a member"
        groups.setdefault(place[0], []).append(file)
    return groups


def member_with(file: str | Path) -> Member:
    """Return the member whose folder holds a file."""
    place = place_of(file)
    assert place, f"{file} is not in the folder of a member"
    return place[1]


def files_by_recipe(files: Iterable[str]) -> dict[str, dict[Number, str]]:
    """Sort files in members' folders by recipe and number."""
    found: dict[str, dict[Number, str]] = {}
    for file in files:
        place = place_of(file)
        assert place, f"{file} is not in the folder of a member"
        found.setdefault(place[0], {})[place[1].number] = file
    return found


def member_of(number: Number) -> Member:
    """Return the member with this number in tables and figures."""
    if number == FULL:
        return Member()
    fold, _, repeat = str(number).partition(" of repeat ")
    return Member(int(repeat or 0), int(fold))


def member_in(folder: str) -> Member:
    """Return the member with this folder below a recipe's."""
    found = re.fullmatch(MEMBER, folder)
    assert found, f"{folder} is no folder of a member"
    return _member(found)


def why_absent(name: str, num_folds: int, repeats: int, full_fit: bool) -> list[str]:
    """Return the reasons why a configuration has no model of this name, each with its key of config.yaml.

    ``name`` is the suffix of rules' names: fold3, repeat1_fold3, full. Empty if the configuration has the model, or if
    the name is not that of a model.
    """
    found = re.fullmatch(MEMBER, name.replace("_", "/"))
    if not found:
        return []
    member, why = _member(found), []
    if member.fold is None:
        return [] if full_fit else ["full_fit is false; set full_fit: true to train on all images"]
    if member.fold >= num_folds:
        why.append(f"num_folds: {num_folds} makes {_counted('fold', num_folds)}")
    if member.repeat >= repeats:
        why.append(
            f"repeats: {repeats} makes {_counted('repeat', repeats)}; set repeats to at least {member.repeat + 1}"
        )
    return why if why or member.name == name else [f"the fold is named {member.name}"]


def _counted(what: str, count: int) -> str:
    return f"{what}s 0 to {count - 1}" if count > 1 else f"{what} 0 only"


def _member(found: re.Match[str]) -> Member:
    fold = found["fold"]
    return Member(int(found["repeat"] or 0), int(fold) if fold else None)


def by_number(files: Iterable[str], read: Callable[[str], Value]) -> dict[Number, Value]:
    """Read a file of each member; return the results by the member's number."""
    return {member_with(file).number: read(file) for file in files}


def title(number: Any) -> str:
    """Name a member in words: fold 3, fold 3 of repeat 1, full fit."""
    return "full fit" if number == FULL else f"fold {number}"
