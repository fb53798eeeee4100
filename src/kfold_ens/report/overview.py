"""The report's overview and provenance: the results, and all that they depend on."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from kfold_ens.config import Config, Recipe
from kfold_ens.ensemble.score_table import (
    SIDES,
    about_choice,
    beside,
    cell,
    headline_entry,
    interval_in_words,
    label_of_metric,
    measured_on,
    metric_of,
    score_rows,
    submitted,
)
from kfold_ens.files import sha256_of
from kfold_ens.history import COLUMNS
from kfold_ens.members import FULL, Number
from kfold_ens.model_header import header_of
from kfold_ens.report import data, pages
from kfold_ens.report.pages import Markup
from kfold_ens.versions import versions


def write_overview(
    run: Config,
    recipe: Recipe,
    name: str,
    metrics: Mapping[str, Any],
    manifest: pd.DataFrame,
    classes: Sequence[str],
    histories: Mapping[Number, pd.DataFrame],
    outputs: Mapping[str, str],
) -> None:
    """Write the page ``overview``, and the fragment ``score`` of the report's start page."""
    finished = [number for number in histories if number != FULL]
    first = [*pages.unfinished(len(finished), run.folds_in_all), headline(name, metrics, run)]
    first += [score_table(metrics, run, len(finished)), *map(pages.paragraph, about_choice(metrics))]
    first += _full_fit(run, histories.get(FULL))
    training = _about_training(pd.concat(histories[number] for number in finished), len(finished), run)
    pages.write_page(
        outputs["overview"],
        f"{name}: {_folds_in_words(run)} on {len(classes)} classes",
        *first,
        pages.heading("Images"),
        pages.definitions(data.facts(manifest, classes)),
        pages.heading("Training"),
        pages.definitions({"recipe": name} | _about_recipe(recipe) | training),
    )
    pages.write_fragment(outputs["score"], *first)


def _about_recipe(recipe: Recipe) -> dict[str, str]:
    return {
        "network": f"{recipe.backbone.name}, weights: {recipe.backbone.weights}",
        "input size": f"{recipe.image.size} x {recipe.image.size} pixels",
        "epochs, batch size": f"{recipe.epochs}, {recipe.batch_size}",
    }


def _about_training(epochs: pd.DataFrame, finished: int, run: Config) -> dict[str, str]:
    """Summarise time, speed and memory of the epochs of all folds."""
    peak = epochs["peak_memory_mb"].max() * COLUMNS["peak_memory_mb"].figure_factor
    return {
        "folds finished": f"{finished} of {run.folds_in_all}",
        "devices": ", ".join(epochs["device"].unique()),
        "time in epochs": f"{epochs['seconds'].sum() / 3600:.2f} hours, summed over folds",
        "speed": f"{epochs['images_per_second'].median():,.0f} training images per second (median of epochs)",
        "peak memory": f"{peak:.2f} GB",
    }


def headline(name: str, metrics: Mapping[str, Any], run: Config) -> Markup:
    """Show the submission's score on the test images, or out of fold if their labels are unknown."""
    entry, what = headline_entry(metrics, run.ensemble)
    metric = metric_of(metrics)
    own = "no value" if entry[metric] is None else f"{entry[metric]:.4f}"
    what = f"{label_of_metric(metrics)} of {name} {what}"
    words = [what, *_about(entry, metric), f"{entry['images']:,} images", *measured_on(entry)]
    return Markup('<p class="score"><strong style="font-size: 2.6rem">{}</strong><br>{}</p>').format(
        own, ", ".join(words)
    )


def _about(entry: Mapping[str, Any], metric: str) -> list[str]:
    """Describe the headline score: reason if it is missing, interval, accuracy and log loss."""
    low, high = entry["low"], entry["high"]
    ends = [entry["why"]] if entry[metric] is None else []
    ends += [] if low is None else [f"95% interval {low:.4f} to {high:.4f}"]
    return ends + beside(entry, metric)


