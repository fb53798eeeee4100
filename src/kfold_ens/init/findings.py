"""What was found out about keys of config.yaml: one answer, several, or none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import yaml

from kfold_ens import errors

counted = partial(errors.counted, form=",")  # 1 image, 2 images, 10,000 images


@dataclass(frozen=True)
class Answer:
    """A possible value of each key, and the reason to think so."""

    values: dict[str, Any]
    reason: str

    def __str__(self) -> str:
        return ", ".join(f"{key}: {as_yaml(value)}" for key, value in self.values.items())


@dataclass(frozen=True)
class Finding:
    """The possible answers for some keys of a section of config.yaml. ``advice`` says why there is not just one."""

    section: str
    keys: tuple[str, ...]
    answers: tuple[Answer, ...]
    advice: str = ""
    is_optional: bool = False  # a run needs none of the answers

    @property
    def is_sure(self) -> bool:
        """Whether there is one answer, without an objection."""
        return len(self.answers) == 1 and not self.advice

    @property
    def values(self) -> dict[str, Any]:
        """The values of the keys; empty if the user has to decide."""
        return self.answers[0].values if self.is_sure else {}

    def line(self) -> str:
        """Describe this in one line of the terminal."""
        names = " and ".join(f"{self.section}.{key}" for key in self.keys)
        if self.is_sure:
            (answer,) = self.answers
            values = ", ".join(f"{self.section}.{key}: {as_yaml(value)}" for key, value in answer.values.items())
            return f"{values} ({answer.reason})"
        if not self.answers:
            return f"{names}: not found; {self.advice}"
        options = "; or ".join(f"{answer} ({answer.reason})" for answer in self.answers)
        return f"{names}: {self._question()}: {options}"

    def written(self) -> list[str]:
        """Return the lines of config.yaml, without their indentation. Only a sure answer is not a comment."""
        if not self.answers:
            return [f"# {key}: # not found; {self.advice}" for key in self.keys]
        if len(self.answers) == 1:
            (answer,) = self.answers
            *first, last = _lines(answer)
            lines = [*first, f"{last} # {answer.reason}"]
            return lines if self.is_sure else [f"# Not decided, {self.advice}:", *(f"# {line}" for line in lines)]
        lines = [f"# {self._question()}; uncomment the lines of one:"]
        for number, answer in enumerate(self.answers, 1):
            lines += [f"# Answer {number}, {answer.reason}:", *(f"# {line}" for line in _lines(answer))]
        return lines

    def _question(self) -> str:
        possible = "not decided" if len(self.answers) == 1 else f"{len(self.answers)} answers are possible"
        return ", ".join(filter(None, [possible, self.advice]))


def _lines(answer: Answer) -> list[str]:
    return [f"{key}: {as_yaml(value)}" for key, value in answer.values.items()]


def guess(section: str, reason: str, **values: Any) -> Finding:
    """A finding with one answer."""
    return Finding(section, tuple(values), (Answer(values, reason),))


def doubt(section: str, answers: Iterable[Answer], advice: str = "", is_optional: bool = False) -> Finding:
    """A finding with several answers, or with one that the user has to confirm, for the reason ``advice``."""
    answers = tuple(answers)
    keys = tuple(dict.fromkeys(key for each in answers for key in each.values))
    return Finding(section, keys, answers, advice, is_optional)


def nothing(section: str, key: str, advice: str) -> Finding:
    """A finding without an answer."""
    return Finding(section, (key,), (), advice)


def as_yaml(value: Any) -> str:
    """Write a text or a list of texts in one line of YAML."""
    if isinstance(value, list):
        return f"[{', '.join(map(as_yaml, value))}]"
    return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)


def _is_plain(text: str) -> bool:
    try:
        return text.isprintable() and yaml.safe_load(f"[{text}]") == [text] and yaml.safe_load(text) == text
    except yaml.YAMLError:
        return False
