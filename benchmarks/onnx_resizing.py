"""Measure how predictions change if you resize images before you give them to an exported ensemble.

Images are first enlarged, to imitate photographs. Each way of resizing is compared with kfold-predict, which decodes
and shrinks files as the workflow does.

    python benchmarks/onnx_resizing.py ensemble.onnx results/data/images/test --times 12
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from kfold_ens.bundle.listing import list_inputs
from kfold_ens.bundle.onnx_file import open_session, read_onnx
from kfold_ens.bundle.onnx_predictor import OnnxPredictor

BATCH = 32


def enlarged(paths: list[str], times: int, folder: Path) -> list[str]:
    """Write the images as PNGs, enlarged by Pillow's Lanczos filter. ``times``: factor per side."""
    names = []
    for number, path in enumerate(paths):
        image = Image.open(path).convert("RGB")
        names.append(str(folder / f"{number:06d}.png"))
        image.resize((image.width * times, image.height * times), Image.Resampling.LANCZOS).save(names[-1])
    return names


def by(resample: Image.Resampling, size: int) -> Callable[[Image.Image], Image.Image]:
    """Resize by Pillow to the size of the network."""
    return lambda image: image.resize((size, size), resample)


def without_antialiasing(size: int) -> Callable[[Image.Image], Image.Image]:
    """Resize bilinearly as OpenCV and TensorFlow do by default: from four neighbours, however much it shrinks."""
    transform = Image.Transform.AFFINE

    def resize(image: Image.Image) -> Image.Image:
        x, y = image.width / size, image.height / size
        return image.transform((size, size), transform, (x, 0, 0, 0, y, 0), Image.Resampling.BILINEAR)

    return resize


def main() -> None:
    """Print, per way, the share of images with another label, and the mean and largest change of a probability."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ensemble", help="the .onnx of kfold-export")
    parser.add_argument("images", nargs="+", help="files or folders")
    parser.add_argument("--times", type=int, default=12, help="factor of enlargement per side")
    options = parser.parse_args()
    about, _ = read_onnx(options.ensemble)
    session, size = open_session(options.ensemble, "cpu", 2), about.members[0].recipe.image.size
    ways = {
        "as decoded": lambda image: image,
        "Pillow bilinear to the network's size": by(Image.Resampling.BILINEAR, size),
        "Pillow bicubic to the network's size": by(Image.Resampling.BICUBIC, size),
        "bilinear without antialiasing": without_antialiasing(size),
        "nearest": by(Image.Resampling.NEAREST, size),
    }
    with tempfile.TemporaryDirectory() as folder:
        names = enlarged(list_inputs(options.images), options.times, Path(folder))
        answers = [each for each, _ in OnnxPredictor(session, about, BATCH, 2).answers(names)]
        expected = np.concatenate([each.probabilities for each in answers])
        for way, resize in ways.items():
            pixels = [np.asarray(resize(Image.open(name)))[None] for name in names]
            found = np.concatenate([session.run(["probabilities"], {"pixels": image})[0] for image in pixels])
            change = np.abs(found - expected).max(axis=1)
            other = (found.argmax(axis=1) != expected.argmax(axis=1)).mean()
            print(
                json.dumps(
                    {"way": way, "other labels": other, "mean": change.mean(), "largest": change.max()}, default=float
                )
            )


if __name__ == "__main__":
    main()
