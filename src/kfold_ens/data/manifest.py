"""Make the manifests of training and test images: all images with hashes and sizes. Refuse unusable images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pandas as pd

from kfold_ens.config import HALVES, Config, Half
from kfold_ens.data.classes import class_labels, describe, doubts
from kfold_ens.data.extra import without_known_images
from kfold_ens.data.folders import missing
from kfold_ens.data.groups import tell_shared_groups
from kfold_ens.data.images import ImageError, Inspection, inspect
from kfold_ens.data.listings import COLUMNS, is_extra
from kfold_ens.data.look_alikes import look_alikes
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError, Together, counted, listing
from kfold_ens.files import read_table, write_json, write_table
from kfold_ens.naming import submission_names

log = logging.getLogger(__name__)

INSPECTED = [field.name for field in fields(Inspection) if field.name != "has_pages"]
CHUNK = 2048  # images queued for the threads at a time

Result = TypeVar("Result")


def write_train_manifest(
    run: Config, export: Path, threads: int, manifest_file: str, classes_file: str
) -> pd.DataFrame:
    """Write the manifest and class list of the training images, after checking the test images too.

    All faults of both halves are reported at once, before training. Returns the manifest of both halves, or of the
    training images alone if the sources of the test images are missing.

    Raises:
        DataError: listing everything that cannot be trained on, predicted or named in the submission.
    """
    together = Together(DataError)
    with TemporaryDirectory() as elsewhere:
        images = _list_halves(run, {"train": export, "test": Path(elsewhere)}, together)
        train, test = (images[images["split"] == half] for half in HALVES)
        with together.gather():
            classes = class_labels(train["label"]) if len(train) else []
        with together.gather():
            refuse_shared_names(test, run)
        with together.gather():
            manifest = build_manifest(images, threads)
    together.raise_all()
    manifest = without_known_images(manifest)
    train = manifest[manifest["split"] == "train"].sort_values("image_id")
    tell_training_images(train, run)
    write_table(manifest_file, train)
    write_json(classes_file, classes)
    return manifest


def refuse_shared_names(test: pd.DataFrame, run: Config) -> None:
    """Refuse test images that would share a name in the submission, unless a sample submission decides the names.

    Raises:
        DataError: listing the shared names.
    """
    if not run.names_follow_from_sample:
        submission_names(test, run.submission_names)


def tell_training_images(train: pd.DataFrame, run: Config) -> None:
    """Log a summary of the training images, and warn about suspicious ones."""
    log.info(describe(dict(train["label"].value_counts())))
    extra = is_extra(train)
    copies = f" ({train['sha256'].dropna().duplicated().sum()} byte-identical to another)" if "sha256" in train else ""
    log.info("%d training images%s", len(train), copies)
    if extra.any():
        log.info("%d of them are extra: they train in every fold and are never held out", extra.sum())
    for doubt in doubts(train, in_class_folders=run.data.source == "imagefolder"):
        log.warning(doubt)


def write_test_manifest(
    run: Config, export: Path, threads: int, train_file: str, manifest_file: str, look_alikes_file: str
) -> pd.DataFrame:
    """Write the manifest of the test images and the near-duplicates; return the manifest of both halves.

    Raises:
        DataError: listing everything that cannot be predicted or named in the submission.
    """
    export.mkdir(parents=True, exist_ok=True)
    images = list_images(run.data, "test", run.seed, export)
    train = read_manifest(train_file)
    test = build_manifest(images, threads)
    refuse_shared_names(test, run)
    copies = test["sha256"].isin(train["sha256"]).sum()
    log.info("%d test images (%d byte-identical to a training image)", len(test), copies)
    tell_shared_groups(train, test)
    both = pd.concat([train, test], ignore_index=True)
    alike = look_alikes(both)
    _warn_of(alike, look_alikes_file)
    write_table(manifest_file, test)
    write_table(look_alikes_file, alike)
    return both


def with_test_images(train: pd.DataFrame, run: Config) -> pd.DataFrame:
    """Append the test images, listed but not read, to a training manifest. If they are missing, return it unchanged.

    Raises:
        DataError: if test images cannot be listed, or cannot be named in the submission.
    """
    if missing(run.data, "test"):
        return train
    with TemporaryDirectory() as export:
        test = list_images(run.data, "test", run.seed, Path(export))
    refuse_shared_names(test, run)
    return pd.concat([train, test], ignore_index=True)


def _list_halves(run: Config, exports: Mapping[Half, Path], together: Together) -> pd.DataFrame:
    """List the images of both halves, as far as possible."""
    absent = missing(run.data, "test")
    if absent:
        log.warning("the test images are not checked: %s", "; ".join(absent))
    found = [pd.DataFrame(columns=COLUMNS)]
    for half in HALVES[: 1 if absent else 2]:
        exports[half].mkdir(parents=True, exist_ok=True)
        with together.gather():
            found.append(list_images(run.data, half, run.seed, exports[half], together))
    return pd.concat(found, ignore_index=True)


def build_manifest(images: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Inspect every image of a listing and add ``sha256, width, height, perceptual_hash``.

    Raises:
        DataError: listing all unreadable files, and all byte-identical images with different labels.
    """
    together = Together(DataError)
    manifest = inspected(images, threads, together)
    with together.gather():
        refuse_contradictions(manifest)
    together.raise_all()
    return manifest


