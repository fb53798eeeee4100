"""The report's table of contents. The Snakefile imports this module, so it must load fast."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Subject = Literal["recipe", "fold", "ensemble", "submission", "certificate", "ablation", "blend"]


@dataclass(frozen=True)
class Page:
    """A page in the report's menu."""

    chapter: str
    label: str
    of: Subject = "recipe"  # what it shows; the report has the page if this exists
    columns: tuple[str, ...] = ("recipe",)  # the menu's columns besides the label, each a wildcard or a fixed value
    file: str = "results/{recipe}/report/{page}.html"


# In reading order. The caption of a page is workflow/report/{name}.rst.
PAGES = {
    "overview": Page("1. Overview", "overview"),
    "blend": Page("1. Overview", "the blend", "blend"),
    "data": Page("2. Images", "the images"),
    "examples": Page("2. Images", "examples of every class"),
    "halves": Page("2. Images", "training and test images compared"),
    "views": Page("2. Images", "as the network sees them"),
    "curves": Page("3. Training", "all folds"),
    "fold": Page("3. Training", "one fold", "fold", ("recipe", "fold"), "results/{recipe}/report/{member}.html"),
    "confusion": Page("4. Errors", "confusion matrix"),
    "classes": Page("4. Errors", "recall and precision"),
    "pairs": Page("4. Errors", "confused pairs"),
    "mistakes": Page("4. Errors", "confident mistakes"),
    "labels": Page("4. Errors", "likely label errors"),
    "combinations": Page("5. Ensemble", "folds and ensembling methods", "ensemble"),
    "agreement": Page("5. Ensemble", "agreement", "ensemble"),
    "calibration": Page("5. Ensemble", "calibration", "ensemble"),
    "risk_coverage": Page("5. Ensemble", "risk-coverage curve", "ensemble"),
    "submission": Page("6. Submission", "the submission", "submission", ("recipe", "method")),
    "provenance": Page("7. Provenance", "provenance"),
    "certificate": Page("7. Provenance", "certificate", "certificate"),
    "ablation": Page("8. Ablation", "recipes side by side", "ablation", (), "results/ablation.html"),
}


def page_file(name: str, **values: object) -> str:
    """Return the file of a page; values that are not given stay wildcards."""
    wildcards = {"recipe": "{recipe}", "member": "{member}"}
    return PAGES[name].file.format_map(wildcards | {"page": name} | values)


def menu_entry(name: str, **values: str) -> dict[str, str]:
    """Return a page's cells in the menu, by column; values that are not given stay wildcards."""
    return {"page": PAGES[name].label} | {column: values.get(column, f"{{{column}}}") for column in PAGES[name].columns}


def page_files(of: Collection[Subject], recipe: str, members: Sequence[str]) -> list[str]:
    """List the files of all pages about these subjects, for a recipe and folders of its members."""
    names = [name for name, page in PAGES.items() if page.of in of]
    return list(dict.fromkeys(page_file(name, recipe=recipe, member=member) for name in names for member in members))
