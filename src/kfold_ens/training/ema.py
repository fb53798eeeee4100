"""Exponential moving average of a network's weights and batch statistics, by torch."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kfold_ens import config


class Ema:
    """From epoch ``start_epoch`` on, averages a network's weights w after each step: a <- decay a + (1 - decay) w."""

    def __init__(self, section: config.EmaOfWeights, network: nn.Module) -> None:
        self._start = section.start_epoch
        average = get_ema_multi_avg_fn(section.decay)
        self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def after_step(self, network: nn.Module, epoch: int) -> None:
        if epoch >= self._start:
            self.averaged.update_parameters(network)

    def evaluated(self, network: nn.Module, epoch: int) -> nn.Module:
        """Network to evaluate, and to select weights from, at the end of an epoch."""
        return self.averaged.module if epoch >= self._start else network


class NoEma:
    """No average: evaluates the network itself."""

    averaged = None

    def after_step(self, network: nn.Module, epoch: int) -> None:
        pass

    def evaluated(self, network: nn.Module, epoch: int) -> nn.Module:
        return network


EMAS: dict[str, Callable[..., Ema | NoEma]] = {"none": lambda section, network: NoEma(), "ema": Ema}


def build_ema(section: config.Ema, network: nn.Module) -> Ema | NoEma:
    """Build a recipe's average; the network must already be on its device."""
    return EMAS[section.kind](section, network)
