"""A metric decides in its own direction: about the epoch, the end, the rate, and a difference between predictions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from kfold_ens.config import METRIC_KINDS, Patience, Plateau, Scoring
from kfold_ens.ensemble.metrics import difference
from kfold_ens.history import selected_row
from kfold_ens.logits import Logits
from kfold_ens.metrics import find_metric, value
from kfold_ens.training.schedules import build_schedule
from kfold_ens.training.scored import ScoredBy
from kfold_ens.training.stopping import stops

NAMES = [{"top_k_accuracy": "top_2_accuracy", "map_at_k": "map_at_3"}.get(kind, kind) for kind in METRIC_KINDS[1:]]
TARGET = np.repeat([0, 1, 2, 3], [12, 4, 4, 4])


def at_odds(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (24, 4) of two epochs: the first is better by accuracy, the second by the metric."""
    sign = -1 if find_metric(name).better == "min" else 1
    rng = np.random.default_rng(0)
    while True:
        first, second = (rng.normal(size=(24, 4)) + rng.uniform(0, 2) * np.eye(4)[TARGET] for _ in range(2))
        gains = [value(each, second, TARGET) - value(each, first, TARGET) for each in ("accuracy", name)]
        if gains[0] < 0 < sign * gains[1]:
            return first, second


@pytest.fixture(params=NAMES)
def epochs(request):
    """A metric's name, and the rows of a history in which accuracy falls and the metric gets better."""
    scored = ScoredBy(("accuracy", request.param), None)
    rows = [scored.of(logits, TARGET) | {"val_loss": 1.0} for logits in at_odds(request.param)]
    return request.param, [{"epoch": number + 1} | row for number, row in enumerate(rows)]


def test_it_selects_another_epoch_than_accuracy(epochs):
    name, history = epochs
    assert selected_row(history, "best_accuracy")["epoch"] == 1
    assert selected_row(history, f"best_{name}")["epoch"] == 2


def test_training_stops_by_accuracy_but_continues_by_the_metric(epochs):
    name, history = epochs
    for monitor, over in (("accuracy", True), (name, False)):
        assert stops(Patience(kind="patience", monitor=monitor, patience=1), history) == over


def test_the_rate_falls_by_accuracy_and_stays_by_the_metric(epochs):
    name, history = epochs
    for monitor, rate in (("accuracy", 0.1), (name, 1.0)):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        schedule = build_schedule(Plateau(kind="plateau", monitor=monitor, patience=0), optimizer, 2)
        for row in history:
            schedule.after_epoch(row)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


@pytest.mark.parametrize("name", NAMES)
def test_a_difference_has_the_sign_of_the_metric(name):
    first, second = (
        Logits(np.array([f"i{row}" for row in range(24)], dtype=object), logits, ("0", "1", "2", "3"))
        for logits in at_odds(name)
    )
    label_of = dict(zip(first.image_id, pd.Series(TARGET).astype(str), strict=True))
    found = difference(second, first, label_of, Scoring(metric=name))
    assert found["low"] < found["difference"] < found["high"]
    assert found["difference"] == pytest.approx(value(name, second.values, TARGET) - value(name, first.values, TARGET))
    assert difference(second, first, label_of)["difference"] < 0  # by accuracy
