"""The report's page on the certificate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kfold_ens.files import hashes_of_tables
from kfold_ens.report.certificate import Now, write_certificate_page

FILES = ("folds.csv", "train.csv", "test.csv", "look_alikes.csv")
CONFIGURATION = {"seed": 0, "select of the recipe": "last"}


@pytest.fixture
def now(tmp_path) -> Now:
    for name in FILES:
        (tmp_path / name).write_text("image_id\na\n")
    return Now([str(tmp_path / name) for name in FILES], CONFIGURATION, "1b89e3e")


def certificate(now: Now, **changes: object) -> dict:
    same = {"name": "chosen epoch", "true": "ab" * 32, "other": "ab" * 32, "is_same": True}
    other = {"name": "held-out scores", "true": "ab" * 32, "other": "cd" * 32, "is_same": False}
    entries = [{"fold": fold, "artefacts": [same], "controls": [other], "findings": []} for fold in range(2)]
    check = {"name": "groups across folds", "found": 0, "words": "", "examples": [], "is_leak": True}
    return {
        "passed": True,
        "findings": [],
        "date": "2026-11-28 03:40",
        "recipe": "tiny",
        "commit": "1b89e3e",
        "settings": {
            "epochs": 2,
            "recipe_epochs": 8,
            "num_folds": 2,
            "repeats": 1,
            "select": "last",
            "device": "CPU, 1 threads",
            "dtype": "float32",
        },
        "configuration": CONFIGURATION,
        "files": hashes_of_tables(now.files),
        "held_fixed": ["The split is the same."],
        "folds": entries,
        "images": [check],
    } | changes


def page(tmp_path: Path, made: dict, now: Now) -> str:
    write_certificate_page(made, now, str(tmp_path / "page.html"))
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_passed_certificate_shows_date_commit_folds_and_every_comparison(tmp_path, now):
    text = page(tmp_path, certificate(now), now)
    for words in (
        "2026-11-28 03:40",
        "1b89e3e",
        "held-out images: 0, 1.",
        "2 (the recipe has 8)",
        "The split is the same.",
    ):
        assert words in text
    assert text.count("chosen epoch") == 2
    assert text.count("is the same") == 2 + 1  # and the sentence on the split
    assert 'class="note"' not in text


def test_a_failed_certificate_shows_what_was_found(tmp_path, now):
    text = page(tmp_path, certificate(now, passed=False, findings=["fold 0: chosen epoch changed <b>"]), now)
    assert "Certificate: failed" in text
    assert "fold 0: chosen epoch changed &lt;b&gt;" in text


def test_a_certificate_that_proved_nothing_does_not_say_that_labels_were_seen(tmp_path, now):
    text = page(tmp_path, certificate(now, passed=False, findings=["fold 0: nothing is proven"]), now)
    assert "has seen" not in text
    assert "Not certified. Each note above says why." in text


def test_a_certificate_of_some_folds_says_so(tmp_path, now):
    assert "Only 1 of 2 folds were rebuilt." in page(
        tmp_path, certificate(now, folds=certificate(now)["folds"][:1]), now
    )


@pytest.mark.parametrize("name", FILES)
def test_a_certificate_is_no_longer_valid_once_its_files_change(name, tmp_path, now):
    made = certificate(now)
    (tmp_path / name).write_text("image_id\na\nb\n")
    text = page(tmp_path, made, now)
    assert "Certificate: no longer valid" in text
    assert f"Changed since: {name}. Run snakemake certify again." in text
    assert text.count("Changed since") == 1
    assert "has seen" not in text


def test_a_certificate_names_every_key_that_changed_since(tmp_path, now):
    later = replace(now, configuration={"seed": 1, "ema of the recipe": {"kind": "exponential"}})
    text = page(tmp_path, certificate(now), later)
    for key in ("seed", "select of the recipe", "ema of the recipe"):
        assert f"Changed since: {key}. Run snakemake certify again." in text


def test_a_certificate_of_another_commit_stays_valid_with_a_doubt(tmp_path, now):
    text = page(tmp_path, certificate(now), replace(now, commit=None))
    assert "Made by another commit: 1b89e3e, now an unknown one." in text
    assert "Nothing that scores these folds has seen" in text
    assert "no longer valid" not in text
