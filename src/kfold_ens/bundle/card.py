"""The model card: what an ensemble was trained on, how good it is, and what its user should say about it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import yaml

from kfold_ens.bundle.about import About
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.metrics import correctness
from kfold_ens.ensemble.score_table import as_text, interval_in_words
from kfold_ens.files import atomic
from kfold_ens.logits import Logits, concatenated

MOST_CLASSES = 10  # that are listed with what they score


def write_card(path: str, about: About, train: pd.DataFrame, oof: Sequence[Logits]) -> None:
    """Write the card as Markdown. ``train`` is the manifest of the training images, ``oof`` all out-of-fold logits."""
    sections = {
        "Data": _data(about, train),
        "Recipe": _recipe(about),
        "Scores": _scores(about),
        "Calibration": _calibration(about),
        "Worst classes": _worst_classes(train, oof),
        "Pretrained weights": _licences(about),
        "Intended use": "To be filled in: what it is for, what it is not for, and who may be harmed by a wrong label.",
        "How to cite": _citation(about),
    }
    name = about.members[0].recipe_name
    text = "\n\n".join([f"# Ensemble {name}", *(f"## {title}\n\n{body}" for title, body in sections.items())])
    with atomic(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _data(about: About, train: pd.DataFrame) -> str:
    counts = train["label"].value_counts()
    return (
        f"{len(train):,} training images of {len(about.classes)} classes; a class has {counts.min():,} to "
        f"{counts.max():,} images, in the median {counts.median():,.0f}."
    )


def _recipe(about: About) -> str:
    values = {name: member.recipe.model_dump(mode="json") for name, member in _first_of_recipes(about).items()}
    members = ", ".join(f"{member.recipe_name}/{member.name}" for member in about.members)
    views = {member.recipe_name: member.tta.model_dump(mode="json") for member in about.members}
    text = yaml.safe_dump({"recipes": values, "tta": views}, sort_keys=False, allow_unicode=True)
    return f"{len(about.members)} models ({members}), combined by {METHODS[about.method].label}.\n\n```yaml\n{text}```"


def _first_of_recipes(about: About) -> dict:
    return {member.recipe_name: member for member in reversed(about.members)}


def _scores(about: About) -> str:
    return (
        f"```\n{as_text(about.scores, about.method)}\n```\n\n"
        "Out-of-fold scores are those of each model on the images it was not trained on; they are a little flattered, "
        "as the best epoch is chosen on those same images. `*` marks what this file predicts. Between parentheses: "
        f"{interval_in_words(about.scores)}."
    )


def _calibration(about: About) -> str:
    if about.temperature is None:
        return "Probabilities are not calibrated. `submission: {kind: probabilities, calibrate: true}` does it."
    return f"The combined logits are divided by {about.temperature:.4g}, fitted on the out-of-fold logits."


def _worst_classes(train: pd.DataFrame, oof: Sequence[Logits]) -> str:
    label_of = dict(zip(train["image_id"], train["label"], strict=True))
    correct = correctness(concatenated(list(oof)), label_of)
    of_class = correct.groupby(correct.index.map(label_of)).agg(["mean", "sum", "size"]).sort_values(["mean", "size"])
    rows = [f"| {_cell(row.Index)} | {row.mean:.4f} | {row.sum} of {row.size} |" for row in _rows(of_class)]
    return "\n".join(["| class | recall, out of fold | images |", "|---|---|---|", *rows])


def _rows(of_class: pd.DataFrame) -> list:
    return list(of_class.head(MOST_CLASSES).itertuples())


def _cell(text: str) -> str:
    """A label as a cell of a table."""
    return " ".join(text.replace("|", r"\|").split())


def _licences(about: About) -> str:
    notes = [f"- {name}: {note}" for name, note in about.licences.items()]
    return "\n".join(notes) or "None: training started from random weights."


def _citation(about: About) -> str:
    prints = "\n".join(f"- {member.recipe_name}/{member.name}: `{member.fingerprint}`" for member in about.members)
    return f"kfold_ens {about.versions['kfold_ens']}, with the fingerprints of what was trained:\n\n{prints}"
