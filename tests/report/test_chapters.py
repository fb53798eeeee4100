"""The report's pages of synthetic runs, small and large: their numbers equal those of the logits."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import TINY_RECIPE, write_yaml
from lxml import html
from scipy.special import softmax
from scipy.stats import norm
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from synthetic import make_run, write_pages

from kfold_ens.config import Recipe, load_config, load_recipe
from kfold_ens.ensemble.combine import METHODS, Method
from kfold_ens.ensemble.metrics import score
from kfold_ens.logits import Logits
from kfold_ens.report.contents import PAGES
from kfold_ens.report.overview import write_provenance

HUNDRED = [f"class {number}" for number in range(100)]
HOSTILE = ["<img src=x onerror=alert(1)>", "\"quoted\" & 'single'", "x" * 200, "$a_1", "{{ 777 * 777 }}", "a, b\nc"]
RUNS = {
    "two classes": lambda folder: make_run(folder, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5),
    "a hundred": lambda folder: make_run(folder, HUNDRED, HUNDRED * 10, HUNDRED),
    "hostile names": lambda folder: make_run(folder, HOSTILE, HOSTILE * 10, HOSTILE),
    "one fold of five": lambda folder: make_run(folder, ["a", "b"], ["a", "b"] * 20, ["a"] * 5, finished=[2]),
    "no test labels": lambda folder: make_run(folder, ["a", "b"], ["a", "b"] * 20, ["a"] * 5, labelled=False),
    "one test image": lambda folder: make_run(folder, ["a", "b", "c"], ["a", "b", "c"] * 20, ["b"]),
    "twenty folds": lambda folder: make_run(folder, ["a", "b"], ["a", "b"] * 40, ["a", "b"], num_folds=20),
}


@pytest.fixture(scope="module", params=RUNS)
def reported(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    run = RUNS[request.param](folder)
    pages = write_pages(run, folder)
    return run, {name: open(path, encoding="utf-8").read() for name, path in pages.items()}


def table(page: str, number: int = 0) -> pd.DataFrame:
    shown = pd.read_html(
        io.StringIO(page), match=".+", flavor="lxml", keep_default_na=False, attrs={"class": "sortable n-last"}
    )[number]
    return shown.rename(columns=lambda name: "" if name.startswith("Unnamed") else name)


def numbers(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column.astype(str).str.replace(",", "")).to_numpy(dtype=float)


def out_of_fold(run):
    ids = np.concatenate([logits.image_id for logits in run.oof.values()])
    values = np.concatenate([logits.values for logits in run.oof.values()])
    return [run.label_of[image_id] for image_id in ids], [run.classes[column] for column in values.argmax(axis=1)]


def wilson(accuracy: float, images: int) -> tuple[float, float]:
    """Wilson 1927, in the form of Brown, Cai and DasGupta 2001."""
    z = norm.ppf(0.975)
    centre = (accuracy + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(accuracy * (1 - accuracy) / images + z**2 / (4 * images**2))
    return centre - half, centre + half


def score_of(correct: int, images: int) -> tuple[float, float]:
    """The interval by the library."""
    ids = np.arange(images).astype(str).astype(object)
    values = np.stack([np.arange(images) < correct, np.arange(images) >= correct], axis=1).astype(float)
    entry = score(Logits(ids, values, ("right", "wrong")), dict.fromkeys(ids, "right"))
    return entry["low"], entry["high"]


def cell(truth, predicted) -> str:
    accuracy = accuracy_score(truth, predicted)
    low, high = wilson(accuracy, len(truth))
    return f"{accuracy:.4f} ({low:.4f} to {high:.4f})"


def test_every_page_is_written(reported):
    run, pages = reported
    shown = {"recipe", "fold", "ensemble", "submission"} if run.whole else {"recipe", "fold"}
    names = {name for name, page in PAGES.items() if page.of in shown}
    assert set(pages) == names - {"provenance"} | {"score"}


def test_names_are_escaped_on_every_page(reported):
    _, pages = reported
    assert not [name for name, page in pages.items() if "<img src=x" in page or ">603729<" in page]


def test_pages_say_how_many_folds_are_finished(reported):
    run, pages = reported
    for name in ("overview", "score", "curves", "confusion", "classes", "pairs", "mistakes", "labels"):
        assert (f"Only {len(run.oof)} of 5 folds" in pages[name]) == (not run.whole)


def test_the_overview_shows_accuracy_with_wilsons_interval(reported):
    run, pages = reported
    shown = table(pages["overview"]).set_index("")
    truth, predicted = out_of_fold(run)
    assert shown.loc["all folds", "out of fold"].startswith(cell(truth, predicted))
    tests = {f"fold {fold}": logits for fold, logits in run.test.items()}
    tests |= {{"average": "average (submitted)"}.get(name, name): logits for name, logits in run.combined.items()}
    for name, logits in tests.items():
        labels = [run.label_of[image_id] for image_id in logits.image_id]
        wanted = cell(labels, np.array(run.classes)[logits.values.argmax(axis=1)]) if all(labels) else "labels unknown"
        assert shown.loc[name, "test"].startswith(wanted)
        assert ("log loss" in shown.loc[name, "test"]) == (all(labels) and name != "vote")
    for fold, logits in run.oof.items():
        labels = [run.label_of[image_id] for image_id in logits.image_id]
        assert shown.loc[f"fold {fold}", "out of fold"].startswith(cell(labels, logits.predictions()))
    headline = shown.loc["average (submitted)", "test"] if run.whole else "labels unknown"
    headline = shown.loc["all folds", "out of fold"] if headline == "labels unknown" else headline
    assert f">{headline.split()[0]}</strong>" in pages["score"]


def test_classes_are_scored_as_by_scikit_learn(reported):
    run, pages = reported
    truth, predicted = out_of_fold(run)
    shown = table(pages["classes"])
    names = [" ".join(name.split()) for name in run.classes]
    rows = [names.index(name) for name in shown["class"].astype(str)]
    options = {"labels": list(run.classes), "average": None, "zero_division": np.nan}
    for column, measure in {"recall": recall_score, "precision": precision_score}.items():
        wanted = measure(truth, predicted, **options)[rows]
        assert numbers(shown[column]) == pytest.approx(wanted, abs=5e-5, nan_ok=True)
    assert numbers(shown["recall"]).tolist() == sorted(numbers(shown["recall"]))


def test_confused_pairs_equal_the_confusion_matrix(reported):
    run, pages = reported
    truth, predicted = out_of_fold(run)
    counts = confusion_matrix(truth, predicted, labels=list(run.classes))
    wrong = np.sort((counts - np.diag(np.diag(counts))).ravel())[::-1]
    shown = table(pages["pairs"])
    assert numbers(shown["images"]).tolist() == wrong[wrong > 0][:30].tolist()
    assert f"{np.trace(counts):,} of {counts.sum():,} images are predicted correctly" in pages["confusion"]


def test_gains_are_paired(reported):
    run, pages = reported
    if not run.whole or not all(run.label_of.values()):
        assert "combinations" not in pages or "labels of the test images are unknown" in pages["combinations"]
        return
    members = {"one fold": run.test[0], **run.combined}
    labels = [run.label_of[image_id] for image_id in run.test[0].image_id]
    right = {name: np.array(run.classes)[each.values.argmax(axis=1)] == labels for name, each in members.items()}
    shown = table(pages["combinations"], 1).set_index("")
    for other, some in combinations(right, 2):
        b, c, n = (right[some] & ~right[other]).sum(), (right[other] & ~right[some]).sum(), len(labels)
        row = numbers(shown.loc[f"{some} − {other}"])
        assert row[0] == pytest.approx((b - c) / n, abs=5e-5)
        middle, half = (b - c) / (n + 2), 1.959964 * np.sqrt(b + c + 1 - (b - c) ** 2 / (n + 2)) / (n + 2)
        assert row[1:] == pytest.approx([middle - half, middle + half], abs=1e-4)


def test_calibration_equals_a_recomputation(reported):
    run, pages = reported
    if not run.whole:
        return
    shown = table(pages["calibration"]).set_index("")["expected calibration error"]
    sets = {"out of fold": list(run.oof.values()), "test images, average": [run.combined["average"]]}
    for name, parts in sets.items():
        probabilities = np.concatenate([softmax(part.values, axis=1) for part in parts])
        ids = np.concatenate([part.image_id for part in parts])
        right = np.array([run.label_of[each] for each in ids]) == np.array(run.classes)[probabilities.argmax(axis=1)]
        if all(run.label_of[each] for each in ids):
            bins = np.minimum((probabilities.max(axis=1) * 15).astype(int), 14)
            gaps = [abs((right[bins == each] - probabilities.max(axis=1)[bins == each]).sum()) for each in range(15)]
            assert float(shown[name]) == pytest.approx(sum(gaps) / len(ids), abs=5e-5)
        else:
            assert name not in shown


def test_a_new_ensembling_method_is_on_every_page_of_methods(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "median", Method(lambda logits_mnk: np.median(logits_mnk, axis=0), "median of logits"))
    run = make_run(tmp_path, ["no", "yes"], ["no", "yes"] * 20, ["no", "yes"] * 5)
    pages = {name: Path(path).read_text() for name, path in write_pages(run, tmp_path).items()}
    assert table(pages["overview"]).iloc[-1][""] == "median"
    assert table(pages["combinations"])[""].tolist()[-1] == "median"
    assert "median − vote" in table(pages["combinations"], 1)[""].tolist()
    names = [f"test images, {name}" for name in ("average", "softmax", "median")]  # a vote gives no probabilities
    assert table(pages["calibration"])[""].tolist() == ["out of fold", *names]


def test_agreement_equals_a_count(reported):
    run, pages = reported
    if run.whole:
        predicted = np.stack([logits.values.argmax(axis=1) for logits in run.test.values()])
        alike = (predicted == predicted[0]).all(axis=0)
        assert f"folds agree on {alike.sum():,} of {len(alike):,} test images" in pages["agreement"]


def test_the_intervals_cover_as_often_as_claimed():
    random = np.random.default_rng(0)
    for accuracy, images in ((0.95, 360), (0.8, 50)):
        hits, how_often = np.unique(random.binomial(images, accuracy, 20_000), return_counts=True)
        intervals = [score_of(count, images) for count in hits]
        covered = [low <= accuracy <= high for low, high in intervals]
        assert 0.93 < np.average(covered, weights=how_often) < 0.975


def test_near_duplicates_are_shown(reported):
    run, pages = reported
    shown = table(pages["data"], 2)
    assert sorted(shown["images"]) == [", ".join(run.alike["image_id"][part]) for part in (slice(2), slice(2, 4))]


def test_near_duplicates_with_different_labels_are_shown_first(tmp_path):
    run = make_run(tmp_path, ["a", "b"], ["a", "b"] * 20, ["a"] * 5, labelled=False)
    groups = {"1": "a b", "2": "a a ?", "3": "a b ?", "4": "a a"}
    rows = [(group, label) for group, labels in groups.items() for label in labels.split()]
    alike = pd.DataFrame(rows, columns=["group", "label"]).assign(image_id=run.manifest["image_id"])
    alike["split"] = alike["label"].map({"a": "train", "b": "train", "?": "test"})
    alike["label"] = alike["label"].replace("?", "")
    page = write_pages(replace(run, alike=alike), tmp_path)["data"]
    text = Path(page).read_text()
    assert "4 groups by perceptual hash: 2 with different labels, 2 among both" in text
    assert table(text, 2)["test"].tolist() == [1, 0, 1, 0]


@pytest.mark.slow
def test_a_hundred_classes_of_21000_images_fit_into_15_megabytes(tmp_path):
    train = HUNDRED * 187
    run = make_run(tmp_path, HUNDRED, train, HUNDRED * 23, side=224)  # noise, which compresses worse than photos
    size = sum(os.path.getsize(path) for path in write_pages(run, tmp_path).values())
    assert size * 4 / 3 + 3e6 < 15e6  # in base64, plus Snakemake's part


def test_the_provenance_shows_every_section_of_recipes_and_overlays(tmp_path):
    write_yaml(tmp_path / "tiny.yaml", TINY_RECIPE)
    overlay = write_yaml(tmp_path / "mine.yaml", {"base": "tiny.yaml", "epochs": 77})
    run, recipe = load_config({"data": {"source": "digits"}}), load_recipe(overlay, tmp_path)
    write_provenance(run, recipe, "mine.yaml", None, [], [], str(tmp_path / "page.html"))
    *_, config, shown = html.parse(tmp_path / "page.html").findall(".//pre")
    assert yaml.safe_load(config.text_content()) == run.model_dump(mode="json")
    assert yaml.safe_load(shown.text_content()) == Recipe.model_validate(TINY_RECIPE | {"epochs": 77}).model_dump(
        mode="json"
    )
