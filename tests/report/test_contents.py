"""The report's table of contents."""

from __future__ import annotations

import re
import subprocess
import sys

from conftest import REPOSITORY

from kfold_ens.report.contents import PAGES, menu_entry, page_file, page_files

CAPTIONS = REPOSITORY / "workflow/report"


def test_every_page_has_a_caption_and_every_caption_a_page():
    assert {path.stem for path in CAPTIONS.glob("*.rst")} - {"workflow"} == set(PAGES)


def test_every_page_is_an_output_of_one_rule():
    rules = (REPOSITORY / "workflow/rules/report.smk").read_text(encoding="utf-8")
    calls = re.findall(r"\bpages?\(([^)]*)\)", rules)
    assert sorted(name for call in calls for name in re.findall(r'"(\w+)"', call)) == sorted(PAGES)


def test_chapters_are_numbered_in_reading_order():
    chapters = list(dict.fromkeys(page.chapter for page in PAGES.values()))
    assert [chapter.split(".")[0] for chapter in chapters] == [str(place) for place in range(1, len(chapters) + 1)]


def test_a_page_keeps_the_wildcards_that_are_not_given():
    assert page_file("fold") == "results/{recipe}/report/{member}.html"
    assert page_file("fold", recipe="{}", member="fold3") == "results/{}/report/fold3.html"
    assert menu_entry("fold") == {"page": "one fold", "recipe": "{recipe}", "fold": "{fold}"}
    assert menu_entry("submission", recipe="tiny", method="vote") == {
        "page": "the submission",
        "recipe": "tiny",
        "method": "vote",
    }


def test_pages_that_need_all_folds_are_skipped_before_they_are_finished():
    some = page_files({"recipe", "fold"}, "tiny", ["fold0", "fold2"])
    assert {"results/tiny/report/fold0.html", "results/tiny/report/fold2.html"} <= set(some)
    assert len(some) == len(set(some))
    rest = page_files({"recipe", "fold", "ensemble"}, "tiny", ["fold0", "fold2"])
    names = ("combinations", "agreement", "calibration", "risk_coverage")
    assert set(rest) - set(some) == {f"results/tiny/report/{name}.html" for name in names}


def test_the_table_of_contents_loads_fast():
    heavy = {"numpy", "pandas", "matplotlib", "altair", "torch"}
    code = f"import kfold_ens.report.contents, sys; sys.exit(not {heavy}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
