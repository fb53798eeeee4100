"""What torch's convolution gets wrong for images of a single pixel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class SinglePixelConv2d(nn.Conv2d):
    """A convolution that, of a single pixel, uses the middle of its kernel only: all else meets padding.

    Deep stages of small images are such pixels, and on CPUs torch (2.14.1, oneDNN, bf16, stride 2) leaves whatever was
    in memory, NaN too, as the gradient of all else.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        reach = tuple(side // 2 for side in self.kernel_size)
        if input.shape[-2:] != (1, 1) or self.padding != reach or self.kernel_size == (1, 1):
            return super()._conv_forward(input, weight, bias)
        middle = weight[..., reach[0] : reach[0] + 1, reach[1] : reach[1] + 1]
        return functional.conv2d(input, middle, bias, groups=self.groups)


def mind_single_pixels(network: nn.Module) -> None:
    """Let every plain convolution of a network be a ``SinglePixelConv2d``; weights and names stay what they are."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and set(module.dilation) == {1}:
            module.__class__ = SinglePixelConv2d
