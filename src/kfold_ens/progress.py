"""``kfold-progress``: show the progress of every fold, from any terminal, without affecting the run."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd

from kfold_ens.errors import DataError
from kfold_ens.files import read_json
from kfold_ens.history import column_of, scores_in, selected_row, selecting_column
from kfold_ens.members import FOLDERS, Member, place_of
from kfold_ens.model_header import header_of
from kfold_ens.picture import clock

STALE = 60  # seconds; a fold writes its progress every 5 seconds, except during evaluation
DAY = 24 * 3600
HOLDING = (("results", "history.csv"), ("state", "progress.json"))
COLUMNS = ["recipe", "fold", "is", "epoch", "loss", "accuracy", "held-out", "images/s", "left"]


def main() -> None:
    """Print a row for every fold that has started, in the folder where snakemake runs."""
    parser = argparse.ArgumentParser(prog="kfold-progress", description="Show the progress of each fold.")
    parser.add_argument("folder", nargs="?", default=".", type=Path, help="where snakemake runs (default: here)")
    rows = fold_rows(parser.parse_args().folder)
    if rows:
        print(pd.DataFrame(rows, columns=COLUMNS).to_string(index=False))
    else:
        print("No fold has started: there are no folds below state/ and results/ here.")


def fold_rows(folder: Path) -> list[dict[str, str]]:
    """Return a row for every fold with a history or saved progress, sorted by recipe and fold."""
    patterns = [f"{root}/*/{place}/{file}" for root, file in HOLDING for place in FOLDERS]
    places = {place_of(file) for pattern in patterns for file in folder.glob(pattern)}
    return [_row(folder, *place) for place in sorted(filter(None, places))]


def live_row(folder: Path, recipe: str, member: Member, since: float) -> dict[str, str]:
    """Return the row of a fold in training, by COLUMNS; empty until it reports something after ``since``, a time."""
    files = [folder / top / recipe / member.folder / name for top, name in HOLDING]
    newest = max(_read(os.path.getmtime, file) or 0 for file in files)
    return _row(folder, recipe, member) if newest >= since else {}


def _row(folder: Path, recipe: str, member: Member) -> dict[str, str]:
    place = f"{recipe}/{member.folder}"
    history = _read(pd.read_csv, folder / "results" / place / "history.csv")
    live = _read(read_json, folder / "state" / place / "progress.json")
    row = {"recipe": recipe, "fold": str(member.number), "is": _state(folder, place)} | (
        _live_cells(live) if live else {}
    )
    if history is not None and not live:
        row |= _finished_cells(history.iloc[-1])
    if history is not None:
        row |= {"held-out": _scores(history, live.get("select") if live else _recipe_of(folder, place).get("select"))}
    return {name: row.get(name, "") for name in COLUMNS}


def _scores(history: pd.DataFrame, select: str | None) -> str:
    """Format the last epoch's held-out scores, accuracy and loss last, with the best value of the selecting one."""
    select = select or "last"
    last, selecting = history.iloc[-1], selecting_column(select)
    best = selected_row(history.to_dict("records"), select) if selecting in history else last
    plain = [name for name in ("val_accuracy", "val_loss") if name in history]
    names = [*(name for name in scores_in(history) if name not in plain), *plain]
    return ", ".join(
        f"{column_of(name).label.removeprefix('held-out ')} {last[name]:.4f}"
        + (f" (best {best[name]:.4f})" if name == selecting else "")
        for name in names
    )


def _recipe_of(folder: Path, place: str) -> dict[str, Any]:
    """Read the recipe from the header of a finished fold's model; empty if there is none."""
    header = _read(header_of, folder / "results" / place / "model.safetensors")
    return json.loads(header.get("recipe", "{}")) if header else {}


def _read(reader: Any, path: Path) -> Any:
    """Read a file; None if it is missing or being replaced, as folds start and finish meanwhile."""
    try:
        return reader(path)
    except (OSError, json.JSONDecodeError, DataError):
        return None


def _state(folder: Path, place: str) -> str:
    if (folder / "results" / place / "model.safetensors").is_file():
        return "finished"
    silent = time.time() - (_read(os.path.getmtime, folder / "state" / place / "progress.json") or 0)
    if silent < STALE:
        return "training"
    return f"silent for {silent / 60:.0f} min" if silent < DAY else "stopped"


def _finished_cells(last: pd.Series) -> dict[str, str]:
    return {
        "epoch": str(int(last["epoch"])),
        "loss": f"{last['train_loss']:.3f}",
        "accuracy": f"{last['train_accuracy']:.3f}",
        "images/s": f"{last['images_per_second']:.0f}",
    }


def _live_cells(live: dict[str, Any]) -> dict[str, str]:
    share = live["epoch"] - 1 + live["step"] / live["steps"]
    return {
        "epoch": f"{share:.1f}/{live['epochs']}",
        "loss": f"{live['loss']:.3f}",
        "accuracy": f"{live['accuracy']:.3f}",
        "images/s": f"{live['images_per_second']:.0f}",
        "left": clock(round(live["seconds_left"])),
    }


if __name__ == "__main__":
    main()
