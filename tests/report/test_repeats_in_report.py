"""The report's pages of runs with repeats and a full fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from synthetic import Outputs, Run, history, make_run

from kfold_ens.config import load_config
from kfold_ens.ensemble.combine import METHODS
from kfold_ens.ensemble.score_table import as_text
from kfold_ens.ensemble.summary import summarize, with_members
from kfold_ens.members import FULL, folds_of
from kfold_ens.report import pages
from kfold_ens.report.ensemble import write_ensemble
from kfold_ens.report.mistakes import write_errors
from kfold_ens.report.overview import write_overview
from kfold_ens.report.pages import Markup
from kfold_ens.report.training import write_curves, write_fold

KEYS = {"data": {"source": "digits"}, "num_folds": 2, "repeats": 2, "full_fit": True}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Two repeats of two folds, with equal predictions."""
    made = make_run(tmp_path_factory.mktemp("run"), ["7", "cat"], ["7", "cat"] * 10, ["7", "cat"] * 4, num_folds=2)
    numbers = [member.number for member in folds_of(2, 2)]
    oof, test = (dict(zip(numbers, [*each.values()] * 2, strict=True)) for each in (made.oof, made.test))
    return replace(made, oof=oof, test=test, config=load_config(KEYS))


def overview(run: Run, folder, members: str, is_trained: bool) -> str:
    config = load_config(KEYS | {"members": members})
    scores = summarize(run.oof, run.test, {}, run.label_of, over_repeats=config.over_repeats)
    metrics = with_members(scores, members)
    histories = {number: history() for number in [*run.oof, *([FULL] if is_trained else [])]}
    outputs = Outputs(folder)
    write_overview(config, run.recipe, "tiny", metrics, run.manifest, run.classes, histories, outputs)
    with open(outputs["overview"], encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("members", ["folds", "full", "both"])
def test_the_overview_says_that_the_full_fit_has_no_score(run, tmp_path, members):
    page = overview(run, tmp_path, members, is_trained=True)
    assert "for 2 epochs" in page
    assert "has no out-of-fold score" in page
    assert f"members: {members}" in page
    assert "fold 1 of repeat 1" in page
    assert "4 of 4" in page
    assert "2 models that held it out" in page


def test_the_overview_says_that_a_full_fit_is_not_trained_yet(run, tmp_path):
    page = overview(run, tmp_path, "both", is_trained=False)
    assert "The full fit is not finished" in page
    assert "was trained on all" not in page


def test_the_overview_counts_models_per_image_once_all_folds_are_finished(run, tmp_path):
    oof, test = (dict(list(each.items())[:3]) for each in (run.oof, run.test))
    part = replace(run, oof=oof, test=test)
    page = overview(part, tmp_path, "folds", is_trained=False)
    assert "3 of 4" in page
    assert "models that held it out" not in page


def test_the_terminal_says_that_the_full_fit_has_no_score(run):
    scores = summarize(run.oof, run.test, {}, run.label_of)
    shown = {members: with_members(scores, members) for members in ("folds", "both")}
    assert "full fit" not in as_text(shown["folds"], "average")
    assert "full fit            none: it holds out no images" in as_text(shown["both"], "average")


def test_every_member_has_a_page_and_a_curve(run, tmp_path):
    for number in (1, "1 of repeat 1", FULL):
        trained = history().drop(columns=["val_loss", "val_accuracy"]) if number == FULL else history()
        write_fold(number, trained, run.recipe, str(tmp_path / "page.html"))
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert ("It held out no images" in page) == (number == FULL)
        assert ("of repeat 1" in page) == (number == "1 of repeat 1")
    write_curves({number: history() for number in run.oof}, run.recipe, 4, str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "fold 0 of repeat 1" in page
    assert "Only" not in page


def test_agreement_names_the_folds_of_every_repeat(run, tmp_path, monkeypatch):
    drawn, outputs = [], Outputs(tmp_path)
    monkeypatch.setattr(pages, "figure", lambda figure, words: drawn.append(figure) or Markup(""))
    combined = dict.fromkeys(METHODS, next(iter(run.test.values())))
    write_ensemble(run.metrics, list(run.oof.values()), run.test, combined, run.label_of, run.store, outputs)
    with open(outputs["agreement"], encoding="utf-8") as file:
        assert "The 4 folds of 2 repeats agree on" in file.read()
    ticks = [[label.get_text() for label in axis.get_xticklabels()] for figure in drawn for axis in figure.axes]
    assert ["fold 0", "fold 1", "fold 0 of repeat 1", "fold 1 of repeat 1"] in ticks


def test_repeats_count_each_image_once_among_the_errors(run, tmp_path):
    for method in ("average", "vote"):
        outputs = Outputs(tmp_path)
        write_errors(list(run.oof.values()), run.label_of, 4, run.store, outputs, method)
        with open(outputs["confusion"], encoding="utf-8") as file:
            assert "of 20 images are predicted correctly" in file.read()
