"""The report's page on a blend."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from kfold_ens.config import load_config
from kfold_ens.report.blend import write_blend

SCORE = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "log_loss": 1.0, "correct": 50, "images": 100}


def blend_of(weighing, missing):
    is_fitted = weighing != "equal"
    return {
        "weighing": weighing,
        "of": "probabilities",
        "weights": {"one": 0.75, "two": 0.25},
        "weights_of_folds": {"0": {"one": 1.0, "two": 0.0}},
        "as_fitted": SCORE | {"accuracy": 0.6} if is_fitted else None,
        "flattered_by": {"difference": 0.1, "low": 0.05, "high": 0.15} if is_fitted else None,
        "recipes": {"one": SCORE, "two": SCORE},
        "missing": missing,
        "choosing": {name: {"select": "best_accuracy", "watched": []} for name in ("one", "two")},
    }


@pytest.fixture
def written(tmp_path):
    """Writes the page of a blend of one model; returns its text and that of the start page's fragment."""

    def write(weighing, missing=()):
        model = tmp_path / "results/one/fold0/model.safetensors"
        model.parent.mkdir(parents=True, exist_ok=True)
        save_file({"w": np.zeros(1)}, model, {"fingerprint": "ab" * 32})
        metrics = {"metric": "accuracy", "out_of_fold": SCORE, "folds": {}, "methods": {"average": {}}}
        metrics["blend"] = blend_of(weighing, dict(missing))
        metrics["cross_fitted"] = {"state": "unknown", "why": "one: none is kept"}
        run = load_config({"data": {"source": "digits"}, "blend": ["one", "two"], "blend_weights": weighing})
        files = [tmp_path / name for name in ("blend.html", "score.html")]
        write_blend(metrics, run, [str(model)], *map(str, files))
        return tuple(file.read_text(encoding="utf-8") for file in files)

    return write


def test_the_page_lists_the_models_in_a_blend_and_those_that_are_missing(written):
    page, score = written("equal", {"two": ["0"]})
    assert "ab" * 32 in page
    assert "missing" in page
    assert "two lacks fold 0" in page
    assert "two lacks fold 0" in score


def test_the_page_says_that_the_interval_of_a_greedy_blend_is_narrow_and_of_no_other(written):
    assert all("contained chance in 89% of runs" in text for text in written("greedy"))
    assert not any("89%" in text for text in (*written("equal"), *written("simplex")))


def test_the_headline_says_what_is_cross_fitted_and_by_how_much_fitting_flatters(written):
    page, _ = written("simplex")
    assert "out of fold, weights cross-fitted, epochs as chosen" in page
    assert "flatters it by 0.1000 (95% interval +0.0500 to +0.1500)" in page
    assert "whose models were trained on this fold&#39;s labels" in page


def test_a_page_of_equal_weights_says_that_nothing_is_fitted(written):
    page, _ = written("equal")
    assert "Nothing was fitted" in page
    assert "weights as fitted" not in page
