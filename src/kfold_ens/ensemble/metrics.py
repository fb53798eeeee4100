"""How good the folds and the ensembling methods are, with the interval that goes with the number of images."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, norm

from kfold_ens.logits import Logits, concatenated


def score(logits: Logits, label_of: Mapping[str, str]) -> dict[str, Any] | None:
    """Accuracy over the images whose label is known, with Wilson's 95% interval; None if no label is known."""
    outcomes = correctness(logits, label_of)
    if outcomes.empty:
        return None
    correct, images = int(outcomes.sum()), len(outcomes)
    interval = binomtest(correct, images).proportion_ci(0.95, method="wilson")
    return {
        "accuracy": correct / images,
        "low": float(interval.low),
        "high": float(interval.high),
        "correct": correct,
        "images": images,
    }


def correctness(logits: Logits, label_of: Mapping[str, str]) -> pd.Series:
    """Whether each image whose label is known was predicted right, by image id."""
    predicted = zip(logits.image_id, logits.predictions(), strict=True)
    outcomes = {image_id: label == label_of[image_id] for image_id, label in predicted if label_of.get(image_id)}
    return pd.Series(outcomes, dtype=bool)


def paired_difference(some: pd.Series, others: pd.Series) -> dict[str, float]:
    """How much more accurate ``some`` is than ``others`` on the same images, with a paired 95% interval.

    Agresti and Min 2005, https://doi.org/10.1002/sim.1781: the Wald interval of matched pairs with half an image added
    to each of the four cells.
    """
    others = others.loc[some.index]
    better, worse, images = int((some & ~others).sum()), int((others & ~some).sum()), len(some)
    b, c, n = better + 0.5, worse + 0.5, images + 2
    half = norm.ppf(0.975) * np.sqrt(b + c - (b - c) ** 2 / n) / n
    return {
        "difference": (better - worse) / images,
        "low": float((b - c) / n - half),
        "high": float((b - c) / n + half),
    }


def summarize(
    oof: Mapping[int, Logits], test: Mapping[int, Logits], combined: Mapping[str, Logits], label_of: Mapping[str, str]
) -> dict[str, Any]:
    """``metrics.json``: accuracy out of fold, and on test images with labels, of each fold and ensembling method."""
    return {
        "out_of_fold": score(concatenated(list(oof.values())), label_of),
        "folds": {
            str(fold): {"out_of_fold": score(oof[fold], label_of), "test": score(test[fold], label_of)} for fold in oof
        },
        "methods": {method: {"test": score(logits, label_of)} for method, logits in combined.items()},
        "differences": differences({"one fold": next(iter(test.values())), **combined}, label_of),
    }


def differences(predictions: Mapping[str, Logits], label_of: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each pair's difference in accuracy on the test images, with a paired 95% interval; none without labels."""
    outcomes = {name: correctness(logits, label_of) for name, logits in predictions.items()}
    if any(each.empty for each in outcomes.values()):
        return []
    return [
        {"of": some, "to": other, **paired_difference(outcomes[some], outcomes[other])}
        for other, some in combinations(outcomes, 2)
    ]


def as_text(metrics: Mapping[str, Any], chosen: str) -> str:
    """The metrics as a small table for the terminal."""
    rows = [("fold", "out-of-fold", "test")]
    rows += [(name, _cell(fold["out_of_fold"]), _cell(fold["test"])) for name, fold in metrics["folds"].items()]
    rows += [("all folds", _cell(metrics["out_of_fold"], interval=True), "")]
    rows += [
        (f"{method} *" if method == chosen else method, "", _cell(entry["test"], interval=True))
        for method, entry in metrics["methods"].items()
    ]
    return "\n".join(f"  {name:<12}{oof:<28}{test}".rstrip() for name, oof, test in rows)


def _cell(entry: Mapping[str, Any] | None, interval: bool = False) -> str:
    if entry is None:
        return "no labels"
    text = f"{entry['accuracy']:.4f}"
    return f"{text} ({entry['low']:.4f} to {entry['high']:.4f})" if interval else text
