"""Loss functions: mean loss of a batch from logits (N, K), labels (N,) or soft targets (N, K), and the epoch."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kfold_ens import config

Criterion = Callable[[Tensor, Tensor, int], Tensor]  # arguments: logits, targets, epoch counted from 0


def _cross_entropy(section: config.CrossEntropy, class_counts: np.ndarray) -> Criterion:
    if section.weights == config.ClassWeights():
        loss: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss(label_smoothing=section.label_smoothing)
    else:
        # torch's weighted mean divides by the sum of the weights: micro-batches would not add up to the batch.
        weights = class_weights(section.weights, class_counts)
        loss = _weighted_mean(weights, section.label_smoothing)
    return _adjusted(lambda logits, targets, epoch: loss(logits, targets), section, class_counts)


def _weighted_mean(weights: Tensor, label_smoothing: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        each = F.cross_entropy(logits, targets, weights.to(logits), label_smoothing=label_smoothing, reduction="none")
        return each.mean()

    return loss


def _focal(section: config.Focal, class_counts: np.ndarray) -> Criterion:
    weights = class_weights(section.class_weights, class_counts)
    return _adjusted(
        lambda logits, targets, epoch: focal_loss(logits, targets, section.gamma, weights.to(logits.device)),
        section,
        class_counts,
    )


def _adjusted(criterion: Criterion, section: config.ClassLoss, class_counts: np.ndarray) -> Criterion:
    """Add tau log(share of the class) to the logits of a criterion."""
    if not section.logit_adjustment:
        return criterion
    shift = torch.tensor(section.logit_adjustment * np.log(class_counts / class_counts.sum()), dtype=torch.float32)
    return lambda logits, targets, epoch: criterion(logits + shift.to(logits), targets, epoch)


def focal_loss(logits: Tensor, targets: Tensor, gamma: float, class_weights: Tensor) -> Tensor:
    """Mean over samples of -sum_k w_k t_k (1 - p_k)^gamma log p_k, for soft targets t (N, K) or labels (N,).

    For labels this is equation 5 of Lin et al. with alpha_t = w_k, https://arxiv.org/abs/1708.02002. It is linear in
    the targets: a mixed image's loss is the same mixture of the losses of its two labels.
    """
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1])
    log_p = logits.log_softmax(dim=1)
    focus = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** gamma  # the slope at 0 can be infinite
    return -(class_weights * targets * focus * log_p).sum(dim=1).mean()


def class_weights(section: config.ClassWeights, class_counts: np.ndarray) -> Tensor:
    """Class weights (K,) float32 for classes of n_k = ``class_counts`` (K,) images.

    With ``power`` p: N / (n_k^p sum_j n_j^(1-p)). With ``beta`` b: K e_k / sum_j e_j, e_k = (1 - b) / (1 - b^n_k).
    """
    if section.beta:
        inverse = (1 - section.beta) / -np.expm1(class_counts * np.log(section.beta))
        weights = len(class_counts) * inverse / inverse.sum()
    else:
        counts = class_counts.astype(np.float64)
        weights = counts.sum() / ((counts ** (1 - section.power)).sum() * counts**section.power)
    return torch.tensor(weights, dtype=torch.float32)


def _sum(section: config.SumLoss, class_counts: np.ndarray) -> Criterion:
    terms = [(term.weight, build_loss(term.loss, class_counts)) for term in section.terms]
    return lambda logits, targets, epoch: reduce(add, (weight * loss(logits, targets, epoch) for weight, loss in terms))


def _switched(section: config.SwitchedLoss, class_counts: np.ndarray) -> Criterion:
    before, after = build_loss(section.before, class_counts), build_loss(section.after, class_counts)

    def loss(logits: Tensor, targets: Tensor, epoch: int) -> Tensor:
        share = share_after_switch(section, epoch)
        if share in (0, 1):
            return (after if share else before)(logits, targets, epoch)
        return (1 - share) * before(logits, targets, epoch) + share * after(logits, targets, epoch)

    return loss


def share_after_switch(section: config.SwitchedLoss, epoch: int) -> float:
    """Weight of the loss ``after`` in an epoch, counted from 0: 0 before the blend, 1 from ``switch_at`` on."""
    if epoch >= section.switch_at:
        return 1
    return max(0, epoch - section.blend_from) / max(1, section.switch_at - section.blend_from)


LOSSES: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": _cross_entropy,
    "focal": _focal,
    "sum": _sum,
    "switched": _switched,
}


def build_loss(section: config.Loss, class_counts: np.ndarray) -> Criterion:
    """Build a recipe's criterion; ``class_counts`` (K,) are the training images per class."""
    return LOSSES[section.kind](section, class_counts)
