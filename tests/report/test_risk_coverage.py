"""The page on selective prediction: its rows equal those recomputed from the logits."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from synthetic import Run, make_run

from kfold_ens.ensemble.combine import combine
from kfold_ens.ensemble.temperature import calibrate
from kfold_ens.logits import Logits
from kfold_ens.report.risk_coverage import THRESHOLDS, write_risk_coverage

CLASSES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    made = make_run(tmp_path_factory.mktemp("run"), CLASSES, CLASSES * 40, CLASSES * 10)
    return replace(made, oof={fold: sharper(each) for fold, each in made.oof.items()})


def sharper(logits: Logits) -> Logits:
    """An overconfident run, so that a temperature is fitted."""
    return Logits(logits.image_id, logits.values * 4, logits.classes)


def page_of(run: Run, folder, method: str = "average", **options: object) -> str:
    path = folder / "page.html"
    write_risk_coverage(list(run.oof.values()), run.combined, method, run.label_of, str(path), **options)
    return path.read_text(encoding="utf-8")


def tables_of(page: str) -> list[pd.DataFrame]:
    """Read the sortable tables: thresholds per set, then areas."""
    return pd.read_html(io.StringIO(page), flavor="lxml", attrs={"class": "sortable n-last"})


def rows_by_hand(run: Run, predictions: list[np.ndarray], probabilities: list[np.ndarray], ids, p: float):
    """Share, number and accuracy of the images with a probability of at least p; arrays (N,), one per fold."""
    label, probability = np.concatenate(predictions), np.concatenate(probabilities)
    truth = np.array([CLASSES.index(run.label_of[each]) for each in np.concatenate(ids)])
    accepted = probability >= p
    return accepted.mean(), accepted.sum(), (label == truth)[accepted].mean() if accepted.any() else np.nan


def of_softmax(run: Run, parts: list[Logits], p: float, temperatures: tuple[float, ...] = ()):
    scaled = [each.values / t for each, t in zip(parts, temperatures or [1.0] * len(parts), strict=True)]
    probabilities = [softmax(each.astype(float), axis=1) for each in scaled]
    labels, tops = [each.argmax(axis=1) for each in probabilities], [each.max(axis=1) for each in probabilities]
    return rows_by_hand(run, labels, tops, [each.image_id for each in parts], p)


def assert_rows(table: pd.DataFrame, wanted) -> None:
    assert set(THRESHOLDS) | {0.0} <= set(table["p"])
    assert table["p"].is_monotonic_increasing
    for row in table.to_dict("records"):
        shown = [row["share predicted"], row["images"], row["accuracy"]]
        assert shown == pytest.approx(wanted(row["p"]), abs=5e-5, nan_ok=True)
        assert not row["images"] or row["95% from"] <= row["accuracy"] <= row["to"]


def test_rows_equal_a_recomputation_from_the_logits(run, tmp_path):
    out_of_fold, ensemble, _ = tables_of(page_of(run, tmp_path))
    assert_rows(out_of_fold, lambda p: of_softmax(run, list(run.oof.values()), p))
    assert_rows(ensemble, lambda p: of_softmax(run, [run.combined["average"]], p))
    assert ensemble["p"].tolist() == out_of_fold["p"].tolist()


def test_the_p_for_an_accuracy_predicts_the_most_images(run, tmp_path):
    out_of_fold, *_ = tables_of(page_of(run, tmp_path))
    chosen = out_of_fold.dropna(subset="chosen for accuracy")
    assert len(chosen) > 2
    oof = list(run.oof.values())
    probabilities = softmax(np.concatenate([each.values for each in oof]).astype(float), axis=1).max(axis=1)
    for row in chosen.to_dict("records"):
        accuracy = row["chosen for accuracy"]
        assert row["accuracy"] >= accuracy > out_of_fold["accuracy"][0]
        assert all(of_softmax(run, oof, p)[2] < accuracy for p in probabilities[probabilities < row["p"]])


def test_with_calibration_out_of_fold_probabilities_are_cross_fitted(run, tmp_path):
    page = page_of(run, tmp_path, calibrated=True)
    assert "Probabilities are those after calibration" in page
    out_of_fold, ensemble, _ = tables_of(page)
    oof = list(run.oof.values())
    calibration = calibrate(oof, run.label_of)
    assert calibration.temperature > 1.5
    assert_rows(out_of_fold, lambda p: of_softmax(run, oof, p, calibration.of_folds))
    assert_rows(ensemble, lambda p: of_softmax(run, [run.combined["average"]], p, (calibration.temperature,)))


def test_a_vote_takes_its_probabilities_from_the_average_of_softmax(run, tmp_path):
    page = page_of(run, tmp_path, "vote")
    assert "A vote has no probabilities" in page
    _, ensemble, _ = tables_of(page)
    votes, sure = run.combined["vote"], run.combined["softmax"]
    label = votes.values.argmax(axis=1)
    probability = np.exp(sure.values)[np.arange(len(label)), label]
    assert_rows(ensemble, lambda p: rows_by_hand(run, [label], [probability], [votes.image_id], p))


@pytest.mark.parametrize(("method", "words"), [("vote", "combined by the ensembling method"), ("average", "2 models")])
def test_repeats_are_combined_on_the_page(run, method, words, tmp_path):
    oof = dict(run.oof)
    again = {f"{fold} of repeat 1": sharper(each) for fold, each in run.oof.items()}
    page = page_of(replace(run, oof=oof | again), tmp_path, method)
    assert words in page
    out_of_fold, *_ = tables_of(page)
    both = {"average": "average", "vote": "softmax"}[method]
    parts = [combine({"one": oof[fold], "other": each}, both) for fold, each in zip(oof, again.values(), strict=True)]
    assert_rows(out_of_fold, lambda p: of_softmax(run, parts, p))  # two votes: ties go to the average of softmax


def test_without_test_labels_only_out_of_fold_is_shown(tmp_path):
    made = make_run(tmp_path, CLASSES, CLASSES * 10, CLASSES * 4, labelled=False)
    page = page_of(made, tmp_path)
    assert "own curve cannot be shown" in page
    assert "comes from the one model that did not train on it" in page
    assert len(tables_of(page)) == 2


def test_the_figure_has_a_curve_per_set_up_to_all_images(run, tmp_path):
    spec = json.loads(re.search(r'vegaEmbed\("#risk-coverage", (\{.*\}), \{actions', page_of(run, tmp_path))[1])
    (rows,) = spec["datasets"].values()
    rows = pd.DataFrame(rows)
    assert set(rows["set"]) == {"out of fold", "ensemble, test images"}
    assert (rows.groupby("set")["share"].max() == 1).all()
    assert (rows["low"] <= rows["accuracy"]).all()
    assert (rows["accuracy"] <= rows["high"]).all()


def test_accuracies_that_no_p_reaches_are_named(tmp_path):
    made = make_run(tmp_path, CLASSES, CLASSES * 20, CLASSES)
    wrong = {fold: Logits(each.image_id, -each.values, each.classes) for fold, each in made.oof.items()}
    page = page_of(replace(made, oof=wrong), tmp_path)
    assert "No p reaches an accuracy of 0.8, 0.9" in page
    assert "chosen for accuracy" not in page


def test_groups_widen_the_intervals_on_the_page(run, tmp_path):
    group_of = {image_id: str(place // 20) for place, image_id in enumerate(run.label_of)}
    alone, grouped = page_of(run, tmp_path), page_of(run, tmp_path, group_of=group_of)
    assert "bootstrap of whole groups" in grouped
    assert "bootstrap of whole groups" not in alone
    assert not tables_of(alone)[0]["95% from"].equals(tables_of(grouped)[0]["95% from"])
