"""The data stage made for real from a few tiny images, for the tests of the stages after it."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
from conftest import TINY_RECIPE, write_classes, write_image

from kfold_ens import config
from kfold_ens.config import Recipe, TrainingRecipe, load_config
from kfold_ens.data.folds import Fold, read_fold
from kfold_ens.data.manifest import read_manifest, write_test_manifest, write_train_manifest
from kfold_ens.data.pixels import PixelStore, write_pixels
from kfold_ens.files import write_table
from kfold_ens.jobs import ASKING_TO_END
from kfold_ens.splits.assign import assign_folds


@dataclass(frozen=True)
class Stage:
    """The files of the data stage in a folder."""

    folder: Path

    def file(self, name: str) -> str:
        return str(self.folder / name)

    @property
    def store(self) -> PixelStore:
        return PixelStore(self.file("pixels"), self.file("index"))

    @property
    def test_store(self) -> PixelStore:
        return PixelStore(self.file("pixels_of_test"), self.file("index_of_test"))

    def fold(self, number: int = 1, seed: int = 0) -> Fold:
        return read_fold(number, seed, *map(self.file, ("folds", "classes")), self.store)


def make_stage(folder: Path, counts: Mapping[str, int], seed: int = 0) -> Stage:
    """Three folds of a folder of classes, and nine test images."""
    write_classes(folder / "train", counts, seed)
    for index in range(9):
        write_image(folder / "test" / f"{index}.png", 25 * index, 10**6 + index)
    return stage_of(of_folders(folder), folder)


def of_folders(folder: Path) -> dict[str, str]:
    """The data source of such a folder."""
    return {"source": "imagefolder", "train": str(folder / "train"), "test": str(folder / "test")}


def renamed_stage(stage: Stage, folder: Path) -> Stage:
    """The same images and labels as another stage's, moved, and under names in the reverse order."""
    for half in ("train", "test"):
        for index, path in enumerate(sorted((stage.folder / half).rglob("*.png"))):
            target = folder / half / path.parent.relative_to(stage.folder / half) / f"{999 - index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    return stage_of(of_folders(folder), folder)


def stage_of(data: Mapping, folder: Path, short_side: int = 16) -> Stage:
    """Three folds of a data source."""
    stage, run = Stage(folder), load_config({"data": data})
    write_train_manifest(run, folder / "export/train", 1, *map(stage.file, ("train.csv", "classes")))
    write_test_manifest(run, folder / "export/test", 1, *map(stage.file, ("train.csv", "test.csv", "alike")))
    write_table(stage.file("folds"), assign_folds(read_manifest(stage.file("train.csv")), 3, 0))
    for half, suffix in (("train", ""), ("test", "_of_test")):
        files = [folder / f"{name}{suffix}" for name in ("pixels", "index")]
        write_pixels(read_manifest(stage.file(f"{half}.csv")), short_side, *files, 1)
    return stage


class Hashes:
    """A store that knows of its images nothing but their hashes."""

    def __init__(self, image_ids: Sequence[str], sha256: Sequence[str]) -> None:
        self.decoding = {}
        self._of = dict(zip(image_ids, sha256, strict=True))

    def sha256(self, image_ids: Sequence[str]) -> np.ndarray:
        return np.array([self._of[image_id] for image_id in image_ids], dtype=np.str_)


def newer_config() -> ModuleType:
    """``kfold_ens.config`` as a later version may have it: with an optional key in every model."""
    known = 'model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)\n'
    source = Path(config.__file__).read_text(encoding="utf-8")
    assert source.count(known) == 1
    newer = ModuleType("newer_config")
    sys.modules[newer.__name__] = newer  # pydantic looks up annotations there
    exec(source.replace(known, f"{known}    newest_key: int | None = None\n"), newer.__dict__)
    return newer


def training_recipe(**sections: object) -> TrainingRecipe:
    """The tiny recipe with other sections."""
    own = {name: section for name, section in TINY_RECIPE.items() if name in TrainingRecipe.model_fields}
    return TrainingRecipe.model_validate(own | sections)


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
    handlers = {number: signal.getsignal(number) for number in ASKING_TO_END}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
