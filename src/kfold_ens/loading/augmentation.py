"""Augment stored images for training, and resize or crop them for evaluation.

Both return views: uint8 tensors (3, size, size). ``to_input`` converts them to floats on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from kfold_ens import config

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LONGEST = 4  # a longer image is cut to this many times its short side before ``center_crop``


def _resize(step: config.Resize, size: int) -> v2.Transform:
    return v2.Resize((step.size or size,) * 2, antialias=True)


def _random_resized_crop(step: config.RandomResizedCrop, size: int) -> v2.Transform:
    return v2.RandomResizedCrop(step.size or size, scale=step.scale, ratio=step.ratio, antialias=True)


def _horizontal_flip(step: config.HorizontalFlip, size: int) -> v2.Transform:
    return v2.RandomHorizontalFlip(step.probability)


def _vertical_flip(step: config.VerticalFlip, size: int) -> v2.Transform:
    return v2.RandomVerticalFlip(step.probability)


def by_pillow(transform: v2.Transform) -> v2.Transform:
    """Run a transform on a Pillow image instead of a tensor, as the published recipes did.

    For one image on one core this is usually faster, up to five times: see benchmarks/README.md.
    """
    return v2.Compose([v2.ToPILImage(), transform, v2.PILToTensor()])


def _rotation(step: config.Rotation, size: int) -> v2.Transform:
    return by_pillow(v2.RandomRotation(step.degrees, interpolation=v2.InterpolationMode(step.interpolation)))


def _affine(step: config.Affine, size: int) -> v2.Transform:
    return by_pillow(
        v2.RandomAffine(
            step.degrees,
            translate=(step.translate, step.translate),
            scale=step.scale,
            interpolation=v2.InterpolationMode(step.interpolation),
        )
    )


def _color_jitter(step: config.ColorJitter, size: int) -> v2.Transform:
    jitter = v2.ColorJitter(step.brightness, step.contrast, step.saturation, step.hue)
    return by_pillow(jitter) if step.hue else jitter  # without hue, tensors are faster


def _grayscale(step: config.Grayscale, size: int) -> v2.Transform:
    return v2.RandomGrayscale(step.probability)


def _gaussian_blur(step: config.GaussianBlur, size: int) -> v2.Transform:
    return v2.RandomApply([v2.GaussianBlur(step.kernel_size, step.sigma)], step.probability)


def _random_erasing(step: config.RandomErasing, size: int) -> v2.Transform:
    fill = {"black": [0, 0, 0], "mean": [round(255 * mean) for mean in IMAGENET_MEAN]}[step.fill]
    return v2.RandomErasing(step.probability, step.scale, step.ratio, fill)


def _auto_augment(step: config.AutoAugment, size: int) -> v2.Transform:
    return by_pillow(v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET))


def _rand_augment(step: config.RandAugment, size: int) -> v2.Transform:
    return by_pillow(v2.RandAugment(step.num_ops, step.magnitude))


def _trivial_augment(step: config.TrivialAugment, size: int) -> v2.Transform:
    return by_pillow(v2.TrivialAugmentWide())


AUGMENTATIONS: dict[str, Callable[..., v2.Transform]] = {
    "resize": _resize,
    "random_resized_crop": _random_resized_crop,
    "horizontal_flip": _horizontal_flip,
    "vertical_flip": _vertical_flip,
    "rotation": _rotation,
    "affine": _affine,
    "color_jitter": _color_jitter,
    "grayscale": _grayscale,
    "gaussian_blur": _gaussian_blur,
    "random_erasing": _random_erasing,
    "auto_augment": _auto_augment,
    "rand_augment": _rand_augment,
    "trivial_augment": _trivial_augment,
}


class RotatedCrop(v2.Transform):
    """A rotation followed by a random resized crop, with the same random draws; rotates only the cropped part.

    Results differ from the two separate steps by rounding only: rarely, by one grey level with bilinear interpolation.
    With nearest, a source on a pixel's edge may become the neighbouring pixel, because Pillow adds up rounded steps
    along a row.
    """

    def __init__(self, rotation: config.Rotation, crop: v2.RandomResizedCrop) -> None:
        super().__init__()
        self._rotation, self._crop = v2.RandomRotation(rotation.degrees), crop
        self._resample = Image.Resampling[rotation.interpolation.upper()]

    def forward(self, image_chw: Tensor) -> Tensor:
        angle = self._rotation.make_params([image_chw])["angle"]
        box = self._crop.make_params([image_chw])
        part = rotated_part(image_chw, angle, self._resample, **box)
        return v2.functional.resize(part, self._crop.size, self._crop.interpolation, antialias=True)


def rotated_part(
    image_chw: Tensor, angle: float, resample: Image.Resampling, top: int, left: int, height: int, width: int
) -> Tensor:
    """Crop (3, height, width) of an image that Pillow rotates about its centre, ``angle`` degrees counterclockwise."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    middle_y, middle_x = image_chw.shape[1] / 2, image_chw.shape[2] / 2
    x, y = left - middle_x, top - middle_y
    from_rotated = (cos, -sin, cos * x - sin * y + middle_x, sin, cos, sin * x + cos * y + middle_y)
    image = Image.fromarray(image_chw.permute(1, 2, 0).numpy())
    part = image.transform((width, height), Image.Transform.AFFINE, from_rotated, resample)
    return torch.from_numpy(np.array(part)).permute(2, 0, 1)


def build_augmentation(steps: Sequence[config.Augmentation], size: int) -> v2.Transform:
    """Transform from a stored image to a random training view; draws from torch's global generator."""
    transforms: list[v2.Transform] = []
    before: config.Augmentation | None = None
    for step in steps:
        if isinstance(before, config.Rotation) and isinstance(step, config.RandomResizedCrop):
            transforms[-1] = RotatedCrop(before, _random_resized_crop(step, size))
        else:
            transforms.append(AUGMENTATIONS[step.kind](step, size))
        before = step
    return v2.Compose(transforms)


def _squash(image: config.Squash) -> v2.Transform:
    return v2.Resize((image.size, image.size), antialias=True)


def _center_crop(image: config.CenterCrop) -> v2.Transform:
    return v2.Compose([v2.Lambda(_middle), v2.Resize(image.resize, antialias=True), v2.CenterCrop(image.size)])


def _middle(image_chw: Tensor) -> Tensor:
    """Cut a very long image to its middle: resizing all of it would fill the memory."""
    height, width = image_chw.shape[-2:]
    return v2.functional.center_crop(image_chw, [min(height, LONGEST * width), min(width, LONGEST * height)])


EVALUATION_VIEWS: dict[str, Callable[..., v2.Transform]] = {"squash": _squash, "center_crop": _center_crop}


def build_evaluation_view(image: config.EvaluationImage) -> v2.Transform:
    """Transform from a stored image to its evaluation view, without randomness."""
    return EVALUATION_VIEWS[image.kind](image)


def to_input(
    views_nchw: Tensor, image: config.Image, device: torch.device, memory_format: torch.memory_format
) -> Tensor:
    """Network input from views (N, 3, size, size) uint8: float32 on ``device``, in [0, 1] or normalised."""
    inputs = views_nchw.to(device, non_blocking=True).to(torch.float32, memory_format=memory_format).div_(255)
    return v2.functional.normalize(inputs, IMAGENET_MEAN, IMAGENET_STD, inplace=True) if image.normalize else inputs
