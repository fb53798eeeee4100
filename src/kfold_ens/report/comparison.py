"""Compare recipes on the same folds: the numbers of ``results/ablation.csv``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from kfold_ens.config import Scoring
from kfold_ens.ensemble.bbc_cv import choose
from kfold_ens.ensemble.known_labels import known_groups
from kfold_ens.ensemble.metrics import DEFAULT, difference, on_same_images
from kfold_ens.ensemble.out_of_fold import read_held_out
from kfold_ens.ensemble.race import in_words
from kfold_ens.ensemble.score_table import BESIDE, is_of_submission, metric_of
from kfold_ens.errors import KfoldError
from kfold_ens.files import read_json
from kfold_ens.logits import Logits
from kfold_ens.members import of_recipes
from kfold_ens.metrics import find_metric

FINISHED = "finished"  # the status of a recipe that no race stopped
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # in a state dictionary, but not parameters


@dataclass(frozen=True)
class RecipeResults:
    """The results of one recipe's folds. A recipe that a race stopped has no scores."""

    name: str
    metrics: dict[str, Any] | None
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
    """Read the results of recipes. The other lists have the files of all of them, in any order.

    ``over_repeats`` is the ensembling method that combines an image's out-of-fold predictions.

    Raises:
        KfoldError: if there is no recipe.
    """
    if not names:
        raise KfoldError(
            "ablation: config.yaml names no recipes to compare; "
            "list some there, or use a list: --configfile ablations/tricks.yaml"
        )
    metrics_of = {Path(file).parent.name: read_json(file) for file in metrics}
    logits, histories_of, models_of = read_held_out(oof, over_repeats), of_recipes(histories), of_recipes(models)
    return [
        RecipeResults(
            name, metrics_of.get(name), logits[name], _hours(histories_of[name]), count_parameters(models_of[name][0])
        )
        for name in names
    ]


def _hours(histories: Sequence[str]) -> float:
    return sum(pd.read_csv(path)["seconds"].sum() for path in histories) / 3600


def count_parameters(model: str) -> int:
    """Count the parameters in a model file, including frozen ones."""
    with safe_open(model, framework="np") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    return sum(math.prod(shape) for name, shape in shapes.items() if not name.endswith(STATISTICS))


def compare(
    recipes: Sequence[RecipeResults],
    manifest: pd.DataFrame,
    scoring: Scoring = DEFAULT,
    race: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Compare recipes in a table with one row each.

    Columns are the metric with 95% intervals (``out_of_fold`` with each fold's epoch as chosen, ``cross_fitted`` with
    it cross-fitted, if known), the paired out-of-fold difference from the first recipe, accuracy and log
    loss out of fold, training hours and millions of parameters. Test scores are empty if labels are unknown. The column
    ``why`` gives the reason for other missing scores. In the row of the best recipe, ``best_of`` counts the recipes,
    ``honest`` is the score of that choice, and ``flattered_by`` what choosing flattered.

    After a race, ``folds`` and ``status`` say how far each recipe came. One that was stopped has no scores: they would
    be of fewer images. Differences are from the first recipe that finished, and the best is chosen among these.
    """
    label_of, group_of = dict(zip(manifest["image_id"], manifest["label"], strict=True)), known_groups(manifest)
    finished = [recipe for recipe in recipes if recipe.metrics]
    rows = []
    for recipe in [*finished, *(each for each in recipes if not each.metrics)]:  # columns of scores come first
        state = _state(recipe.name, race) if race else {}
        to_first = difference(recipe.oof, finished[0].oof, label_of, scoring, group_of) if recipe.metrics else {}
        rows.append({"recipe": recipe.name} | state | _row(recipe, to_first))
    chosen = _with_choice(pd.DataFrame(rows), finished, label_of, scoring, group_of)
    return chosen.set_index("recipe").loc[[recipe.name for recipe in recipes]].reset_index()


def _row(recipe: RecipeResults, to_first: dict[str, float | None]) -> dict[str, Any]:
    """Return a recipe's scores, if it has any, its hours and its parameters, by column."""
    row: dict[str, Any] = {}
    scores = _scores(recipe.metrics) if recipe.metrics else {}
    if recipe.metrics:
        metric = metric_of(recipe.metrics)
        for name, score in scores.items():
            row |= _columns(name, score, metric)
        row |= _columns("difference", to_first, "difference")
        row |= {name: recipe.metrics["out_of_fold"].get(name) for name in BESIDE if name != metric}
    row |= {"hours": round(recipe.hours, 3), "parameters_m": round(recipe.parameters / 1e6, 1)}
    return row | _why(scores)


def _state(name: str, race: Mapping[str, Any]) -> dict[str, str]:
    """Return how many folds a recipe trained in a race, and whether it finished."""
    stopped = race["stopped"].get(name)
    folds = stopped["folds"] if stopped else race["of"]
    return {"folds": f"{folds} of {race['of']}", "status": in_words(stopped) if stopped else FINISHED}


def _with_choice(
    table: pd.DataFrame,
    recipes: Sequence[RecipeResults],
    label_of: Mapping[str, str],
    scoring: Scoring,
    group_of: Mapping[str, str],
) -> pd.DataFrame:
    """Add to the best recipe's row what choosing it flattered, by BBC-CV; nothing if there is no choice.

    ``recipes`` are those with scores, the first rows of the table.
    """
    inputs, group = on_same_images([recipe.oof for recipe in recipes], label_of, scoring, group_of)
    if len(inputs) < 2 or table["out_of_fold"][: len(recipes)].isna().any():
        return table
    choice = choose(find_metric(scoring.metric), inputs, group)
    own = {"best_of": len(recipes), "honest": choice.honest, "flattered_by": choice.flattered_by}
    for name, ends in (("honest", choice.interval), ("flattered_by", choice.flattered_interval)):
        own |= dict(zip((f"{name}_low", f"{name}_high"), ends, strict=True))
    return table.join(pd.DataFrame(own, index=[table.index[choice.best]]))


def about_race(table: pd.DataFrame) -> list[str]:
    """Say in sentences which recipes a race stopped, and what their rows lack; empty if none was."""
    stopped = table[table["status"] != FINISHED] if "status" in table else table[:0]
    if stopped.empty:
        return []
    names = [f"{row.recipe} was {row.status} (trained {row.folds} folds)." for row in stopped.itertuples()]
    return [
        *names,
        "These rows have no scores, since they would be of fewer images. The best is chosen, and scored by BBC-CV, "
        "among the recipes that finished: what stopping the others flattered is not included.",
    ]


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
    shown = without_intervals(table).set_index("recipe").drop(columns=["folds", "status"], errors="ignore")
    text = shown.astype(float).to_string(na_rep="", float_format=lambda value: f"{value:.4f}")
    return "\n".join([text, *about_race(table), *about_choice(table, metric), *reasons(table)])


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Drop the ends of intervals and the column ``why``."""
    return table.drop(columns=[name for name in table if name == "why" or name.endswith(("_low", "_high"))])


def reasons(table: pd.DataFrame) -> list[str]:
    """Explain missing values, in one sentence per recipe."""
    known = table.dropna(subset="why") if "why" in table else table[:0]
    return [f"{row.recipe} has no value of {row.why}." for row in known.itertuples()]
