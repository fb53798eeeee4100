"""The report's page on the certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from kfold_ens.files import sha256_of
from kfold_ens.report.certificate import write_certificate_page


@pytest.fixture
def split(tmp_path) -> Path:
    file = tmp_path / "folds.csv"
    file.write_text("image_id,fold\na,0\n")
    return file


def certificate(split: Path, **changes: object) -> dict:
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
        "splits": [sha256_of(split)],
        "held_fixed": ["The split is the same."],
        "folds": entries,
        "images": [check],
    } | changes


def page(tmp_path: Path, split: Path, **changes: object) -> str:
    write_certificate_page(certificate(split, **changes), [str(split)], str(tmp_path / "page.html"))
    return (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_passed_certificate_shows_date_commit_folds_and_every_comparison(tmp_path, split):
    text = page(tmp_path, split)
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


def test_a_failed_certificate_shows_what_was_found(tmp_path, split):
    text = page(tmp_path, split, passed=False, findings=["fold 0: chosen epoch changed <b>"])
    assert "Certificate: failed" in text
    assert "fold 0: chosen epoch changed &lt;b&gt;" in text


def test_a_certificate_of_some_folds_or_of_an_earlier_split_says_so(tmp_path, split):
    some = certificate(split)["folds"][:1]
    assert "Only 1 of 2 folds were rebuilt." in page(tmp_path, split, folds=some)
    assert "The split has changed since." in page(tmp_path, split, splits=["another"])
