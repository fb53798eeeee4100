"""The report's captions, as Snakemake renders them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils.core import publish_parts
from jinja2 import Environment
from lxml import html

from kfold_ens.config import load_config

FOLDER = Path(__file__).parents[2] / "workflow/report"
IMAGES = {"source": "imagefolder", "train": "train", "test": "test"}
TABLE = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images"}


def rendered(name: str, **snakemake: object) -> str:
    """The text of a caption, on one line."""
    templates = Environment(trim_blocks=True, lstrip_blocks=True)
    caption = templates.from_string((FOLDER / name).read_text(encoding="utf-8"))
    words = caption.render(snakemake=SimpleNamespace(**snakemake), files=[], categories={})
    body = publish_parts(words, writer_name="html", settings_overrides={"report_level": 1, "halt_level": 1})["body"]
    return " ".join(html.fromstring(f"<div>{body}</div>").text_content().split())


def of_run(data: dict, **keys: object) -> str:
    return rendered("workflow.rst", config=load_config({"data": data} | keys).model_dump(mode="json"))


def test_the_start_page_describes_split_and_ensemble():
    plain = of_run({"source": "digits"})
    assert plain.startswith("Images split into 5 stratified folds, one network per fold by the recipe digits.")
    assert "The logits of the folds' networks for the test images are combined by average." in plain
    assert "full fit" not in plain


@pytest.mark.parametrize(
    ("data", "keys", "words"),
    [
        (IMAGES | {"groups": "(.*)/"}, {}, "5 stratified folds, each group of images in one fold, one network"),
        (TABLE | {"group_column": "patient"}, {}, "5 stratified folds, each group of images in one fold, one network"),
        (TABLE | {"fold_column": "fold"}, {}, "5 given folds, one network"),
        (IMAGES, {"repeats": 3}, "5 stratified folds, 3 times by different seeds, one network per fold by"),
        (
            IMAGES,
            {"full_fit": True},
            "per fold and one of all training images (the full fit) by the recipe digits. The",
        ),
        (IMAGES, {"full_fit": True}, "The logits of the folds' networks for the test images are combined by average."),
        (IMAGES, {"full_fit": True, "members": "both"}, "The logits of all networks for the test images are combined"),
        (IMAGES, {"full_fit": True, "members": "full"}, "The full fit alone predicts the test images. The chapters"),
    ],
)
def test_the_start_page_mentions_groups_given_folds_repeats_and_full_fit(data, keys, words):
    assert words in of_run(data, **keys)


@pytest.mark.parametrize(
    ("member", "words"), [("fold3", "tiny, fold3, epoch by epoch"), ("repeat1/fold3", "tiny, repeat1, fold3, epoch")]
)
def test_the_caption_of_a_fold_mentions_held_out_images(member, words):
    caption = rendered("fold.rst", wildcards=SimpleNamespace(recipe="tiny", member=member))
    assert words in caption
    assert "solid: held-out images" in caption


def test_the_caption_of_a_full_fit_says_that_no_image_is_held_out():
    caption = rendered("fold.rst", wildcards=SimpleNamespace(recipe="tiny", member="full"))
    assert "tiny, full fit, epoch by epoch" in caption
    assert "no image is held out" in caption
    assert "solid" not in caption
