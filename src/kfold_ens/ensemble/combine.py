"""The ensembling methods, from many models' logits to one: average of logits, average of softmax, majority vote.

Each method takes ``logits_mnk``: M members, N images, K classes, and returns scores (N, K) whose largest is the
prediction; on a tie the first class wins. No method depends on the order of its members or classes: values are
sorted before they are added up.

A new ensembling method is one function, one entry in ``METHODS`` and one word in ``Method`` of ``config.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kfold_ens.errors import KfoldError, listing
from kfold_ens.logits import Logits, log_mean_softmax


def average(logits_mnk: np.ndarray) -> np.ndarray:
    """The mean of the members' logits."""
    return np.sort(logits_mnk, axis=0).mean(axis=0)


def vote(logits_mnk: np.ndarray) -> np.ndarray:
    """The number of members whose prediction a class is; ties go to the larger summed softmax, then to class order.

    The score is votes + rank / K, where the rank, from 0, is that of the class's summed softmax in its row.
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
    gives_probabilities: bool = True  # whether the softmax of its scores says how sure it is


# By the names that config.yaml uses, in the order of metrics.json and of the report.
METHODS = {
    "average": Method(average, "average of logits"),
    "softmax": Method(log_mean_softmax, "average of softmax"),
    "vote": Method(vote, "majority vote", gives_probabilities=False),
}


def combine(members: Mapping[str, Logits], method: str) -> Logits:
    """Combine members by an ensembling method, over the images and classes of the first; float64.

    The members' names appear in messages.

    Raises:
        KfoldError: if a member's images or classes differ from the first one's; it names the member.
    """
    first = next(iter(members.values()))
    logits_mnk = np.stack([_aligned(name, member, first) for name, member in members.items()])
    return Logits(first.image_id, METHODS[method].build(logits_mnk.astype(np.float64)), first.classes)


def _aligned(name: str, member: Logits, first: Logits) -> np.ndarray:
    """A member's logits with the rows and columns of the first member."""
    rows = _positions(f"{name}: images", member.image_id, first.image_id)
    columns = _positions(f"{name}: classes", member.classes, first.classes)
    return member.values[np.ix_(rows, columns)]


def _positions(what: str, own: np.ndarray | tuple[str, ...], wanted: np.ndarray | tuple[str, ...]) -> np.ndarray:
    differing = sorted(set(own) ^ set(wanted))
    if differing or len(own) != len(wanted):
        raise KfoldError(f"{what} differ from the first fold's; predict that fold again:\n{listing(differing)}")
    return pd.Index(own).get_indexer(pd.Index(wanted))
