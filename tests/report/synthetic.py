"""A finished run made of synthetic numbers, and its report, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import TINY_RECIPE

from kfold_ens.config import Config, Recipe, load_config
from kfold_ens.data.pixels import PixelStore
from kfold_ens.ensemble.combine import METHODS, combine
from kfold_ens.ensemble.summary import summarize
from kfold_ens.history import COLUMNS, figures_of
from kfold_ens.logits import Logits
from kfold_ens.report.data import write_data, write_views
from kfold_ens.report.ensemble import write_ensemble, write_submission_page
from kfold_ens.report.halves import write_halves
from kfold_ens.report.mistakes import write_errors
from kfold_ens.report.overview import write_overview
from kfold_ens.report.risk_coverage import write_risk_coverage
from kfold_ens.report.training import write_curves, write_fold
from kfold_ens.training.preview import Shown


@dataclass(frozen=True)
class Run:
    """The outputs of the stages before the report."""

    config: Config
    recipe: Recipe
    classes: tuple[str, ...]
    manifest: pd.DataFrame
    alike: pd.DataFrame
    folds: pd.DataFrame
    label_of: dict[str, str]
    store: PixelStore
    oof: dict[int, Logits]
    test: dict[int, Logits]

    @property
    def whole(self) -> bool:
        return len(self.test) == self.config.num_folds

    @property
    def combined(self) -> dict[str, Logits]:
        members = {str(fold): logits for fold, logits in self.test.items()}
        return {method: combine(members, method) for method in METHODS} if self.whole else {}

    @property
    def metrics(self) -> dict[str, Any]:
        return summarize(self.oof, self.test, self.combined, self.label_of)


def make_run(
    folder: Path,
    classes: Sequence[str],
    train: Sequence[str],
    test: Sequence[str],
    side: int = 12,
    num_folds: int = 5,
    finished: Sequence[int] | None = None,
    labelled: bool = True,
) -> Run:
    """Make a run over images with these labels; models are mostly correct."""
    random = np.random.default_rng(0)
    splits = ["train"] * len(train) + ["test"] * len(test)
    ids = [f"{split}/{index:05d}.png" for index, split in enumerate(splits)]
    labels = [*train, *test]
    known = labels if labelled else [*train, *[""] * len(test)]
    manifest = pd.DataFrame(
        {"image_id": ids, "name": ids, "path": ids, "split": splits, "label": known, "width": side, "height": side}
    )
    manifest["sha256"] = [ids[0] if index < 3 else image_id for index, image_id in enumerate(ids)]
    alike = manifest.loc[4:7, ["image_id", "split", "label"]].assign(group=["1", "1", "2", "2"])
    fold_of = np.arange(len(train)) % num_folds
    folds = manifest.loc[: len(train) - 1, ["image_id", "sha256", "label"]].assign(fold=fold_of.astype(str))

    def says(rows: np.ndarray) -> Logits:
        place = np.array([classes.index(labels[row]) for row in rows], dtype=int)
        values = random.normal(size=(len(rows), len(classes))).astype(np.float32)
        values[np.arange(len(rows)), place] += 2
        return Logits(np.array(ids, dtype=object)[rows], values, tuple(classes))

    numbers = range(num_folds) if finished is None else finished
    return Run(
        load_config({"data": {"source": "digits"}, "num_folds": num_folds}),
        Recipe.model_validate(TINY_RECIPE | {"epochs": 2}),
        tuple(classes),
        manifest,
        alike,
        folds,
        dict(zip(ids, known, strict=True)),
        make_store(folder, ids, side, random),
        {fold: says(np.flatnonzero(fold_of == fold)) for fold in numbers},
        {fold: says(np.arange(len(train), len(ids))) for fold in numbers},
    )


def make_store(folder: Path, ids: Sequence[str], side: int, random: np.random.Generator) -> PixelStore:
    """Images that share a few pictures, so that many of them need little memory."""
    pictures = random.integers(0, 255, (20, side, side, 3), dtype=np.uint8)
    (folder / "pixels").write_bytes(pictures.tobytes())
    sides = np.full(len(ids), side)
    columns = {"image_id": np.array(ids, dtype=np.str_), "sha256": np.array(ids, dtype=np.str_)}
    offsets = np.arange(len(ids)) % len(pictures) * pictures[0].size
    with open(folder / "index", "wb") as file:
        np.savez(file, **columns, offset=offsets, height=sides, width=sides)
    return PixelStore(folder / "pixels", folder / "index")


def history() -> pd.DataFrame:
    columns = [name for names in figures_of(list(COLUMNS)).values() for name in names]
    return pd.DataFrame({"epoch": [1, 2], "device": "CPU"} | {name: [0.5, 0.25] for name in columns})


class Outputs(dict):
    """A page path for any name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, name: str) -> str:
        self[name] = str(self._folder / f"{name}.html")
        return self[name]


def write_pages(run: Run, folder: Path) -> dict[str, str]:
    """Write every page of the report except the provenance; return them by name."""
    outputs = Outputs(folder)
    histories = {fold: history() for fold in run.oof}
    write_overview(run.config, run.recipe, "tiny", run.metrics, run.manifest, run.classes, histories, outputs)
    write_data(run.manifest, run.alike, run.folds, run.classes, run.store, outputs)
    write_halves(run.manifest, run.alike, run.store, outputs["halves"])
    shown = Shown(np.zeros((2, 8, 8, 3), np.uint8), np.full((2, len(run.classes)), 1 / len(run.classes)))
    write_views([shown], 0, run.classes, outputs["views"])
    write_curves(histories, run.recipe, run.config.num_folds, outputs["curves"])
    write_fold(next(iter(run.oof)), history(), run.recipe, outputs["fold"])
    write_errors(list(run.oof.values()), run.label_of, run.config.num_folds, run.store, outputs)
    if run.whole:
        oof = list(run.oof.values())
        write_ensemble(run.metrics, oof, run.test, run.combined, run.label_of, run.store, outputs, calibrated=True)
        write_risk_coverage(oof, run.combined, "average", run.label_of, outputs["risk_coverage"], calibrated=True)
        train = run.manifest.loc[run.manifest["split"] == "train", "label"]
        handed_in = pd.DataFrame({"id": run.test[0].image_id, "label": run.combined["average"].predictions()})
        write_submission_page(handed_in, handed_in["label"], train, run.classes, ["it is there"], outputs["submission"])
    return outputs
