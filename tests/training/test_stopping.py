import pytest

from kfold_ens.config import After, NoEarlyStopping, Patience
from kfold_ens.training.stopping import stops


def history(*losses):
    return [{"val_loss": loss, "val_accuracy": -loss} for loss in losses]


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
@pytest.mark.parametrize(
    ("losses", "over"),
    [
        ((), False),
        ((1,), False),
        ((1, 2, 2), False),
        ((1, 2, 2, 2), True),
        ((3, 2, 1, 2, 1), False),
        ((1, 1, 1, 1), True),
    ],
)
def test_it_stops_after_patience_epochs_without_a_better_one(monitor, losses, over):
    assert stops(Patience(kind="patience", monitor=monitor, patience=3), history(*losses)) == over


def test_without_early_stopping_it_never_does():
    assert not stops(NoEarlyStopping(kind="none"), history(*range(1000)))


def test_it_stops_after_the_configured_number_of_epochs():
    assert [stops(After(kind="after", epochs=2), history(*range(epochs))) for epochs in range(4)] == [0, 0, 1, 1]
