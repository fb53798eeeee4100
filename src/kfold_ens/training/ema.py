"""An exponential moving average of a network's weights and batch statistics; torch's implementation."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kfold_ens import config


class Ema:
    """Follows a network from epoch ``start_epoch`` on: w <- decay w + (1 - decay) network's w, at every step."""

    def __init__(self, section: config.EmaOfWeights, network: nn.Module) -> None:
        self._start = section.start_epoch
        average = get_ema_multi_avg_fn(section.decay)
        self.averaged = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def after_step(self, network: nn.Module, epoch: int) -> None:
        if epoch >= self._start:
            self.averaged.update_parameters(network)

    def evaluated(self, network: nn.Module, epoch: int) -> nn.Module:
        """What is evaluated, and kept, at the end of an epoch."""
        return self.averaged.module if epoch >= self._start else network


class NoEma:
    """The network itself."""

    averaged = None

    def after_step(self, network: nn.Module, epoch: int) -> None:
        pass

    def evaluated(self, network: nn.Module, epoch: int) -> nn.Module:
        return network


EMAS: dict[str, Callable[..., Ema | NoEma]] = {"none": lambda section, network: NoEma(), "ema": Ema}


def build_ema(section: config.Ema, network: nn.Module) -> Ema | NoEma:
    """The average of a recipe, of a network that is on its device."""
    return EMAS[section.kind](section, network)
