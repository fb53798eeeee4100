"""Early stopping. Depends on the history only, so a resumed fold stops at the same epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kfold_ens import config
from kfold_ens.history import Row, goodness

History = Sequence[Row]


def _never(section: config.NoEarlyStopping, history: History) -> bool:
    return False


def _out_of_patience(section: config.Patience, history: History) -> bool:
    scores = [goodness(f"val_{section.monitor}", row) for row in history]
    return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= section.patience


def _after(section: config.After, history: History) -> bool:
    return len(history) >= section.epochs


STOPPING: dict[str, Callable[..., bool]] = {"none": _never, "patience": _out_of_patience, "after": _after}


def stops(section: config.EarlyStopping, history: History) -> bool:
    """Whether to stop after this history."""
    return STOPPING[section.kind](section, history)
