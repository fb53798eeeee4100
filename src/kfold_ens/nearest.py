"""Suggest the known name that an unknown one likely means."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from difflib import get_close_matches
from functools import cached_property, partial
from itertools import chain, combinations, repeat

MOST = 20  # unknown names that get a suggestion
NEIGHBOURS = 50  # alphabetical neighbours on each side with which a name is compared
ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")
LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?")


def with_suggestions(unknown: Sequence[str], known: Iterable[str], what: str = "") -> list[str]:
    """Describe each unknown name by ``what`` is wrong; the first ``MOST`` get a suggestion."""
    nearest = _Nearest(known)
    suggestions = chain((_suggestion(name, nearest) for name in unknown[:MOST]), repeat(""))
    findings = ("; ".join(filter(None, [what, suggestion])) for suggestion in suggestions)
    return [": ".join(filter(None, each)) for each in zip(map(shown, unknown), findings, strict=False)]


def shown(name: str) -> str:
    """Return a name, in quotes if it is empty or holds invisible characters."""
    return name if name.isprintable() and name.strip() == name != "" else repr(name)


def _suggestion(name: str, nearest: _Nearest) -> str:
    near = nearest.to(name)
    if not near:
        return ""
    reason = ", ".join(_differences(name, near[0]))
    return f"did you mean {' or '.join(map(shown, near))}?{f' ({reason})' if reason else ''}"


def _one_number(name: str) -> str:
    """Return the same text for 7, 007, 7.0 and 7e0, and for img_7 and img_007."""
    folder, slash, last = name.rpartition("/")
    if NUMBER.fullmatch(last) and (number := Decimal(last)) == number.to_integral_value():
        last = str(int(number))
    return LEADING_ZEROS.sub("", folder + slash + last)


STEPS: dict[str, Callable[[str], str]] = {  # in this order they undo common differences of people and spreadsheets
    "white space around it": str.strip,
    "backslashes": lambda name: name.replace("\\", "/"),
    "another Unicode normal form": partial(unicodedata.normalize, "NFC"),
    "upper or lower case": str.casefold,
    "another ending": lambda name: ENDING.sub("", name),
    "another form of a number": _one_number,
    "another folder": lambda name: name.rpartition("/")[2],
}
SPELLING = [step for step in STEPS if step != "another form of a number"]


def _key(name: str, steps: Iterable[str] = STEPS) -> str:
    for step in steps:
        name = STEPS[step](name)
    return name


def _differences(name: str, near: str) -> tuple[str, ...]:
    """Return the fewest steps that make two names equal; empty if none do."""
    if not ENDING.search(name.strip()):
        near = ENDING.sub("", near)
    some = (steps for number in range(len(STEPS) + 1) for steps in combinations(STEPS, number))
    return next((steps for steps in some if _key(name, steps) == _key(near, steps)), ())


class _Nearest:
    """Known names by their keys, and sorted by spelling and by reversed spelling."""

    def __init__(self, known: Iterable[str]) -> None:
        self._by_key = defaultdict(list)
        for name in known:
            self._by_key[_key(name)].append(name)

    def to(self, name: str) -> list[str]:
        """Return up to three known names that differ in form only, or else the one with the most similar spelling."""
        if same := self._by_key.get(_key(name)):
            return sorted(sorted(same)[:NEIGHBOURS], key=lambda near: len(_differences(name, near)))[:3]
        spelling = _spelling(name)
        backwards = [each[::-1] for each in _around(self._backwards, spelling[::-1])]
        neighbours = dict.fromkeys([*_around(self._forwards, spelling), *backwards])
        close = get_close_matches(spelling, neighbours, n=1, cutoff=0.75) if spelling else []
        return [self._spelled[each] for each in close]

    @cached_property
    def _spelled(self) -> dict[str, str]:
        return {_spelling(name): name for names in self._by_key.values() for name in names}

    @cached_property
    def _forwards(self) -> list[str]:
        return sorted(self._spelled)

    @cached_property
    def _backwards(self) -> list[str]:
        return sorted(each[::-1] for each in self._spelled)


def _spelling(name: str) -> str:
    """Return a name's spelling, with leading zeros of numbers kept."""
    return _key(name, SPELLING)


def _around(ordered: list[str], spelling: str) -> list[str]:
    place = bisect(ordered, spelling)
    return ordered[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
