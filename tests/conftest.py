"""What tests of several packages share: tiny images, a tiny recipe, and a stage of the pipeline made for real."""

from __future__ import annotations

import gzip
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import settings
from PIL import Image

os.environ["OMP_NUM_THREADS"] = "1"  # two processes of two threads each would be in each other's way on two cores

REPOSITORY = Path(__file__).parents[1]
settings.register_profile("unhurried", deadline=None)  # these machines are shared: a slow moment is no failure
settings.load_profile("unhurried")

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

TINY_RECIPE = {
    "image": {"kind": "squash", "size": 16, "short_side": 16, "normalize": False},
    "augmentation": [{"kind": "horizontal_flip"}, {"kind": "resize"}],
    "mixing": {"kind": "none"},
    "backbone": {"kind": "torchvision", "name": "resnet18", "weights": "none"},
    "head": {"kind": "linear"},
    "loss": {"kind": "cross_entropy"},
    "optimizer": {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.01},
    "schedule": {"kind": "one_cycle"},
    "ema": {"kind": "none"},
    "sampler": {"kind": "shuffle"},
    "early_stopping": {"kind": "none"},
    "tta": {"kind": "none"},
    "epochs": 1,
    "batch_size": 8,
    "select": "best_accuracy",
}


@contextmanager
def log_restored() -> Iterator[None]:
    """Undo at the end what a command does to the package's log."""
    log = logging.getLogger("kfold_ens")
    before = log.handlers, log.level, log.propagate
    try:
        yield
    finally:
        log.handlers, log.propagate = before[0], before[2]
        log.setLevel(before[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, or one of them would be left to one process at the end."""
    longest = (
        *("workflow", "slurm", "trained_once", "fold", "kills", "terminal", "init_wheel", "object_storage", "repeats"),
        *("splits_workflow", "browser", "ablation_race", "ranks", "gpus_per_fold", "several_gpus"),
    )
    places = {f"test_{name}.py": place for place, name in enumerate(longest)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def write_image(path: Path, shade: int = 0, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """A small PNG of one shade under a little noise, so that no two seeds give the same bytes; size is (w, h)."""
    noise = np.random.default_rng(seed).integers(0, 16, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((shade + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_classes(root: Path, counts: Mapping[str, int], seed: int = 0) -> Path:
    """A folder of class folders, each class in a shade of its own: root/label/0000.png, ..."""
    for place, (label, count) in enumerate(counts.items()):
        for index in range(count):
            shade = 200 * place // max(1, len(counts) - 1)
            write_image(root / label / f"{index:04d}.png", shade, seed + 1000 * place + index)
    return root


def write_yaml(path: Path, values: Mapping) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    return path


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """Copy a folder that other tests use too; times are kept, as Snakemake looks at them."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy", symlinks=True))


@pytest.fixture(scope="session")
def fashion_mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of torchvision's FashionMNIST, from the files of Debian's package dataset-fashion-mnist."""
    root = tmp_path_factory.mktemp("fashion")
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in sorted(FASHION_MNIST.glob("*.gz")):
        with gzip.open(packed) as source, open(raw / packed.stem, "wb") as target:
            shutil.copyfileobj(source, target)
    if not any(raw.iterdir()):
        message = "apt-get install dataset-fashion-mnist"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return root
