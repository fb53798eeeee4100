"""Attention between the stages of a backbone."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cbam(nn.Module):
    """Weight the channels, then the positions, of a feature map (N, C, H, W).

    Woo et al. 2018, https://arxiv.org/abs/1807.06521, equations 2 and 3:
    F' = sigmoid(MLP(avg F) + MLP(max F)) * F, with avg and max over positions, and
    F'' = sigmoid(conv[avg F'; max F']) * F', with avg and max over channels.
    """

    def __init__(self, channels: int, ratio: int, kernel_size: int) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), nn.ReLU(), nn.Conv2d(hidden, channels, 1, bias=False)
        )
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        channel = self.mlp(features.mean((2, 3), keepdim=True)) + self.mlp(features.amax((2, 3), keepdim=True))
        features = features * channel.sigmoid()
        place = torch.cat([features.mean(1, keepdim=True), features.amax(1, keepdim=True)], dim=1)
        return features * self.conv(place).sigmoid()
