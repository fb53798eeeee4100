"""The report's page on a blend: its score, its recipes and their weights, and the models in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kfold_ens.config import Config
from kfold_ens.ensemble.score_table import about_choice, cell, label_of_metric, metric_of
from kfold_ens.members import files_by_recipe, title
from kfold_ens.model_header import header_of
from kfold_ens.report import pages
from kfold_ens.report.overview import headline, score_table

PER_FOLD = (
    "The weights that score a fold are fitted on the out-of-fold logits of the other folds, whose models were trained "
    "on this fold's labels. Test images are predicted at the weights fitted on all folds."
)
GREEDY = (
    "The interval of a greedy blend is a little narrow: on labels of noise, the cross-fitted 95% interval of accuracy "
    "contained chance in 89% of runs, as the score's variance was 1.4 times the binomial. Equal weights: 96%; simplex: "
    "93.5%."
)


def write_blend(
    metrics: Mapping[str, Any], run: Config, models: Sequence[str], page_path: str, score_path: str
) -> None:
    """Write the page ``blend``, and the fragment ``score`` of the report's start page."""
    blend = metrics["blend"]
    first = [headline("blend", metrics, run), score_table(metrics, run, run.folds_in_all)]
    first += [*map(pages.paragraph, about_choice(metrics)), *([pages.note(GREEDY)] if is_greedy(blend) else [])]
    pages.write_page(
        page_path,
        f"Blend of {len(blend['choosing'])} recipes",
        *first,
        pages.heading("Recipes and weights"),
        pages.table(recipes(metrics), f"{label_of_metric(metrics)} out of fold of each recipe, and its weight"),
        pages.heading("Weights per fold"),
        pages.paragraph("Nothing is fitted." if not blend["as_fitted"] else PER_FOLD),
        pages.table(weights_per_fold(blend)),
        pages.heading("Models in the blend"),
        pages.table(
            members(blend, models), "SHA-256 of each model's recipe, split, images, pretrained weights and code"
        ),
        pages.heading("Configuration"),
        pages.definitions({key: str(getattr(run, key)) for key in ("blend_weights", "blend_of", "allow_partial")}),
    )
    pages.write_fragment(score_path, *first)


def is_greedy(blend: Mapping[str, Any]) -> bool:
    """Whether a blend's weights come from greedy selection."""
    return blend["weighing"] == "greedy"


def recipes(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """List each recipe with its weight and its own out-of-fold score."""
    blend = metrics["blend"]
    rows = [
        {
            "recipe": name,
            "weight": round(weight, 4),
            "out of fold": cell(blend["recipes"][name], metric_of(metrics)),
            "images": blend["recipes"][name]["images"],
            "epochs": blend["choosing"][name]["select"],
        }
        for name, weight in blend["weights"].items()
    ]
    return pd.DataFrame(rows)


def weights_per_fold(blend: Mapping[str, Any]) -> pd.DataFrame:
    """List the weights at which each fold is scored: a row per fold, a column per recipe."""
    rows = [{"": title(fold), **own} for fold, own in blend["weights_of_folds"].items()]
    return pd.DataFrame([*rows, {"": "test images", **blend["weights"]}]).round(4)


def members(blend: Mapping[str, Any], models: Sequence[str]) -> pd.DataFrame:
    """List the models of each recipe by their fingerprints, and those that a partial blend lacks."""
    rows = [
        (recipe, title(number), header_of(file)["fingerprint"])
        for recipe, own in files_by_recipe(models).items()
        for number, file in own.items()
    ]
    rows += [(recipe, title(own), "missing") for recipe, lacks in blend["missing"].items() for own in lacks]
    return pd.DataFrame(rows, columns=["recipe", "model", "fingerprint"])
