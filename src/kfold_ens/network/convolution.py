"""Compute some convolutions as matrix products, where torch's convolution is slow or wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class MatrixConv2d(nn.Conv2d):
    """A convolution computed as a matrix product if its kernel covers a single pixel.

    - Inputs of 1x1 pixels, as in deep stages for small images: only the centre of the kernel matters, the rest covers
      padding. On CPUs torch's convolution (2.14.1, oneDNN) is slow here. In bf16 with stride 2 it also leaves
      uninitialized memory, even NaN, as the gradient of the rest.
    - Kernels of 1x1 on channels_last inputs on a CPU, where matrix products are faster.

    See benchmarks/README.md for the measurements.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        reach = tuple(side // 2 for side in self.kernel_size)
        if self.padding != reach or not all(side % 2 for side in self.kernel_size):
            return super()._conv_forward(input, weight, bias)
        if input.shape[-2:] == (1, 1):
            middle = weight[..., reach[0], reach[1]] if reach != (0, 0) else weight.flatten(1)
            return _multiplied(input, middle, bias, self.groups)
        if self.kernel_size == (1, 1) and self.groups == 1 and _is_matrix(input):
            seen = input[..., :: self.stride[0], :: self.stride[1]]
            return _multiplied(seen, weight.flatten(1), bias, groups=1)
        return super()._conv_forward(input, weight, bias)


def _is_matrix(images: Tensor) -> bool:
    """Whether the pixels of (N, C, H, W) are consecutive rows of C numbers in a CPU's memory."""
    return images.device.type == "cpu" and images.is_contiguous(memory_format=torch.channels_last)


def _multiplied(images: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """Multiply the channels of every pixel (N, C, H, W) by a matrix (out, C / groups): (N, out, H, W)."""
    pixels = images.permute(0, 2, 3, 1)
    if groups == 1:
        return functional.linear(pixels, weight, bias).permute(0, 3, 1, 2)
    of_groups = pixels.reshape(-1, groups, weight.shape[1]).transpose(0, 1)
    made = torch.bmm(of_groups, weight.view(groups, -1, weight.shape[1]).transpose(1, 2))
    made = made.transpose(0, 1).reshape(*pixels.shape[:3], len(weight)).permute(0, 3, 1, 2)
    return made if bias is None else made + bias.to(made.dtype)[:, None, None]


def multiply_matrices(network: nn.Module) -> None:
    """Turn every plain convolution of a network into a ``MatrixConv2d``, in place; weights and names stay the same."""
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and set(module.dilation) == {1}:
            module.__class__ = MatrixConv2d
