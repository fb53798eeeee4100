"""Compare recipes on the same folds: the numbers of ``results/ablation.csv``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from safetensors import safe_open

from kfold_ens.config import Scoring
from kfold_ens.ensemble.known_labels import known_groups
from kfold_ens.ensemble.metrics import DEFAULT, difference
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.score_table import BESIDE, metric_of
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json
from kfold_ens.logits import Logits, concatenated, read_logits

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # in a state dictionary, but not parameters


@dataclass(frozen=True)
class RecipeResults:
    """The results of one recipe's folds."""

    name: str
    metrics: dict[str, Any]
    oof: Logits
    hours: float  # of training, summed over folds
    parameters: int


def read_recipes(
    names: Sequence[str],
    metrics: Sequence[str],
    oof: Sequence[str],
    histories: Sequence[str],
    models: Sequence[str],
    over_repeats: str = "average",
) -> list[RecipeResults]:
    """Read the results of recipes. ``oof``, ``histories`` and ``models`` list the files of folds, recipe by recipe.

    ``over_repeats`` is the ensembling method that combines an image's out-of-fold predictions.

    Raises:
        KfoldError: if there is no recipe.
    """
    if not names:
        raise KfoldError(
            "ablation: config.yaml names no recipes to compare; "
            "list some there, or use a list: --configfile ablations/tricks.yaml"
        )
    folds = len(oof) // len(names)
    parts = [slice(start, start + folds) for start in range(0, len(oof), folds)]
    return [
        read_recipe(name, file, oof[part], histories[part], models[part], over_repeats)
        for name, file, part in zip(names, metrics, parts, strict=True)
    ]


def read_recipe(
    name: str, metrics: str, oof: Sequence[str], histories: Sequence[str], models: Sequence[str], over_repeats: str
) -> RecipeResults:
    """Read one recipe's results from the files of its folds."""
    seconds = sum(pd.read_csv(path)["seconds"].sum() for path in histories)
    held_out = concatenated(combined_over_repeats(list(map(read_logits, oof)), over_repeats))
    return RecipeResults(name, read_json(metrics), held_out, seconds / 3600, count_parameters(models[0]))


def count_parameters(model: str) -> int:
    """Count the parameters in a model file, including frozen ones."""
    with safe_open(model, framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(STATISTICS))


def compare(recipes: Sequence[RecipeResults], manifest: pd.DataFrame, scoring: Scoring = DEFAULT) -> pd.DataFrame:
    """Compare recipes in a table with one row each.

    Columns are the metric with 95% intervals, the paired out-of-fold difference from the first recipe, accuracy and log
    loss out of fold, training hours and millions of parameters. Test scores are empty if labels are unknown. The column
    ``why`` gives the reason for other missing scores.
    """
    label_of, group_of = dict(zip(manifest["image_id"], manifest["label"], strict=True)), known_groups(manifest)
    rows = []
    for recipe in recipes:
        row: dict[str, Any] = {"recipe": recipe.name}
        metric = metric_of(recipe.metrics)
        scores = _scores(recipe.metrics)
        for name, score in scores.items():
            row |= _columns(name, score, metric)
        to_first = difference(recipe.oof, recipes[0].oof, label_of, scoring, group_of)
        row |= _columns("difference", to_first, "difference")
        row |= {name: recipe.metrics["out_of_fold"].get(name) for name in BESIDE if name != metric}
        row |= {"hours": round(recipe.hours, 3), "parameters_m": round(recipe.parameters / 1e6, 1)}
        rows.append(row | _why(scores))
    return pd.DataFrame(rows)


def _scores(metrics: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Select the scores of ``metrics.json`` to compare, by column."""
    of_methods = {method: scores["test"] for method, scores in metrics["methods"].items()}
    return {"out_of_fold": metrics["out_of_fold"], "one_fold": metrics["folds"]["0"]["test"], **of_methods}


def _why(scores: dict[str, dict[str, Any] | None]) -> dict[str, str]:
    """Return the reasons for missing scores; empty if none is missing or labels are unknown."""
    reasons = [f"{name}: {score['why']}" for name, score in scores.items() if score and "why" in score]
    return {"why": "; ".join(reasons)} if reasons else {}


def _columns(name: str, score: dict[str, Any] | None, metric: str) -> dict[str, Any]:
    score = score or {}
    return {name: score.get(metric), f"{name}_low": score.get("low"), f"{name}_high": score.get("high")}


def as_text(table: pd.DataFrame) -> str:
    """Format the table for the terminal, without intervals, followed by the reasons for missing values."""
    shown = without_intervals(table).set_index("recipe")
    text = shown.astype(float).to_string(na_rep="", float_format=lambda value: f"{value:.4f}")
    return "\n".join([text, *reasons(table)])


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the ends of intervals and the column ``why``."""
    return table.drop(columns=[name for name in table if name == "why" or name.endswith(("_low", "_high"))])


def reasons(table: pd.DataFrame) -> list[str]:
    """Explain missing values, in one sentence per recipe."""
    known = table.dropna(subset="why") if "why" in table else table[:0]
    return [f"{row.recipe} has no value of {row.why}." for row in known.itertuples()]
