"""What leads to the scores of a fold, from its training images to its temperature. Imports no torch.

To certify another one, add an entry to ``ARTEFACTS``, in the place where it is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfold_ens.config import TrainingRecipe
from kfold_ens.ensemble.cross_fitting import cross_fitted_epochs
from kfold_ens.ensemble.temperature import calibrate, fitted
from kfold_ens.history import scores_in, selected_row
from kfold_ens.logits import concatenated

if TYPE_CHECKING:  # it imports torch
    from kfold_ens.certificate.rebuild import Bench, Rebuild


@dataclass(frozen=True)
class Artefact:
    """Something that must be the same whatever the labels of the fold's held-out images are.

    Attributes:
        build: from a rebuilt fold to a JSON-like value.
        path: how held-out labels came in, if the value differs.
        advice: what to do.
        reads: the key of the recipe by which this reads held-out labels on purpose; empty if it doesn't.
        applies: whether a configuration has it.
        is_of_others: whether it is computed from the other folds, so that no earlier change explains a change of it.
    """

    build: Callable[[Rebuild], Any]
    path: str
    advice: str
    reads: Callable[[TrainingRecipe], str] = lambda recipe: ""
    applies: Callable[[Bench], bool] = lambda bench: True
    is_of_others: bool = False


def _select(recipe: TrainingRecipe) -> str:
    return "" if recipe.select == "last" else f"select: {recipe.select}"


def _patience(recipe: TrainingRecipe) -> str:
    section = recipe.early_stopping
    return f"early_stopping: {section.kind} on {section.monitor}" if hasattr(section, "monitor") else ""


def _plateau(recipe: TrainingRecipe) -> str:
    section = recipe.schedule
    return f"schedule: {section.kind} on {section.monitor}" if hasattr(section, "monitor") else ""


def _is_calibrated(bench: Bench) -> bool:
    return bench.run.submission.calibrate


def _epoch_by_others(rebuild: Rebuild) -> int:
    return cross_fitted_epochs(rebuild.histories, rebuild.bench.recipe.select)[rebuild.member.number]


def _temperature(rebuild: Rebuild) -> float | None:
    """Return the temperature that scores the fold, fitted on the other folds; repeats have none of their own."""
    member = rebuild.member
    if member.repeat or member.fold is None:
        return None
    return calibrate(rebuild.oof, rebuild.label_of).of_folds[member.fold]


# In the order in which they are computed: the first that differs shows where labels came in.
ARTEFACTS: dict[str, Artefact] = {
    "training images": Artefact(
        lambda rebuild: [rebuild.fold.train.keys(), rebuild.fold.train.target.tolist()],
        "the fold trains on images that it holds out, or on their labels",
        "correct read_fold in data/folds.py",
    ),
    "class weights": Artefact(
        lambda rebuild: rebuild.untrained["loss"],
        "the loss weighs or shifts classes by counts that include held-out labels",
        "count training labels only, where training/trainer.py builds the loss",
    ),
    "initial weights": Artefact(
        lambda rebuild: rebuild.untrained["weights"],
        "the network is set up from held-out labels",
        "set it up from training labels only, in network/classifier.py",
    ),
    "network input": Artefact(
        lambda rebuild: rebuild.untrained["inputs"],
        "order, augmentation, mixing or normalisation of images depends on statistics that include held-out labels",
        "compute these statistics from training labels only",
    ),
    "number of epochs": Artefact(
        lambda rebuild: len(rebuild.trained.history),
        "training ended by held-out scores",
        "write early_stopping: {kind: none} into the recipe; no other score corrects for it",
        _patience,
    ),
    "learning rates": Artefact(
        lambda rebuild: [row["lr"] for row in rebuild.trained.history],
        "the learning rate followed held-out scores",
        "write another schedule into the recipe, such as one_cycle; no other score corrects for it",
        _plateau,
    ),
    "chosen epoch": Artefact(
        lambda rebuild: selected_row(rebuild.trained.history, rebuild.bench.recipe.select)["epoch"],
        "the epoch was chosen by held-out scores",
        "write select: last into the recipe, or quote the cross-fitted score instead of the one as chosen",
        _select,
    ),
    "model.safetensors": Artefact(
        lambda rebuild: rebuild.trained.weights,
        "training itself used held-out labels",
        "find what training/trainer.py reads of fold.validation",
    ),
    "out-of-fold logits": Artefact(
        lambda rebuild: rebuild.trained.digest,
        "prediction used held-out labels",
        "find what prediction/predict.py reads besides pixels",
    ),
    "epoch by other folds": Artefact(
        _epoch_by_others,
        "the epoch that the other folds choose depends on the fold's own scores",
        "choose it by the other folds only, in ensemble/cross_fitting.py",
        applies=lambda bench: bench.recipe.select != "last",
        is_of_others=True,
    ),
    "temperature": Artefact(
        _temperature,
        "the temperature that scores the fold was fitted on its own labels, or dropped by them",
        "fit it on the other folds only, in ensemble/temperature.py",
        applies=_is_calibrated,
        is_of_others=True,
    ),
}


@dataclass(frozen=True)
class Control:
    """Something that depends on held-out labels and scores nothing. If the first is the same, nothing is proven."""

    build: Callable[[Rebuild], Any]
    applies: Callable[[Bench], bool] = lambda bench: True


CONTROLS: dict[str, Control] = {
    "held-out scores of each epoch": Control(
        lambda rebuild: [[row[name] for name in scores_in(row)] for row in rebuild.trained.history]
    ),
    "temperature fitted on all folds": Control(
        lambda rebuild: fitted(concatenated(rebuild.oof), rebuild.label_of), _is_calibrated
    ),
}
