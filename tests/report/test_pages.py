import re

import altair
import numpy as np
import pandas as pd
import pytest

from kfold_ens.report import pages, pictures

HOSTILE = "<script>alert(1)</script>\"'&"


def written(tmp_path, *blocks):
    pages.write_page(tmp_path / "page.html", HOSTILE, *blocks)
    return (tmp_path / "page.html").read_text(encoding="utf-8")


BLOCKS = {
    "heading": lambda: pages.heading(HOSTILE),
    "paragraph": lambda: pages.paragraph(HOSTILE),
    "note": lambda: pages.note(HOSTILE),
    "preformatted": lambda: pages.preformatted(HOSTILE),
    "definitions": lambda: pages.definitions({HOSTILE: HOSTILE}),
    "table": lambda: pages.table(pd.DataFrame({HOSTILE: [HOSTILE]}), HOSTILE),
    "gallery": lambda: pages.gallery([pictures.picture(np.zeros((2, 3, 3), np.uint8), HOSTILE, HOSTILE)]),
    "chart": lambda: pages.chart(
        altair.Chart(pd.DataFrame({"x": [HOSTILE]})).mark_point().encode(x="x"), "it", HOSTILE
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_name_is_shown_as_text(name, tmp_path):
    page = written(tmp_path, BLOCKS[name]())
    assert "<script>alert" not in page
    assert page.count("alert(1)") >= 2  # in the title, and in the block


@pytest.mark.parametrize("name", BLOCKS)
def test_a_page_loads_no_other_file(name, tmp_path):
    page = re.sub(r"<script>.*?</script>", "", written(tmp_path, BLOCKS[name]()), flags=re.DOTALL)
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page) == []


def test_tables_sort_numbers_and_hold_pictures():
    shown = (pictures.picture(np.zeros((2, 3, 3), np.uint8), "one"),)
    frame = pd.DataFrame({"share": [0.25, float("nan")], "images": [12345, 1], "pictures": [shown, ()]})
    table = pages.table(frame)
    assert re.findall(r'data-sort="([^"]*)">([^<]*)<', table) == [
        ("0.25", "0.2500"),
        ("12345", "12,345"),
        ("", ""),
        ("1", "1"),
    ]
    assert table.count("<img") == 1


@pytest.mark.parametrize("shape", [(8, 8), (1, 5000), (300, 200)])
def test_a_picture_is_small(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    made = pictures.picture(noise, "noise")
    assert made.uri.startswith("data:image/webp;base64,")
    assert len(made.uri) < 12_000
    assert made.tiny == (max(shape) <= pictures.TINY)


def test_a_note_counts_the_unfinished_folds():
    assert pages.unfinished(5, 5) == []
    assert "Only 1 of 5 folds" in pages.unfinished(1, 5)[0]
