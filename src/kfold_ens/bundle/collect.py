"""Collect the models of a finished run and their metadata in one ensemble file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfold_ens.bundle.about import About, Member, Rounding
from kfold_ens.bundle.ensemble_file import write_ensemble
from kfold_ens.bundle.rounding import rounded
from kfold_ens.config import Backbone, IntensityRange, Method, Tta
from kfold_ens.members import member_with
from kfold_ens.model_header import header_of
from kfold_ens.network.classifier import TrainedModel, load_model
from kfold_ens.versions import versions


def collect_models(
    models: Sequence[str],
    recipe_name: str,
    tta: Tta,
    method: Method,
    intensity_range: IntensityRange,
    metrics: Mapping[str, Any],
    path: str,
    rounding: Rounding | None = None,
) -> About:
    """Write the trained models of a recipe to an ensemble file. Each is named after its folder.

    ``metrics`` is metrics.json, which holds the temperature if probabilities are calibrated. With ``rounding``, weights
    are stored in bfloat16.
    """
    loaded = [load_model(model) for model in models]
    about = About(
        classes=loaded[0].classes,
        members=tuple(_member(*each, recipe_name, tta) for each in zip(models, loaded, strict=True)),
        method=method,
        temperature=metrics.get("calibrated", {}).get("temperature"),
        intensity_range=intensity_range,
        dtype="bf16" if rounding else "fp32",
        rounding=rounding,
        scores=dict(metrics),
        licences=licences(model.recipe.backbone for model in loaded),
        versions=versions(),
    )
    write_ensemble(path, about, [rounded(model) for model in loaded] if rounding else loaded)
    return about


def _member(file: str, model: TrainedModel, recipe_name: str, tta: Tta) -> Member:
    return Member(
        name=member_with(file).name,
        recipe_name=recipe_name,
        recipe=model.recipe,
        tta=tta,
        fingerprint=model.fingerprint,
        versions=json.loads(header_of(file)["versions"]),
    )


def licences(backbones: Iterable[Backbone]) -> dict[str, str]:
    """Return a note on the licence of each set of pretrained weights, by name; none for random weights."""
    return dict(map(_licence, (each for each in backbones if each.weights != "none")))


def _licence(backbone: Backbone) -> tuple[str, str]:
    file = Path(backbone.weights)
    if file.suffix:
        return file.name, "a file given by the user; its licence is unknown"
    return f"{backbone.kind} {backbone.name} {backbone.weights}", LICENCES[backbone.kind](backbone)


LICENCES: dict[str, Callable[[Backbone], str]] = {
    "torchvision": lambda backbone: (
        "published with torchvision (BSD 3-Clause); torchvision notes that weights may have their own terms, derived "
        "from the training data. These are ImageNet's (non-commercial research and education) unless the documentation "
        "of the weights names other data"
    ),
    "timm": lambda backbone: (
        f"published for timm; licences differ between models: see the model card of timm/{backbone.name}"
    ),
}
