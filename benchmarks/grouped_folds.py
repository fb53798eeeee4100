"""How even folds of grouped images are: the first draw of StratifiedGroupKFold beside the best balanced of several.

    python benchmarks/grouped_folds.py

Each data set is drawn at random: 20 to 200 groups of sizes from a geometric distribution, 2 to 10 classes of unequal
frequency, which either are drawn per image, or lean to one class in each group.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd

from kfold_ens.data.split import grouped_draws, imbalance

DATA_SETS, NUM_FOLDS = 200, 5
TRIES = (1, 2, 5, 10, 20)


def data_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The labels (N,) and groups (N,) of some images."""
    random = np.random.default_rng(seed)
    groups, classes = random.integers(20, 201), random.integers(2, 11)
    units = np.repeat(np.arange(groups), random.geometric(random.uniform(0.05, 0.5), groups))
    frequency = random.dirichlet(np.full(classes, 2.0))
    per_group = random.choice(classes, groups, p=frequency)
    alone = random.choice(classes, len(units), p=frequency)
    leaning = random.uniform(0, 0.9)
    labels = np.where(random.random(len(units)) < leaning, per_group[units], alone)
    return pd.factorize(labels)[0], units


def worst_shares(seed: int) -> Iterator[float]:
    """The largest deviation of a fold's share of a class from an equal one, for the best of 1, 2, ... draws."""
    labels, units = data_set(seed)
    draws = [imbalance(labels, draw, NUM_FOLDS) for draw in grouped_draws(labels, units, NUM_FOLDS, seed)]
    for tries in TRIES:
        yield min(draws[:tries])[1]


def main() -> None:
    """Print the table of benchmarks/README.md."""
    started = time.perf_counter()
    worst = pd.DataFrame([list(worst_shares(seed)) for seed in range(DATA_SETS)], columns=list(TRIES))
    print("| draws | mean | median | worst tenth | of all | better than one draw |")
    print("|---|---|---|---|---|---|")
    for tries, values in worst.items():
        cells = [values.mean(), values.median(), values.quantile(0.9), values.max()]
        better = (values < worst[1]).mean()
        print(f"| {tries} | {' | '.join(f'{cell:.1%}' for cell in cells)} | {better:.0%} |")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