def inspected(images: pd.DataFrame, threads: int, together: Together) -> pd.DataFrame:
    """Read every image of a listing in full, and add ``sha256, width, height, perceptual_hash``.

    ``together`` gathers the names of unreadable files; their four values are None.
    """
    inspections = for_each_image(inspect, images["path"], threads, "Inspecting", together=together)
    pages = [path for path, each in zip(images["path"], inspections, strict=True) if each and each.has_pages]
    if pages:
        log.warning(
            "these files have several pages, and only the first is read; save each page as a separate file:\n%s",
            listing(pages),
        )
    return images.assign(**{name: [getattr(each, name, None) for each in inspections] for name in INSPECTED})


def read_manifest(*paths: str) -> pd.DataFrame:
    """Read the manifest of one half, or of both as one table; sizes are integers."""
    manifest = pd.concat(map(read_table, paths), ignore_index=True)
    return manifest.astype({"width": int, "height": int})


def for_each_image(
    work: Callable[..., Result],
    paths: Iterable[str],
    threads: int,
    doing: str,
    *more: Iterable[Any],
    together: Together | None = None,
) -> list[Result | None]:
    """Call ``work(path, ...)`` for every image, in threads: decoding releases the GIL.

    Raises:
        DataError: listing every image for which ``work`` raised ImageError. If ``together`` gathers the error, the
            result of such an image is None.
    """
    from tqdm import tqdm  # imported here because benchmarks/gpu.py runs without it

    paths = list(paths)
    tasks = zip(paths, *more, strict=True)
    batches = iter(lambda: list(islice(tasks, CHUNK)), [])  # without batches, the queue would outgrow the results

    def attempt(task: tuple) -> Result | ImageError:
        try:
            return work(*task)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        attempts = chain.from_iterable(pool.map(attempt, batch) for batch in batches)
        results = list(tqdm(attempts, doing, len(paths), unit="img", disable=None, leave=False))
    with together.gather() if together else nullcontext():
        _refuse_unusable(paths, results)
    return [None if isinstance(result, ImageError) else result for result in results]


def _refuse_unusable(paths: list[str], results: list[Any]) -> None:
    faults = [f"{path}: {it}" for path, it in zip(paths, results, strict=True) if isinstance(it, ImageError)]
    if faults:
        raise DataError(
            f"{counted(len(faults), 'file')} cannot be used; repair or remove:\n{listing(faults, most=100)}"
        )


def refuse_contradictions(manifest: pd.DataFrame) -> None:
    """Refuse byte-identical training images with different labels; images without a hash are skipped.

    Raises:
        DataError: listing them.
    """
    train = manifest[manifest["split"] == "train"]
    labels = train.groupby("sha256")["label"].transform("nunique")
    clashes = train[labels > 1].groupby("sha256", sort=False)
    if len(clashes):
        pairs = [" = ".join(f"{row.path} ({row.label})" for row in group.itertuples()) for _, group in clashes]
        raise DataError(f"byte-identical images with different labels; keep one label:\n{listing(pairs, most=100)}")


def _warn_of(alike: pd.DataFrame, file: str) -> None:
    """Warn about near-duplicates. They may still differ, so people must judge them."""
    groups = alike["group"].nunique()
    if groups:
        first = alike[alike["group"] <= 10].groupby("group")["image_id"]
        some = listing((" ~ ".join(images.head(4)) for _, images in first), most=10)
        log.warning("near-duplicates: %d groups; see %s or the report\n%s", groups, file, some)
