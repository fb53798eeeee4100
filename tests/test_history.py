"""The columns of history.csv, and the epoch whose weights are kept."""

import pytest

from kfold_ens.history import COLUMNS, figures_of, selected_row

NAN = float("nan")
HISTORY = [
    {"epoch": 1, "val_accuracy": 0.5, "val_loss": 0.4, "val_f1_macro": 0.9, "val_log_loss": 0.3},
    {"epoch": 2, "val_accuracy": 0.9, "val_loss": 0.3, "val_f1_macro": 0.2, "val_log_loss": 0.3},
    {"epoch": 3, "val_accuracy": 0.9, "val_loss": 0.2, "val_f1_macro": 0.3, "val_log_loss": 0.4},
    {"epoch": 4, "val_accuracy": 0.8, "val_loss": 0.6, "val_f1_macro": 0.9, "val_log_loss": 0.1},
]


@pytest.mark.parametrize(
    ("select", "epoch"),
    [("best_accuracy", 2), ("best_loss", 3), ("last", 4), ("best_f1_macro", 1), ("best_log_loss", 4)],
)
def test_the_first_of_the_best_epochs_is_kept(select, epoch):
    assert selected_row(HISTORY, select)["epoch"] == epoch


@pytest.mark.parametrize("select", ["best_accuracy", "best_loss"])
def test_nan_is_worse_than_any_number(select):
    broken = {"epoch": 0, "val_accuracy": NAN, "val_loss": NAN}
    assert selected_row([broken, *HISTORY[:1], broken], select)["epoch"] == 1


def test_every_column_of_a_figure_is_in_it_once_and_scores_come_first():
    figures = figures_of([*COLUMNS, "val_f1_macro", "val_map_at_5"])
    shown = [name for names in figures.values() for name in names]
    with_figure = [name for name, column in COLUMNS.items() if column.figure]
    assert sorted(shown) == sorted([*with_figure, "val_f1_macro", "val_map_at_5"])
    assert list(figures)[:4] == ["Loss", "Accuracy", "Macro F1", "MAP@5"]
