"""The manifest: every image with its hash, size and duplicates, and nothing in it that cannot be trained on."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from kfold_ens.config import Config
from kfold_ens.data.images import ImageError, Inspection, inspect
from kfold_ens.data.look_alikes import look_alikes
from kfold_ens.data.sources import list_images
from kfold_ens.errors import DataError, listing
from kfold_ens.files import read_table, write_json, write_table
from kfold_ens.naming import submission_names

log = logging.getLogger(__name__)

INSPECTED = [field.name for field in fields(Inspection)]
CHUNK = 2048  # images in the threads' queue at a time

Result = TypeVar("Result")


def write_manifest(
    run: Config, export: Path, threads: int, manifest_file: str, classes_file: str, look_alikes_file: str
) -> pd.DataFrame:
    """Write, and return, the manifest of a run's data source; write its class list, and which images look alike.

    Raises:
        DataError: listing everything that cannot be trained on, or could not be named in the submission.
    """
    export.mkdir(parents=True, exist_ok=True)
    manifest = build_manifest(list_images(run.data, run.seed, export), threads)
    submission_names(manifest[manifest["split"] == "test"], run.submission_names)
    classes = class_labels(manifest)
    alike = look_alikes(manifest)
    _warn_of(alike, look_alikes_file)
    manifest = manifest.drop(columns="perceptual_hash")
    write_table(manifest_file, manifest)
    write_json(classes_file, classes)
    write_table(look_alikes_file, alike)
    return manifest


def build_manifest(images: pd.DataFrame, threads: int) -> pd.DataFrame:
    """Inspect every image of a listing and add ``sha256, width, height, perceptual_hash, duplicate_group``.

    Raises:
        DataError: naming all unreadable files, or all equal images with different labels, at once.
    """
    inspections = for_each_image(inspect, images["path"], threads, "Inspecting")
    manifest = images.assign(**{name: [getattr(each, name) for each in inspections] for name in INSPECTED})
    first_of_its_kind = manifest.groupby("sha256", sort=False)["image_id"].transform("min")
    manifest = manifest.assign(duplicate_group=first_of_its_kind)
    _refuse_contradictions(manifest)
    _report_duplicates(manifest)
    return manifest


def read_manifest(path: str, split: str | None = None) -> pd.DataFrame:
    """Read a manifest, or the rows of one split, with sizes as numbers."""
    manifest = read_table(path).astype({"width": int, "height": int})
    return manifest if split is None else manifest[manifest["split"] == split].reset_index(drop=True)


def class_labels(manifest: pd.DataFrame) -> list[str]:
    """The training labels in the order a person would list them: "2" before "10".

    Raises:
        DataError: where there are fewer than two.
    """
    classes = sorted(manifest.loc[manifest["split"] == "train", "label"].unique(), key=natural_key)
    if len(classes) < 2:
        raise DataError(f"data.train: there is only the class {classes[0]!r}; a classifier wants two or more")
    return classes


def natural_key(label: str) -> tuple:
    """Sort digits by their number and everything else as text; "07" and "7" differ by their text."""
    parts = re.split(r"([0-9]+)", label)
    return [(int(part), "") if part[0] in "0123456789" else (-1, part) for part in parts if part], label


def for_each_image(
    work: Callable[..., Result], paths: Iterable[str], threads: int, doing: str, *more: Iterable[Any]
) -> list[Result]:
    """Do ``work(path, ...)`` for every image, in threads: decoding releases the GIL.

    Raises:
        DataError: listing every image for which ``work`` raised ImageError.
    """
    from tqdm import tqdm  # here: benchmarks/gpu.py runs without it

    paths = list(paths)
    tasks = zip(paths, *more, strict=True)
    batches = iter(lambda: list(islice(tasks, CHUNK)), [])  # all at once, the queue would outgrow the results

    def attempt(task: tuple) -> Result | ImageError:
        try:
            return work(*task)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        attempts = chain.from_iterable(pool.map(attempt, batch) for batch in batches)
        results = list(tqdm(attempts, doing, len(paths), unit="img", disable=None, leave=False))
    faults = [f"{path}: {it}" for path, it in zip(paths, results, strict=True) if isinstance(it, ImageError)]
    if faults:
        raise DataError(f"{len(faults)} files cannot be used; mend or remove them:\n{listing(faults, most=100)}")
    return results


def _refuse_contradictions(manifest: pd.DataFrame) -> None:
    train = manifest[manifest["split"] == "train"]
    labels = train.groupby("sha256")["label"].transform("nunique")
    clashes = train[labels > 1].groupby("sha256", sort=False)
    if len(clashes):
        pairs = [" = ".join(f"{row.path} ({row.label})" for row in group.itertuples()) for _, group in clashes]
        raise DataError(f"byte-identical images with different labels; keep one label:\n{listing(pairs, most=100)}")


def _report_duplicates(manifest: pd.DataFrame) -> None:
    train = manifest[manifest["split"] == "train"]
    test = manifest[manifest["split"] == "test"]
    log.info(
        "%d training images (%d byte-identical to another), %d test images (%d byte-identical to a training image)",
        len(train),
        train["sha256"].duplicated().sum(),
        len(test),
        test["sha256"].isin(train["sha256"]).sum(),
    )


def _warn_of(alike: pd.DataFrame, file: str) -> None:
    """What looks alike may still differ, so it is for people to judge."""
    groups = alike["group"].nunique()
    if groups:
        first = alike[alike["group"] <= 10].groupby("group")["image_id"]
        some = listing((" ~ ".join(images.head(4)) for _, images in first), most=10)
        log.warning("images that look alike: %d groups; %s lists them, the report shows them\n%s", groups, file, some)
