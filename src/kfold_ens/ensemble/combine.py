"""The ensembling methods: average of logits, average of softmax, majority vote.

Each method takes ``logits_mnk`` of M members, N images and K classes. It returns scores (N, K); the class with the
largest score is the prediction, the first one on a tie. Values are sorted before they are summed, so the result does
not depend on the order of members or classes.

To add an ensembling method, write one function and add it to ``METHODS`` here and to ``Method`` in ``config.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kfold_ens.errors import KfoldError, listing
from kfold_ens.logits import Logits, log_mean_softmax


def average(logits_mnk: np.ndarray) -> np.ndarray:
    """Average the members' logits."""
    return np.sort(logits_mnk, axis=0).mean(axis=0)


def vote(logits_mnk: np.ndarray) -> np.ndarray:
    """Count the members that predict each class. The larger summed softmax breaks ties, then the order of classes.

    The score is votes + rank / K. The rank of a class, from 0, is that of its summed softmax in the row.
    """
    num_classes = logits_mnk.shape[2]
    votes = (logits_mnk.argmax(axis=2)[:, :, None] == np.arange(num_classes)).sum(axis=0)
    rank = pd.DataFrame(log_mean_softmax(logits_mnk)).rank(axis=1, method="dense").to_numpy() - 1
    return votes + rank / num_classes


@dataclass(frozen=True)
class Method:
    """An ensembling method."""

    build: Callable[[np.ndarray], np.ndarray]  # from the members' logits (M, N, K) to scores (N, K)
    label: str
    gives_probabilities: bool = True  # whether the softmax of its scores is a probability


# The keys are the names in config.yaml; the order is that of metrics.json and of the report.
METHODS = {
    "average": Method(average, "average of logits"),
    "softmax": Method(log_mean_softmax, "average of softmax"),
    "vote": Method(vote, "majority vote", gives_probabilities=False),
}


def sure_by(method: str) -> str:
    """Return the ensembling method that gives the probabilities: the method itself, or ``softmax`` for a vote."""
    return method if METHODS[method].gives_probabilities else "softmax"


def combine(members: Mapping[str, Logits], method: str) -> Logits:
    """Combine members by an ensembling method, in float64.

    Rows and columns are those of the first member. The keys of ``members`` name them in messages.

    Raises:
        KfoldError: if the images or classes of a member differ from those of the first.
    """
    first = next(iter(members.values()))
    return Logits(first.image_id, METHODS[method].build(stacked(members)), first.classes)


def stacked(members: Mapping[str, Logits]) -> np.ndarray:
    """Stack members' logits in the rows and columns of the first member: (M, N, K) float64.

    Raises:
        KfoldError: if the images or classes of a member differ from those of the first.
    """
    first = next(iter(members.values()))
    return np.stack([_aligned(name, member, first) for name, member in members.items()]).astype(np.float64)


def _aligned(name: str, member: Logits, first: Logits) -> np.ndarray:
    """Reorder a member's logits to the rows and columns of the first member."""
    rows = _positions(f"{name}: images", member.image_id, first.image_id)
    columns = _positions(f"{name}: classes", member.classes, first.classes)
    return member.values[np.ix_(rows, columns)]


def _positions(what: str, own: np.ndarray | tuple[str, ...], wanted: np.ndarray | tuple[str, ...]) -> np.ndarray:
    differing = sorted(set(own) ^ set(wanted))
    if differing or len(own) != len(wanted):
        raise KfoldError(f"{what} differ from the first fold's; predict that fold again:\n{listing(differing)}")
    return pd.Index(own).get_indexer(pd.Index(wanted))
