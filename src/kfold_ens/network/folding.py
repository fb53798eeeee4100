"""Fold batch normalisation into the convolution before it: the same outputs in evaluation, in fewer passes."""

from __future__ import annotations

import logging
from collections import Counter

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

log = logging.getLogger(__name__)


class _Tracer(fx.Tracer):
    """Traces every kind of convolution as a single step."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d) or super().is_leaf_module(module, name)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Fold a network in evaluation mode, in place, and return it. A network that cannot be traced stays unchanged."""
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # a network's code may raise anything on a symbolic input
        log.info("the network cannot be traced, so batch normalisation is not folded: %s", error)
        return network
    modules = dict(network.named_modules())
    uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or type(modules[node.target]) is not nn.BatchNorm2d:
            continue
        before = node.args[0]
        if before.op == "call_module" and len(before.users) == uses[before.target] == uses[node.target] == 1:
            convolution = modules[before.target]
            if isinstance(convolution, nn.Conv2d):
                network.set_submodule(before.target, fuse_conv_bn_eval(convolution, modules[node.target]))
                network.set_submodule(node.target, nn.Identity())
    return network
