"""The predictions of an ensemble, and their rows in the CSV. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, softmax

from kfold_ens.bundle.about import About
from kfold_ens.ensemble.combine import METHODS, combine
from kfold_ens.logits import Logits, at_temperature, log_mean_softmax


@dataclass(frozen=True)
class Answers:
    """Predictions for N images and K classes: combined scores, probabilities, and votes of the members."""

    image_id: np.ndarray  # (N,) text
    scores: np.ndarray  # (N, K) floating point; the largest is the prediction
    probabilities: np.ndarray  # (N, K); each row sums to 1
    votes: np.ndarray  # (N, K) int
    classes: tuple[str, ...]


def answers_of(members: Mapping[str, Logits], about: About) -> Answers:
    """Combine members as in the submission, at the temperature if there is one.

    A vote has no probabilities, so it takes those of the average of softmax.
    """
    combined = combine(members, about.method)
    if about.temperature is not None:
        combined = at_temperature(combined, about.temperature)
    logits_mnk = np.stack([member.values for member in members.values()]).astype(np.float64)
    is_sure = METHODS[about.method].gives_probabilities
    logits = combined.values if is_sure else log_mean_softmax(logits_mnk)
    votes = (logits_mnk.argmax(axis=2)[:, :, None] == np.arange(len(about.classes))).sum(axis=0)
    return Answers(combined.image_id, combined.values, softmax(logits, axis=1), votes, about.classes)


def graph_answers(image_id: np.ndarray, probabilities: np.ndarray, votes: np.ndarray, about: About) -> Answers:
    """Convert the outputs (N, K) of an exported graph. A vote orders classes by votes, then by probabilities."""
    probabilities = probabilities.astype(np.float64)
    scores = probabilities if METHODS[about.method].gives_probabilities else votes + probabilities
    return Answers(image_id, scores, probabilities, votes, about.classes)


@dataclass(frozen=True)
class Columns:
    """The optional columns of the CSV, besides image, label, probability, agreement and entropy."""

    top_k: int = 1
    probabilities: bool = False
    min_probability: float | None = None
    errors: bool = False  # unreadable files have a row with the reason

    def header(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the columns."""
        ranks = range(2, self.top_k + 1)
        return [
            *("image", "label", "probability", "agreement", "entropy"),
            *(["unsure"] if self.min_probability is not None else []),
            *(f"{what}_{rank}" for rank in ranks for what in ("label", "probability")),
            *(f"p_{label}" for label in (classes if self.probabilities else ())),
            *(["error"] if self.errors else []),
        ]

    def rows(self, answers: Answers) -> dict[str, list[str]]:
        """Return the row of each image, by name."""
        order = np.argsort(-answers.scores, axis=1, kind="stable")[:, : self.top_k]
        entropy = entr(answers.probabilities).sum(axis=1)
        return {
            image: self._row(image, answers.classes, order[row], answers.votes[row], p, entropy[row])
            for row, (image, p) in enumerate(zip(answers.image_id, answers.probabilities, strict=True))
        }

    def _row(
        self,
        image: str,
        classes: Sequence[str],
        order: np.ndarray,
        votes: np.ndarray,
        probabilities: np.ndarray,
        entropy: float,
    ) -> list[str]:
        first, *others = order
        cells = [image, classes[first], _number(probabilities[first]), str(votes[first]), _number(entropy)]
        if self.min_probability is not None:
            cells.append("yes" if probabilities[first] < self.min_probability else "no")
        cells += [cell for each in others for cell in (classes[each], _number(probabilities[each]))]
        cells += map(_number, probabilities) if self.probabilities else []
        return [*cells, ""] if self.errors else cells

    def failed_row(self, image: str, reason: str, classes: Sequence[str]) -> list[str]:
        """Return the row of an unreadable file."""
        return [image, *[""] * (len(self.header(classes)) - 2), reason]


def _number(value: float) -> str:
    return f"{value:.6f}"
