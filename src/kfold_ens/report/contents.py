"""The report's table of contents. The Snakefile reads it, so it imports nothing that starts slowly."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

Subject = Literal["recipe", "fold", "ensemble", "submission", "ablation"]


@dataclass(frozen=True)
class Page:
    """A page in the report's menu."""

    chapter: str
    label: str
    of: Subject = "recipe"  # what it shows; the page is in the report if that is there
    columns: tuple[str, ...] = ("recipe",)  # the menu's columns beside the label; each is a wildcard, or a fixed value
    file: str = "results/{recipe}/report/{page}.html"


# By name, in reading order. A page's caption is workflow/report/{name}.rst.
PAGES = {
    "overview": Page("1. Overview", "overview"),
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
    "ablation": Page("8. Ablation", "recipes side by side", "ablation", (), "results/ablation.html"),
}


def page_file(name: str, **values: object) -> str:
    """The file of a page; what is not given stays a wildcard."""
    wildcards = {"recipe": "{recipe}", "member": "{member}"}
    return PAGES[name].file.format_map(wildcards | {"page": name} | values)


def menu_entry(name: str, **values: str) -> dict[str, str]:
    """The cells of a page's line in the menu, by column; what is not given stays a wildcard."""
    return {"page": PAGES[name].label} | {column: values.get(column, f"{{{column}}}") for column in PAGES[name].columns}


def page_files(of: Collection[Subject], recipe: str, members: Sequence[str]) -> list[str]:
    """The files of all pages that show one of these, for a recipe and the folders of some of its members."""
    names = [name for name, page in PAGES.items() if page.of in of]
    return list(dict.fromkeys(page_file(name, recipe=recipe, member=member) for name in names for member in members))
