"""Simulate how often the 95% intervals of metrics contain the true value.

Each run samples the same number of images per class from a population of ten classes of unequal size. The true value is
that of 200,000 images. Two predictors of equal strength are sampled, so their true difference is zero.

    python benchmarks/coverage.py --runs 1000 --images 300 3000

With ``--few``: classes with few images, where the expected value of a metric differs from that on very many images.
Measures how often the interval contains the mean of all samples, and how often the value on 200,000 images.
With ``--seconds``: time of the intervals of 60,000 images and 100 classes.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from kfold_ens.ensemble.intervals import interval, paired_interval
from kfold_ens.metrics import METRICS, find_metric, inputs_of, value

CLASSES = 10
NAMES = [name.replace("_k", "_3") if METRICS[name].needs == "ranking" else name for name in METRICS]
NAMES = [name for name in NAMES if name != "accuracy"]  # its intervals (Wilson; Agresti and Min) have known coverage


FEW = {(30, 10): 6.0, (50, 6): 6.0, (100, 30): 2.0}  # (classes, images per class): strength of the predictor
FEW_NAMES = ["balanced_accuracy", "f1_macro", "quadratic_kappa", "roc_auc", "average_precision"]


def drawn(
    counts: np.ndarray, rng: np.random.Generator, strength: float = 6.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample the logits (N, K) of two predictors on the same images, and the classes (N,) of these images.

    Neighbouring classes are similar, and so are the predictors: an image is hard or easy for both.
    """
    target = np.repeat(np.arange(len(counts)), counts)
    near = np.exp(-np.abs(np.arange(len(counts)) - target[:, None]))
    shared = strength * rng.gamma(2, 0.5, (len(target), 1)) * near + rng.normal(size=near.shape)
    first, second = (shared + rng.normal(scale=0.7, size=near.shape) for _ in range(2))
    return first, second, target


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=1000, help="samples drawn")
    arguments.add_argument("--images", type=int, nargs="+", default=[300, 3000], help="images per sample")
    arguments.add_argument("--few", action="store_true", help="few images per class")
    arguments.add_argument("--seconds", action="store_true", help="time instead of coverage")
    options = arguments.parse_args()
    if options.seconds:
        print_seconds()
        return
    if options.few:
        print_few(options.runs)
        return
    print(
        "| metric | images | true value | value inside | below | above | difference inside |",
        "|---" * 7 + "|",
        sep="\n",
    )
    for images in options.images:
        for name, row in coverage(images, options.runs).items():
            truth, inside, below, above, paired = row
            print(f"| {name} | {images:,} | {truth:.4f} | {inside:.1%} | {below:.1%} | {above:.1%} | {paired:.1%} |")


def coverage(images: int, runs: int, names: list[str] = NAMES) -> dict[str, tuple[float, ...]]:
    """Per metric: its true value; shares of runs whose interval contains it, is below, is above; and the share of runs
    whose interval of the difference contains zero."""
    rng = np.random.default_rng(0)
    shares = np.linspace(1, 4, CLASSES)
    counts = np.round(images * shares / shares.sum()).astype(int)
    first, _, target = drawn(counts * (200_000 // images), rng)
    truth = {name: value(name, first, target) for name in names}
    seen = {name: np.zeros((runs, 4)) for name in names}
    for run in range(runs):
        first, second, target = drawn(counts, rng)
        for name in names:
            seen[name][run] = _outcome(name, first, second, target, truth[name])
    return {name: (truth[name], *seen[name].mean(axis=0)) for name in names}


def _outcome(name: str, first: np.ndarray, second: np.ndarray, target: np.ndarray, truth: float) -> tuple[bool, ...]:
    metric = find_metric(name)
    some, others = (inputs_of(metric, logits, target) for logits in (first, second))
    own = metric.compute(*some)
    low, high = interval(metric, some, own)
    from_, to = paired_interval(metric, some, others, own - metric.compute(*others))
    return low <= truth <= high, high < truth, low > truth, from_ <= 0 <= to


def print_few(runs: int) -> None:
    """Print the coverage with few images per class: of the expected value on as many images, and of that on 200,000."""
    print(
        "| metric | classes | images per class | expected on as many | inside | on 200,000 | inside |",
        "|---" * 7 + "|",
        sep="\n",
    )
    for (classes, each), strength in FEW.items():
        rng, counts = np.random.default_rng(0), np.full(classes, each)
        many = drawn(counts * (200_000 // counts.sum()), rng, strength)
        rows = {name: np.empty((runs, 3)) for name in FEW_NAMES}
        for run in range(runs):
            logits, _, target = drawn(counts, rng, strength)
            for name in FEW_NAMES:
                rows[name][run] = _with_interval(name, logits, target)
        for name, (own, low, high) in ((name, each.T) for name, each in rows.items()):
            truths = own.mean(), value(name, many[0], many[2])
            cells = [f"{truth:.4f} | {((low <= truth) & (truth <= high)).mean():.1%}" for truth in truths]
            print(f"| {name} | {classes} | {each} | {' | '.join(cells)} |", flush=True)


def _with_interval(name: str, logits: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    metric = find_metric(name)
    inputs = inputs_of(metric, logits, target)
    own = metric.compute(*inputs)
    return own, *interval(metric, inputs, own)


def print_seconds(images: int = 60_000, classes: int = 100) -> None:
    """Print the seconds for the interval of each metric and of a difference, and the peak memory so far."""
    rng = np.random.default_rng(0)
    target = np.repeat(np.arange(classes), images // classes)
    both = [rng.normal(size=(images, classes)) + 3.5 * np.eye(classes)[target] for _ in range(2)]
    print("| metric | interval | difference | GB |\n|---|---|---|---|")
    for name in NAMES:
        metric = find_metric(name)
        some, others = (inputs_of(metric, logits.astype(np.float32), target) for logits in both)
        own, other = metric.compute(*some), metric.compute(*others)
        began = time.perf_counter()
        interval(metric, some, own)
        between = time.perf_counter()
        paired_interval(metric, some, others, own - other)
        ended = time.perf_counter()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"| {name} | {between - began:.1f} | {ended - between:.1f} | {memory:.2f} |")


if __name__ == "__main__":
    main()