def score_table(metrics: Mapping[str, Any], run: Config, finished: int) -> Markup:
    """List the scores of each fold and ensembling method, out of fold and on the test images.

    ``finished`` is the number of finished folds.
    """
    metric, marked = metric_of(metrics), submitted(metrics, run.ensemble)
    is_submitted = bool(run.blend) == ("blend" in metrics)
    rows = [
        {"": f"{name} (submitted)" if is_submitted and name == marked else name}
        | {side.replace("_", " "): cell(entries[side], metric) if side in entries else "" for side in SIDES}
        for name, entries in score_rows(metrics).items()
    ]
    caption = f"{label_of_metric(metrics)}, with {interval_in_words(metrics)}{_over_repeats(run, finished)}"
    return pages.table(pd.DataFrame(rows), caption)


FULL_FIT = {
    "folds": "It is not part of the ensemble (members: folds).",
    "full": "It alone predicts the test images (members: full); out-of-fold scores are those of the folds.",
    "both": "It is part of the ensemble (members: both); out-of-fold scores are those of the folds alone.",
}


def _full_fit(run: Config, history: pd.DataFrame | None) -> list[Markup]:
    """Explain the full fit; ``history`` is None if it is not trained yet."""
    if not run.full_fit:
        return []
    if history is None:
        return [pages.note("The full fit is not finished, so no result here includes it.")]
    trained = f"The full fit was trained on all training images for {len(history)} epochs (the median of the folds)."
    held_out = "It held out no images, so it has no out-of-fold score."
    return [pages.paragraph(f"{trained} {held_out} {FULL_FIT[run.members]}")]


def _folds_in_words(run: Config) -> str:
    return f"{run.num_folds} folds" + (f", {run.repeats} repeats" if run.repeats > 1 else "")


def _over_repeats(run: Config, finished: int) -> str:
    """Explain the score of all folds with repeats; empty before all are finished, when models per image differ."""
    if run.repeats == 1 or finished < run.folds_in_all:
        return ""
    how = f"an ensemble of the {run.repeats} models that held it out ({run.over_repeats})"
    return f"; all folds: each image is predicted by {how}"


def write_provenance(
    run: Config,
    recipe: Recipe,
    recipe_file: str,
    commit: str | None,
    data_files: Sequence[str],
    models: Sequence[str],
    path: str,
) -> None:
    """Write the page of all that the results depend on, with the commands that reproduce them."""
    headers = {file: header_of(file) for file in models}
    pages.write_page(
        path,
        "Provenance",
        pages.heading("Commands that reproduce this report"),
        pages.preformatted(commands(run, recipe, recipe_file, commit)),
        pages.heading("config.yaml, defaults included"),
        pages.preformatted(as_yaml(run)),
        pages.heading(f"{recipe_file}, defaults included"),
        pages.preformatted(as_yaml(recipe)),
        pages.heading("Versions"),
        pages.table(versions_table(headers, commit)),
        pages.heading("Fingerprints"),
        pages.definitions(
            {file: sha256_of(file) for file in data_files}
            | {file: header["fingerprint"] for file, header in headers.items()}
        ),
        pages.paragraph(
            "SHA-256 of each file; for a model, SHA-256 of its recipe, split, images, pretrained weights and code."
        ),
    )


def versions_table(headers: Mapping[str, Mapping[str, str]], commit: str | None) -> pd.DataFrame:
    """List the versions that trained each model and that made this page."""
    columns = {file: json.loads(header["versions"]) for file, header in headers.items()}
    columns["this report"] = versions() | {"commit": commit or "unknown"}
    table = pd.DataFrame(columns).rename_axis("").reset_index()
    return table.fillna("")


def commands(run: Config, recipe: Recipe, recipe_file: str, commit: str | None) -> str:
    """Return the commands from a clone of the repository to this report."""
    extra = "'.[timm]'" if recipe.backbone.kind == "timm" else "."
    options = shlex.join(["--config", f"recipe={recipe_file}", f"ensemble={run.ensemble}"])
    name, _, changes = (commit or "").partition(" ")
    lines = [
        f"git checkout {name}" if name else "# in a clone of the repository; the commit is unknown",
        f"# there were {changes}" if changes else "",
        f"python3 -m venv .venv && .venv/bin/pip install -e {extra} && source .venv/bin/activate",
        "# then, with config.yaml as below and the same images:",
        f"snakemake --cores 4 submission {options}",
        f"snakemake --cores 4 ablation {options}" if run.ablation else "",
        f"snakemake report {options}",
    ]
    return "\n".join(filter(None, lines))


def as_yaml(model: Config | Recipe) -> str:
    return yaml.safe_dump(model.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
