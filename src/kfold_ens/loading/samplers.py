"""Draw the batches of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from kfold_ens import config
from kfold_ens.data.folds import Fold
from kfold_ens.members import Number
from kfold_ens.randomness import derive_seed

Draw = Callable[[np.random.Generator, int], np.ndarray]


def _shuffled(section: config.Shuffle, target: np.ndarray) -> Draw:
    return np.random.Generator.permutation


def _balanced(section: config.Balanced, target: np.ndarray) -> Draw:
    odds = 1 / np.bincount(target)[target]
    return lambda generator, num_images: generator.choice(num_images, num_images, p=odds / odds.sum())


SAMPLERS: dict[str, Callable[..., Draw]] = {"shuffle": _shuffled, "balanced": _balanced}


def build_sampler(section: config.Sampler, target: np.ndarray) -> Draw:
    """Function of a generator and N that draws the N positions of an epoch; ``target`` (N,) holds class indices."""
    return SAMPLERS[section.kind](section, target)


@dataclass(frozen=True)
class EpochOrder:
    """Batches of every epoch, as positions of images; can start at any step of a run."""

    num_images: int
    batch_size: int
    seed: int
    fold: Number
    draw: Draw = np.random.Generator.permutation

    def length(self, step: int) -> int:
        """Number of images in the batch of a step."""
        return min(self.batch_size, self.num_images - step * self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches. A last batch of one image is skipped: batch normalisation cannot train on it."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest > 1)

    def batches(self, epoch: int) -> list[np.ndarray]:
        """Positions of each batch of an epoch."""
        generator = np.random.default_rng(derive_seed("order", self.seed, self.fold, epoch))
        order = self.draw(generator, self.num_images)
        cuts = range(self.batch_size, self.num_images, self.batch_size)
        return np.split(order, cuts)[: self.steps_per_epoch]

    def remaining(self, epoch: int, step: int, epochs: int) -> Iterator[list[tuple[int, int]]]:
        """Indices into TrainingViews for each batch from (epoch, step) to the end of the run."""
        while epoch < epochs:
            for positions in self.batches(epoch)[step:]:
                yield [(epoch, int(position)) for position in positions]
            epoch, step = epoch + 1, 0


def epoch_order(recipe: config.TrainingRecipe, fold: Fold) -> EpochOrder:
    """Batches of a fold, drawn by its recipe's sampler."""
    draw = build_sampler(recipe.sampler, fold.train.target)
    return EpochOrder(len(fold.train), recipe.batch_size, fold.seed, fold.number, draw)
