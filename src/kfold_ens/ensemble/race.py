"""The ablation as a race: recipes that are clearly worse than the leader train no further folds.

After each fold, from the second on, every recipe in the race is compared with the one that leads so far, on the same
images. If the paired interval of the difference excludes zero, the recipe is stopped. All intervals of a race share one
error rate, divided over looks and rivals (Bonferroni), as in Hoeffding races: Maron & Moore 1993,
https://papers.nips.cc/paper/1993/hash/02a32ad2669e6fe298e607fe7cc0e1a0-Abstract.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from kfold_ens.config import FIRST_LOOK, Scoring
from kfold_ens.ensemble.known_labels import known_groups
from kfold_ens.ensemble.metrics import DEFAULT, NO_GROUPS, difference, group_numbers, on_same_images
from kfold_ens.logits import Logits
from kfold_ens.metrics import find_metric

ERROR_RATE = 0.05


def level_of(recipes: int, folds: int) -> float:
    """Return the level of each interval of a race, so that all of them hold at once with 95%."""
    looks = folds - FIRST_LOOK  # nothing is left to stop after the last fold
    return 1 - ERROR_RATE / (looks * (recipes - 1))


def judge(
    oof: Mapping[str, Logits],
    label_of: Mapping[str, str],
    level: float,
    scoring: Scoring = DEFAULT,
    group_of: Mapping[str, str] = NO_GROUPS,
) -> dict[str, dict]:
    """Compare recipes with the best of them, on the same images; return those that are clearly worse.

    Each has its ``leader``, by how much it is ``worse_by``, and the ends of that interval. Empty if the metric has no
    value on these images.
    """
    leader, worse = _leader(oof, label_of, scoring, group_of), {}
    level = _of_groups(level, group_numbers(next(iter(oof.values())).image_id, group_of))
    for name, own in oof.items() if leader else ():
        some, others = (own, oof[leader]) if find_metric(scoring.metric).better == "min" else (oof[leader], own)
        by = difference(some, others, label_of, scoring, group_of, level)
        if name != leader and (by["low"] or 0) > 0:
            worse[name] = {"leader": leader, "worse_by": by["difference"], "low": by["low"], "high": by["high"]}
    return worse


def _of_groups(level: float, group: np.ndarray | None) -> float:
    """Return the level at which a normal interval is as wide as Student's over groups, which can be few."""
    if group is None:
        return level
    groups = int(group.max()) + 1
    return float(2 * norm.cdf(student.ppf((1 + level) / 2, max(groups - 1, 1))) - 1)


def _leader(
    oof: Mapping[str, Logits], label_of: Mapping[str, str], scoring: Scoring, group_of: Mapping[str, str]
) -> str:
    """Return the recipe with the best score, the first of equal ones; empty if the metric has no value."""
    metric = find_metric(scoring.metric)
    inputs, _ = on_same_images(list(oof.values()), label_of, scoring, group_of)
    scores = [(-1 if metric.better == "min" else 1) * metric.compute(*each) for each in inputs]
    return list(oof)[int(np.argmax(scores))] if scores and not np.isnan(scores).any() else ""


def start(recipes: Sequence[str], folds: int) -> dict[str, Any]:
    """Return the race before its first look. ``folds`` counts those of each recipe."""
    level = level_of(len(recipes), folds)
    return {"of": folds, "level": level, "folds": FIRST_LOOK - 1, "racing": list(recipes), "stopped": {}}


def after_fold(race: Mapping[str, Any], oof: Mapping[str, Logits], manifest: pd.DataFrame, scoring: Scoring) -> dict:
    """Return the race after one more fold. ``oof`` holds the logits of each recipe that raced until now.

    A recipe that races alone is not compared, so ``oof`` may then be empty.
    """
    folds, label_of = race["folds"] + 1, dict(zip(manifest["image_id"], manifest["label"], strict=True))
    worse = judge(oof, label_of, race["level"], scoring, known_groups(manifest)) if len(oof) > 1 else {}
    return dict(race) | {
        "folds": folds,
        "racing": [name for name in race["racing"] if name not in worse],
        "stopped": race["stopped"] | {name: {"folds": folds} | each for name, each in worse.items()},
    }


def in_words(stopped: Mapping[str, Any]) -> str:
    """Say after how many folds a recipe was stopped, and why."""
    ends = f"[{stopped['low']:.4f}, {stopped['high']:.4f}]"
    return f"stopped after {stopped['folds']} folds: worse than {stopped['leader']} by {stopped['worse_by']:.4f} {ends}"


def as_text(race: Mapping[str, Any]) -> str:
    """Describe the race after its last look: who was stopped, and who trains the next fold."""
    lines = [f"{name}: {in_words(stopped)}" for name, stopped in race["stopped"].items()]
    racing = ", ".join(race["racing"])
    return "\n".join([*lines, f"After {race['folds']} of {race['of']} folds, still in the race: {racing}"])
