"""An ensemble as one module that ``torch.onnx.export`` can trace, from pixels of any size to probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from kfold_ens import config
from kfold_ens.bundle.about import About, Member
from kfold_ens.bundle.exportable import refuse_what_no_graph_holds
from kfold_ens.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD, LONGEST

Size = int | torch.SymInt  # of an image while the graph is traced
PILLOW_BITS = 22  # fractional bits of the weights with which Pillow resizes
TORCH_BITS = 15  # bits of the weights with which torch resizes uint8


class EnsembleGraph(nn.Module):
    """Map pixels (N, H, W, 3) uint8 to ``probabilities`` (N, K) float32, ``label`` (N,) and ``votes`` (N, K) int64.

    ``label`` is the column of the prediction; ``votes`` counts the members that predict each class. Images are first
    shrunk to the short side that the workflow stores.

    Raises:
        EnsembleError: if test-time views are random, or members store images at different sizes.
    """

    def __init__(self, about: About, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        refuse_what_no_graph_holds(about.members)
        self.networks = nn.ModuleList(networks)
        self._about = about

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = shrunk(pixels.permute(0, 3, 1, 2), self._about.short_side)
        pairs = zip(self._about.members, self.networks, strict=True)
        logits_mnk = torch.stack([_logits(member, network, images) for member, network in pairs])
        probabilities, score = COMBINED[self._about.method](logits_mnk, self._about.temperature or 1.0)
        return probabilities, score.argmax(dim=1), _votes(logits_mnk)


def _logits(member: Member, network: nn.Module, images: Tensor) -> Tensor:
    """Return a member's logits (N, K), averaged over its test-time views."""
    image = member.recipe.image
    view = EVALUATION_VIEWS[image.kind](images, image) / 255
    if image.normalize:
        view = (view - _channels(IMAGENET_MEAN)) / _channels(IMAGENET_STD)
    logits_vnk = torch.stack([network(each) for each in VIEWS[member.tta.kind](view, member.tta)])
    if isinstance(member.tta, config.NoTta) or len(logits_vnk) == 1:
        return logits_vnk[0]
    return AVERAGES[member.tta.average](logits_vnk)


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(values).view(3, 1, 1)


def _log_mean_softmax(logits_mnk: Tensor) -> Tensor:
    return logits_mnk.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(logits_mnk))


AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda logits_vnk: logits_vnk.mean(dim=0),
    "softmax": _log_mean_softmax,
}


