"""Measure how even folds of grouped images are: StratifiedGroupKFold's first draw, and the most even of several.

    python benchmarks/grouped_folds.py

Each data set is random: 20 to 120 groups of geometrically distributed sizes, and 2 to 10 classes of unequal frequency.
Each group prefers one class. Classes in fewer groups than folds are skipped, as by ``rare_classes: train_only``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from kfold_ens.splits.assign import grouped_draws, imbalance

DATA_SETS, NUM_FOLDS = 200, 5
TRIES = (1, 2, 5, 10)


def data_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels (N,) and groups (N,) of a random data set."""
    random = np.random.default_rng(seed)
    groups, classes = random.integers(20, 121), random.integers(2, 11)
    units = np.repeat(np.arange(groups), random.geometric(random.uniform(0.05, 0.5), groups))
    frequency = random.dirichlet(np.full(classes, 2.0))
    per_group = random.choice(classes, groups, p=frequency)
    alone = random.choice(classes, len(units), p=frequency)
    leaning = random.uniform(0, 0.9)
    labels = np.where(random.random(len(units)) < leaning, per_group[units], alone)
    groups_of_class = pd.Series(units).groupby(labels).nunique()
    kept = np.isin(labels, groups_of_class.index[groups_of_class >= NUM_FOLDS])
    return pd.factorize(labels[kept])[0], pd.factorize(units[kept])[0]


def unavoidable(labels: np.ndarray, units: np.ndarray) -> float:
    """Lower bound of the deviation of any split: the largest group of a class is in one fold."""
    counts = pd.crosstab(labels, units)
    return max(0.0, (counts.max(axis=1) / counts.sum(axis=1)).max() - 1 / NUM_FOLDS)


def worst_shares(seed: int) -> Iterator[float]:
    """Yield the largest deviation of a fold's share of a class from an equal share: unavoidable, then per TRIES."""
    labels, units = data_set(seed)
    yield unavoidable(labels, units)
    draws = [imbalance(labels, draw, NUM_FOLDS) for draw in grouped_draws(labels, units, NUM_FOLDS, seed)]
    for tries in TRIES:
        yield min(draws[:tries])[1]


def main() -> None:
    """Print the table of benchmarks/README.md."""
    started = time.perf_counter()
    columns = ["unavoidable", *TRIES]
    worst = pd.DataFrame([list(worst_shares(seed)) for seed in range(DATA_SETS)], columns=columns)
    print("| draws | mean | median | 90th percentile | largest | better than one draw |")
    print("|---|---|---|---|---|---|")
    for tries, values in worst.items():
        cells = [values.mean(), values.median(), values.quantile(0.9), values.max()]
        better = (values < worst[1]).mean()
        print(f"| {tries} | {' | '.join(f'{cell:.1%}' for cell in cells)} | {better:.0%} |")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
