"""The data stage made for real from a few tiny images, for the tests of the stages after it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import TINY_RECIPE, write_classes, write_image

from kfold_ens.config import Recipe, TrainingRecipe, load_config
from kfold_ens.data.folds import assign_folds
from kfold_ens.data.manifest import read_manifest, write_manifest
from kfold_ens.data.pixels import PixelStore, write_pixels
from kfold_ens.files import write_table
from kfold_ens.training.fold import Fold, read_fold


@dataclass(frozen=True)
class Stage:
    """The files of the data stage in a folder."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def store(self) -> PixelStore:
        return PixelStore(self.file("pixels"), self.file("index"))

    def fold(self, number: int = 1, seed: int = 0) -> Fold:
        return read_fold(number, seed, *map(self.file, ("manifest", "folds", "classes")), self.store)


def make_stage(folder: Path, counts: Mapping[str, int], seed: int = 0) -> Stage:
    """Three folds of a folder of classes, and nine test images."""
    train, test = write_classes(folder / "train", counts, seed), folder / "test"
    for index in range(9):
        write_image(test / f"{index}.png", 25 * index, 10**6 + index)
    return stage_of({"source": "imagefolder", "train": str(train), "test": str(test)}, folder)


def stage_of(data: Mapping, folder: Path, short_side: int = 16) -> Stage:
    """Three folds of a data source."""
    stage, run = Stage(folder), load_config({"data": data})
    write_manifest(run, folder / "export", 1, stage.file("manifest"), stage.file("classes"), stage.file("alike"))
    write_table(stage.file("folds"), assign_folds(read_manifest(stage.file("manifest"), "train"), 3, 0))
    write_pixels(read_manifest(stage.file("manifest")), short_side, folder / "pixels", folder / "index", 1)
    return stage


def training_recipe(**slots: object) -> TrainingRecipe:
    """The tiny recipe with other slots."""
    return TrainingRecipe.model_validate({name: TINY_RECIPE[name] for name in TrainingRecipe.model_fields} | slots)


def smallest_sibling(recipe: Recipe, size: int = 32) -> dict:
    """The recipe with the smallest network of its family, from random weights, at a tiny size."""
    values = recipe.model_dump(mode="json")
    small = {"torchvision": "resnet18", "timm": "resnet10t"}[recipe.backbone.kind]
    values["backbone"] |= {"name": small, "weights": "none"}
    values["image"] |= {"size": size, "short_side": size} | ({"resize": size} if "resize" in values["image"] else {})
    return values | {"batch_size": 8}


@contextmanager
def signals_kept() -> Iterator[None]:
    """Give pytest its signal handlers back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