def _of_scores(average: Callable[[Tensor], Tensor]) -> Callable[[Tensor, float], tuple[Tensor, Tensor]]:
    def combined(logits_mnk: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        scores = average(logits_mnk) / temperature
        return scores.softmax(dim=1), scores

    return combined


def _of_votes(logits_mnk: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Decide as ``ensemble.combine.vote``: by votes, then by the mean softmax, which is returned as probabilities."""
    probabilities, votes = _log_mean_softmax(logits_mnk).softmax(dim=1), _votes(logits_mnk)
    has_most = votes == votes.amax(dim=1, keepdim=True)
    return probabilities, torch.where(has_most, probabilities, -1.0)


COMBINED: dict[str, Callable[[Tensor, float], tuple[Tensor, Tensor]]] = {
    "average": _of_scores(lambda logits_mnk: logits_mnk.mean(dim=0)),
    "softmax": _of_scores(_log_mean_softmax),
    "vote": _of_votes,
}


def _votes(logits_mnk: Tensor) -> Tensor:
    classes = torch.arange(logits_mnk.shape[2])
    return (logits_mnk.argmax(dim=2)[:, :, None] == classes).to(torch.int64).sum(dim=0)


# Test-time views of an evaluation view (N, 3, size, size).

FLIPS = {"horizontal_flip": 3, "vertical_flip": 2}  # the dimension that each of exportable.FLIPS turns round


def _named_views(view: Tensor, tta: config.Views) -> list[Tensor]:
    return [reduce(lambda flipped, step: flipped.flip(FLIPS[step.kind]), each.steps, view) for each in tta.views]


VIEWS: dict[str, Callable[..., list[Tensor]]] = {"none": lambda view, tta: [view], "views": _named_views}


# Resizing as in torch and Pillow: an antialiased bilinear filter, first along rows, then along columns, with each pass
# rounded to whole grey levels. ONNX's Resize operator differs by up to 14 levels at the edges. Weights are multiples of
# a unit, and float64 sums their products exactly.


def shrunk(images_nchw: Tensor, short_side: int) -> Tensor:
    """Shrink images to a short side of ``short_side``, with the same bits as Pillow; float64 grey levels."""
    height, width = images_nchw.shape[2:]
    targets = [stored(side, height, width, short_side) for side in (height, width)]
    matrices = [_in_units(matrix, 2.0**PILLOW_BITS) for matrix in _both(images_nchw, *targets)]
    return _passes(images_nchw.to(torch.float64), *matrices)


def _both(images_nchw: Tensor, height: Size, width: Size) -> tuple[Tensor, Tensor]:
    """Return the matrices that resize the columns and the rows of an image to (height, width)."""
    source_height, source_width = images_nchw.shape[2:]
    rows = filter_matrix(source_height, 0, source_height, height, 0, height)
    return rows, filter_matrix(source_width, 0, source_width, width, 0, width, of=0)


def stored(side: Size, height: Size, width: Size, short_side: int) -> Size:
    """Return a side of ``stored_shape``, in integers: ``round(side * short_side / shortest)``, ties to even."""
    shortest = torch.sym_min(height, width)
    kept = torch.sym_min(short_side, shortest)
    twice = 2 * side * kept + shortest
    rounded_up, rest = twice // (2 * shortest), twice % (2 * shortest)
    return torch.sym_max(1, rounded_up - (1 - torch.sym_min(1, rest)) * (rounded_up % 2))


def _passes(images_nchw: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resize along rows, then along columns, and round to whole grey levels after each.

    No matrix is transposed here: onnxruntime 1.22 and earlier cannot run a product with a transposed float64 matrix.
    """
    across = torch.floor(images_nchw @ columns + 0.5)
    return torch.floor(rows @ across + 0.5)


def _in_units(weights: Tensor, unit: Tensor | float) -> Tensor:
    return torch.floor(weights * unit + 0.5) / unit


def _squash(images_nchw: Tensor, image: config.Squash) -> Tensor:
    return _resized_as_torch_does(images_nchw, *_both(images_nchw, image.size, image.size))


def _center_crop(images_nchw: Tensor, image: config.CenterCrop) -> Tensor:
    height, width = images_nchw.shape[2:]
    middle = torch.sym_min(height, LONGEST * width), torch.sym_min(width, LONGEST * height)
    short = torch.sym_min(*middle)
    matrices = []
    for side, kept, of in zip((height, width), middle, (1, 0), strict=True):
        target = image.resize * kept // short
        first = _half(target - image.size)
        matrices.append(filter_matrix(side, _half(side - kept), kept, target, first, image.size, of))
    return _resized_as_torch_does(images_nchw, *matrices)


def _half(number: Size) -> Size:
    """Return ``round(number / 2)``, ties to even, in integer arithmetic."""
    return number // 2 + number % 4 // 3


EVALUATION_VIEWS: dict[str, Callable[..., Tensor]] = {"squash": _squash, "center_crop": _center_crop}


def _resized_as_torch_does(images_nchw: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Resize with 16-bit weights, as ``_compute_index_ranges_int16_weights`` in torch's UpSampleKernel.cpp does."""
    units = [torch.pow(2.0, _bits(weights).clamp(max=float(PILLOW_BITS))) for weights in (rows, columns)]
    return _passes(images_nchw, _in_units(rows, units[0]), _in_units(columns, units[1])).to(torch.float32)


def _bits(weights: Tensor) -> Tensor:
    """Return the number of fractional bits with which the largest weight fits into 16 signed bits."""
    return torch.ceil(torch.log2((2**TORCH_BITS - 0.5) / weights.max())) - 1


def filter_matrix(
    source: Size, window: Size, kept: Size, target: Size, first: Size, count: Size, of: int = 1
) -> Tensor:
    """Return the weights with which source pixels make target pixels, in float64.

    The source is dimension ``of``: (count, source) to resize columns of pixels, (source, count) to resize rows. Target
    pixels are the ``count`` from ``first`` on, of ``target`` in all. Only the ``kept`` source pixels from ``window`` on
    have weights. The weights of each target pixel sum to 1.
    """
    scale = kept / target
    # torch's types say that a tensor times a SymFloat may be a SymFloat.
    centers: Any = (torch.arange(count, dtype=torch.float64) + first + 0.5) * scale
    places = torch.arange(source, dtype=torch.float64) - window + 0.5
    reach = torch.clamp(torch.scalar_tensor(scale, dtype=torch.float64), min=1.0)
    is_seen = ((places > 0) & (places < kept)).unsqueeze(1 - of)
    distances = (places.unsqueeze(1 - of) - centers.unsqueeze(of)).abs()
    weights = torch.clamp(1 - distances / reach, min=0) * is_seen
    return weights / weights.sum(dim=of, keepdim=True)
