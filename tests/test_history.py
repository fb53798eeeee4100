"""The columns of history.csv, and the epoch whose weights are kept."""

import pytest

from kfold_ens.history import COLUMNS, FIGURES, SCORES, selected_row

NAN = float("nan")
HISTORY = [
    {"epoch": 1, "val_accuracy": 0.5, "val_loss": 0.4},
    {"epoch": 2, "val_accuracy": 0.9, "val_loss": 0.3},
    {"epoch": 3, "val_accuracy": 0.9, "val_loss": 0.2},
    {"epoch": 4, "val_accuracy": 0.8, "val_loss": 0.6},
]


@pytest.mark.parametrize(("select", "epoch"), [("best_accuracy", 2), ("best_loss", 3), ("last", 4)])
def test_the_first_of_the_best_epochs_is_kept(select, epoch):
    assert selected_row(HISTORY, select)["epoch"] == epoch


@pytest.mark.parametrize("select", ["best_accuracy", "best_loss"])
def test_nan_is_worse_than_any_number(select):
    broken = {"epoch": 0, "val_accuracy": NAN, "val_loss": NAN}
    assert selected_row([broken, *HISTORY[:1], broken], select)["epoch"] == 1


def test_every_score_is_computed():
    assert {name for name, column in COLUMNS.items() if column.better} == {"val_loss", *SCORES}


def test_every_column_of_a_figure_is_in_it_once():
    shown = [name for names in FIGURES.values() for name in names]
    assert sorted(shown) == sorted(name for name, column in COLUMNS.items() if column.figure)
    assert list(FIGURES)[:2] == ["Loss", "Accuracy"]
