"""The model card: data, scores, recipe and licences of an ensemble, and how to cite it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import yaml

from kfold_ens.bundle.about import About, Member, Rounding
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import correctness
from kfold_ens.ensemble.score_table import as_text, interval_in_words
from kfold_ens.files import atomic
from kfold_ens.logits import Logits, concatenated
from kfold_ens.members import FULL

MOST_CLASSES = 10  # classes in the table of recalls
HOW_TO_PREDICT = "`kfold-predict ensemble.safetensors new_images/ --out predictions.csv` predicts a folder of images."


def write_card(path: str, about: About, train: pd.DataFrame, oof: Sequence[Logits]) -> None:
    """Write the card as Markdown. ``train`` is the manifest of training images, ``oof`` all out-of-fold logits."""
    sections = {
        "Intended use": "Fill in: what it is for, what it is not for, and whom a wrong label may harm.",
        "Data": _data(about, train),
        "Scores": _scores(about),
        "Worst classes": _worst_classes(train, oof),
        "Calibration": _calibration(about),
        **({"Rounded weights": _rounding(about, about.rounding)} if about.rounding else {}),
        "Recipe": _recipe(about),
        "Pretrained weights": _licences(about),
        "How to cite": _citation(about),
    }
    name = about.members[0].recipe_name
    text = "\n\n".join(
        [f"# Ensemble {name}", HOW_TO_PREDICT, *(f"## {title}\n\n{body}" for title, body in sections.items())]
    )
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _data(about: About, train: pd.DataFrame) -> str:
    counts = train["label"].value_counts()
    low, high = counts.min(), counts.max()
    spread = f"{low:,} per class" if low == high else f"{low:,} to {high:,} per class (median {counts.median():,.0f})"
    return f"{len(train):,} training images of {len(about.classes)} classes, {spread}."


def _recipe(about: About) -> str:
    """Describe the members and their recipes, without keys at their defaults."""
    members = ", ".join(map(_title, about.members))
    values = {
        name: dict(member.recipe.model_dump(mode="json", exclude_defaults=True), tta=member.tta.model_dump(mode="json"))
        for name, member in _first_of_recipes(about).items()
    }
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return (
        f"{len(about.members)} models ({members}), combined by {METHODS[about.method].label}. "
        f"Keys at their defaults are omitted here; the file holds all.\n\n```yaml\n{text}```"
    )


def _first_of_recipes(about: About) -> dict:
    return {member.recipe_name: member for member in reversed(about.members)}


def _scores(about: About) -> str:
    return (
        f"```\n{as_text(about.scores, about.method)}\n```\n\n"
        "Out-of-fold scores are those of each fold's model on its held-out images. Unless `select` in the recipe is "
        "`last`, the best epoch was chosen on the same images: scores of one fold and those `as chosen` are then "
        "slightly optimistic, those `cross-fitted` are not. `*` marks the predictions of this file, "
        "which have a score only on test images with known labels. In parentheses: "
        f"{interval_in_words(about.scores)}."
    )


def _calibration(about: About) -> str:
    if about.temperature is None:
        return (
            "Probabilities are not calibrated; `submission: {kind: probabilities, calibrate: true}` fits a temperature."
        )
    return f"The combined logits are divided by {about.temperature:.4g}, fitted on the out-of-fold logits."


def _rounding(about: About, rounding: Rounding) -> str:
    full = [_title(member) for member in about.members if member.name == FULL]
    unmeasured = "".join(f" {title} is rounded too, but not measured: it has no held-out images." for title in full)
    return (
        "Weights are stored in bfloat16, rounded to the nearest value; biases, norms and batch statistics in float32. "
        f"They are converted to float32 before use. Measured out of fold: {rounding.in_words}. The other scores "
        f"here, and the temperature if there is one, are those before rounding.{unmeasured}"
    )


def _worst_classes(train: pd.DataFrame, oof: Sequence[Logits]) -> str:
    label_of = dict(zip(train["image_id"], train["label"], strict=True))
    correct = correctness(concatenated(list(oof)), label_of)
    of_class = correct.groupby(correct.index.map(label_of)).agg(["mean", "sum", "size"]).sort_values(["mean", "size"])
    rows = [f"| {_cell(row.Index)} | {row.mean:.4f} | {row.sum} of {row.size} |" for row in _rows(of_class)]
    all_shown = f"All {len(of_class)} classes, lowest recall first."
    title = (
        all_shown
        if len(rows) == len(of_class)
        else f"The {len(rows)} of {len(of_class)} classes with the lowest recall."
    )
    return "\n".join([title, "", "| class | recall, out of fold | correct |", "|---|---|---|", *rows])


def _rows(of_class: pd.DataFrame) -> list:
    return list(of_class.head(MOST_CLASSES).itertuples())


def _cell(text: str) -> str:
    """Escape a label for a cell of a table."""
    return " ".join(text.replace("|", r"\|").split())


def _licences(about: About) -> str:
    notes = [f"- {name}: {note}" for name, note in about.licences.items()]
    return "\n".join(notes) or "None: training started from random weights."


def _citation(about: About) -> str:
    prints = "\n".join(f"- {_title(member)}: `{member.fingerprint}`" for member in about.members)
    return f"Cite kfold_ens {about.versions['kfold_ens']} and the fingerprints of the models:\n\n{prints}"


def _title(member: Member) -> str:
    return f"{member.recipe_name}/{member.name}"
