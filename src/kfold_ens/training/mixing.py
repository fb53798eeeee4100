"""Mixing the images of a batch, and their labels with them; torchvision's implementations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import v2

from kfold_ens import config
from kfold_ens.data.folds import Fold
from kfold_ens.randomness import derive_seed

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def _none(slot: config.NoMixing, num_classes: int) -> Mix:
    return lambda images, labels: (images, labels)


def _mixup(slot: config.MixUp, num_classes: int) -> Mix:
    return v2.RandomApply([v2.MixUp(alpha=slot.alpha, num_classes=num_classes)], slot.probability)


def _cutmix(slot: config.CutMix, num_classes: int) -> Mix:
    return v2.RandomApply([v2.CutMix(alpha=slot.alpha, num_classes=num_classes)], slot.probability)


def _mixup_or_cutmix(slot: config.MixUpOrCutMix, num_classes: int) -> Mix:
    mixes = [kind(alpha=slot.alpha, num_classes=num_classes) for kind in (v2.MixUp, v2.CutMix)]
    return v2.RandomApply([v2.RandomChoice(mixes)], slot.probability)


MIXES: dict[str, Callable[..., Mix]] = {
    "none": _none,
    "mixup": _mixup,
    "cutmix": _cutmix,
    "mixup_or_cutmix": _mixup_or_cutmix,
}


def build_mixing(slot: config.Mixing, num_classes: int) -> Mix:
    """A function of images (N, C, H, W) and labels (N,); an unmixed batch keeps its labels, a mixed one gets (N, K)."""
    return MIXES[slot.kind](slot, num_classes)


def seed_step(fold: Fold, epoch: int, step: int) -> None:
    """Make all that a step draws, mixing first, a function of where it is."""
    torch.manual_seed(derive_seed("step", fold.seed, fold.number, epoch, step))


def seed_rank(rank: int) -> None:
    """After mixing, let each rank draw for itself: dropout is for its own images."""
    torch.manual_seed(derive_seed("rank", torch.initial_seed(), rank))
