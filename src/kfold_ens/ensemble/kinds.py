"""The kinds of submission: a label per image, the probability of each class, or the k likeliest labels.

To add a kind, write its functions and add it to ``KINDS`` here and to ``Submission.kind`` in ``config.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from kfold_ens.config import Submission
from kfold_ens.ensemble.samples import Sample, of_classes, of_labels, of_top_k, splits_into_labels
from kfold_ens.errors import DataError, listing
from kfold_ens.logits import Logits


@dataclass(frozen=True)
class Form:
    """The complete form of a submission. Rows have the order of ``ids``."""

    kind: str
    header: tuple[str, ...]
    id_column: str
    ids: tuple[str, ...]
    image_ids: tuple[str, ...]  # the manifest's id of each row
    classes: tuple[str, ...]  # for probabilities, in the order of ``columns``
    k: int = 1
    separator: str = " "
    decimals: int = 6

    @property
    def columns(self) -> list[str]:
        """The columns besides the ids."""
        return [name for name in self.header if name != self.id_column]


# --- values ----------------------------------------------------------------------------------------------


def _labels(logits: Logits, form: Form) -> dict[str, np.ndarray]:
    return {form.columns[0]: logits.predictions()}


def _top_k(logits: Logits, form: Form) -> dict[str, Sequence[str]]:
    best_nk = np.argsort(-logits.values, axis=1, kind="stable")[:, : form.k]
    labels_nk = np.array(logits.classes, dtype=object)[best_nk]
    return {form.columns[0]: [form.separator.join(labels) for labels in labels_nk]}


def _probabilities(logits: Logits, form: Form) -> dict[str, Sequence[str]]:
    place = {label: index for index, label in enumerate(logits.classes)}
    probabilities_nk = softmax(logits.values.astype(np.float64), axis=1)[:, [place[label] for label in form.classes]]
    parts_nk = rounded(probabilities_nk, form.decimals)
    texts = {part: _fraction(part, form.decimals) for part in np.unique(parts_nk).tolist()}
    return {name: [texts[part] for part in parts_nk[:, at].tolist()] for at, name in enumerate(form.columns)}


def rounded(probabilities_nk: np.ndarray, decimals: int) -> np.ndarray:
    """Round probabilities to multiples of 10^-decimals, so that each row sums to 10^decimals: (N, K) int.

    Uses the largest remainder method: rounds down, then adds 1 to the largest remainders, the first on a tie.
    """
    scaled = probabilities_nk * 10.0**decimals
    parts = np.floor(scaled).astype(np.int64)
    lacking = 10**decimals - parts.sum(axis=1, keepdims=True)
    rank = np.argsort(np.argsort(parts - scaled, axis=1, kind="stable"), axis=1, kind="stable")
    return parts + (rank < lacking)


def _fraction(part: int, decimals: int) -> str:
    whole, rest = divmod(part, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}"


# --- checks of a written table ---------------------------------------------------------------------------


def _are_labels(table: pd.DataFrame, form: Form) -> dict[str, bool]:
    foreign = set(table[form.columns[0]]) - set(form.classes)
    return {f"every label is one of the {len(form.classes):,} training classes": not foreign}


def _are_top_k(table: pd.DataFrame, form: Form) -> dict[str, bool]:
    rows = [cell.split(form.separator) for cell in table[form.columns[0]]]
    foreign = {label for row in rows for label in row} - set(form.classes)
    return {
        f"every label is one of the {len(form.classes):,} training classes": not foreign,
        f"every row has {form.k} different labels": all(len(row) == len(set(row)) == form.k for row in rows),
    }


def _are_probabilities(table: pd.DataFrame, form: Form) -> dict[str, bool]:
    values = table[form.columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    sums = np.rint(values * 10.0**form.decimals).sum(axis=1)
    return {
        "every probability is a number from 0 to 1": bool(((values >= 0) & (values <= 1)).all()),
        f"every row sums to 1 in {form.decimals} decimals": bool((sums == 10**form.decimals).all()),
    }


# --- the predicted label of a written table --------------------------------------------------------------


def _likeliest(table: pd.DataFrame, form: Form) -> pd.Series:
    best = table[form.columns].astype(float).to_numpy().argmax(axis=1)
    return pd.Series(np.array(form.classes, dtype=object)[best])


# --- without a sample ------------------------------------------------------------------------------------


def _written_label(submission: Submission, classes: Sequence[str]) -> dict[str, Any]:
    return {"columns": (submission.label_column,)}


def _written_top_k(submission: Submission, classes: Sequence[str]) -> dict[str, Any]:
    return {
        "columns": (submission.label_column,),
        "k": submission.k or 5,
        "separator": submission.separator or " ",
    }


def _written_probabilities(submission: Submission, classes: Sequence[str]) -> dict[str, Any]:
    return {"columns": tuple(f"{submission.class_prefix or ''}{label}" for label in classes)}


# --- by name ---------------------------------------------------------------------------------------------


def _nothing(form: Form) -> None:
    """Accept every form."""


def _refuse_impossible_k(form: Form) -> None:
    findings = []
    if form.k > len(form.classes):
        findings.append(f"submission.k: {form.k} is more than the {len(form.classes)} classes; write a smaller number")
    if holding := [repr(label) for label in form.classes if form.separator in label]:
        findings.append(
            f"submission.separator: {form.separator!r} occurs in labels; write another separator:\n{listing(holding)}"
        )
    if findings:
        raise DataError("\n".join(findings))


def _refuse_shared_column(form: Form) -> None:
    if len(form.columns) < len(form.classes):
        raise DataError(
            f"submission.id_column: {form.id_column!r} is also the column of a class; rename it, or set "
            "submission.class_prefix"
        )


@dataclass(frozen=True)
class Kind:
    """A kind of submission."""

    values: Callable[
        [Logits, Form], Mapping[str, Sequence[str] | np.ndarray]
    ]  # by column, from logits in the form's order
    checks: Callable[[pd.DataFrame, Form], Mapping[str, bool]]
    predicted: Callable[[pd.DataFrame, Form], pd.Series]
    written: Callable[[Submission, Sequence[str]], dict[str, Any]]  # fields of the form, without a sample
    is_of: Callable[[Sample], bool]  # whether a sample is of this kind, if config.yaml names none
    sampled: Callable[[Sample], dict[str, Any]]  # fields of the form, from a sample
    refuse: Callable[[Form], None] = _nothing
    needs_probabilities: bool = False


KINDS = {
    "label": Kind(
        _labels,
        _are_labels,
        predicted=lambda table, form: table[form.columns[0]],
        written=_written_label,
        is_of=lambda sample: len(sample.columns) == 1 and not splits_into_labels(sample),
        sampled=of_labels,
    ),
    "probabilities": Kind(
        _probabilities,
        _are_probabilities,
        predicted=_likeliest,
        written=_written_probabilities,
        is_of=lambda sample: len(sample.columns) > 1,
        sampled=of_classes,
        refuse=_refuse_shared_column,
        needs_probabilities=True,
    ),
    "top_k": Kind(
        _top_k,
        _are_top_k,
        predicted=lambda table, form: table[form.columns[0]].str.split(form.separator, regex=False).str[0],
        written=_written_top_k,
        is_of=lambda sample: len(sample.columns) == 1 and splits_into_labels(sample),
        sampled=of_top_k,
        refuse=_refuse_impossible_k,
    ),
}
