"""Compare recipes on the same folds: the numbers of ``results/ablation.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from safetensors import safe_open

from kfold_ens.config import Scoring
from kfold_ens.ensemble.bbc_cv import choose
from kfold_ens.ensemble.known_labels import known_groups
from kfold_ens.ensemble.metrics import DEFAULT, difference, on_same_images
from kfold_ens.ensemble.out_of_fold import combined_over_repeats
from kfold_ens.ensemble.score_table import BESIDE, is_of_submission, metric_of
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json
from kfold_ens.logits import Logits, concatenated, read_logits
from kfold_ens.metrics import find_metric

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

    Columns are the metric with 95% intervals (``out_of_fold`` with each fold's epoch as chosen, ``cross_fitted`` with
    it cross-fitted, if known), the paired out-of-fold difference from the first recipe, accuracy and log
    loss out of fold, training hours and millions of parameters. Test scores are empty if labels are unknown. The column
    ``why`` gives the reason for other missing scores. In the row of the best recipe, ``best_of`` counts the recipes,
    ``honest`` is the score of that choice, and ``flattered_by`` what choosing flattered.
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
    return _with_choice(pd.DataFrame(rows), recipes, label_of, scoring, group_of)


def _with_choice(
    table: pd.DataFrame,
    recipes: Sequence[RecipeResults],
    label_of: Mapping[str, str],
    scoring: Scoring,
    group_of: Mapping[str, str],
) -> pd.DataFrame:
    """Add to the best recipe's row what choosing it flattered, by BBC-CV; nothing if there is no choice."""
    inputs, group = on_same_images([recipe.oof for recipe in recipes], label_of, scoring, group_of)
    if len(inputs) < 2 or table["out_of_fold"].isna().any():
        return table
    choice = choose(find_metric(scoring.metric), inputs, group)
    own = {"best_of": len(recipes), "honest": choice.honest, "flattered_by": choice.flattered_by}
    for name, ends in (("honest", choice.interval), ("flattered_by", choice.flattered_interval)):
        own |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))
    return table.join(pd.DataFrame(own, index=[table.index[choice.best]]))


def about_choice(table: pd.DataFrame, metric: str) -> list[str]:
    """Say in sentences what choosing the best recipe flattered; empty if there was no choice."""
    label = find_metric(metric).label
    chosen = table.dropna(subset="best_of") if "best_of" in table else table[:0]
    return [
        f"Choosing the best of {row.best_of:.0f} recipes ({row.recipe}) flattered {label} out of fold by "
        f"{row.flattered_by:.4f} (95% interval {row.flattered_by_low:+.4f} to {row.flattered_by_high:+.4f}). Scored on "
        f"images that did not choose the recipe (BBC-CV; epochs as select chose them), the choice has {row.honest:.4f} "
        f"({row.honest_low:.4f} to {row.honest_high:.4f})."
        for row in chosen.itertuples()
    ]


def _scores(metrics: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """Select the scores of ``metrics.json`` to compare, by column."""
    of_methods = {method: scores["test"] for method, scores in metrics["methods"].items()}
    crossed = {"cross_fitted": metrics["cross_fitted"]["out_of_fold"]} if is_of_submission(metrics) else {}
    return crossed | {"out_of_fold": metrics["out_of_fold"], "one_fold": metrics["folds"]["0"]["test"], **of_methods}


def _why(scores: dict[str, dict[str, Any] | None]) -> dict[str, str]:
    """Return the reasons for missing scores; empty if none is missing or labels are unknown."""
    reasons = [f"{name}: {score['why']}" for name, score in scores.items() if score and "why" in score]
    return {"why": "; ".join(reasons)} if reasons else {}


def _columns(name: str, score: dict[str, Any] | None, metric: str) -> dict[str, Any]:
    score = score or {}
    return {name: score.get(metric), f"{name}_low": score.get("low"), f"{name}_high": score.get("high")}


def as_text(table: pd.DataFrame, metric: str = "accuracy") -> str:
    """Format the table for the terminal, without intervals, followed by the choice and reasons for missing values."""
    shown = without_intervals(table).set_index("recipe")
    text = shown.astype(float).to_string(na_rep="", float_format=lambda value: f"{value:.4f}")
    return "\n".join([text, *about_choice(table, metric), *reasons(table)])


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the ends of intervals and the column ``why``."""
    return table.drop(columns=[name for name in table if name == "why" or name.endswith(("_low", "_high"))])


def reasons(table: pd.DataFrame) -> list[str]:
    """Explain missing values, in one sentence per recipe."""
    known = table.dropna(subset="why") if "why" in table else table[:0]
    return [f"{row.recipe} has no value of {row.why}." for row in known.itertuples()]
