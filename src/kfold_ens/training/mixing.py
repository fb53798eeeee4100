"""Mix the images of a batch and their labels, by torchvision."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from kfold_ens import config
from kfold_ens.data.folds import Fold
from kfold_ens.randomness import derive_seed

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _none(section: config.NoMixing, num_classes: int) -> Mix:
    return lambda images, labels: (images, labels)


def _mixup(section: config.MixUp, num_classes: int) -> Mix:
    return v2.RandomApply([v2.MixUp(alpha=section.alpha, num_classes=num_classes)], section.probability)


def _cutmix(section: config.CutMix, num_classes: int) -> Mix:
    return v2.RandomApply([v2.CutMix(alpha=section.alpha, num_classes=num_classes)], section.probability)


def _mixup_or_cutmix(section: config.MixUpOrCutMix, num_classes: int) -> Mix:
    mixes = [kind(alpha=section.alpha, num_classes=num_classes) for kind in (v2.MixUp, v2.CutMix)]
    return v2.RandomApply([v2.RandomChoice(mixes)], section.probability)


MIXES: dict[str, Callable[..., Mix]] = {
    "none": _none,
    "mixup": _mixup,
    "cutmix": _cutmix,
    "mixup_or_cutmix": _mixup_or_cutmix,
}


def build_mixing(section: config.Mixing, num_classes: int) -> Mix:
    """Function of images (N, C, H, W) and labels (N,) that mixes them; the labels of a mixed batch are (N, K)."""
    return MIXES[section.kind](section, num_classes)


def seed_step(fold: Fold, epoch: int, step: int) -> None:
    """Seed a step, so that its random draws depend on (seed, fold, epoch, step) only."""
    torch.manual_seed(derive_seed("step", fold.seed, fold.number, epoch, step))


def seed_rank(rank: int) -> None:
    """Seed each rank differently after mixing: dropout must differ between ranks."""
    torch.manual_seed(derive_seed("rank", torch.initial_seed(), rank))
