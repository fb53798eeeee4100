import json
import os
import stat
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kfold_ens.errors import DataError
from kfold_ens.files import (
    atomic,
    canonical,
    fingerprint,
    link,
    read_json,
    read_table,
    sha256_of,
    write_json,
    write_table,
)

AWKWARD = (
    "",
    " ",
    "007",
    "NA",
    "nan",
    "None",
    "1e3",
    "True",
    "a,b",
    '"',
    "'",
    "\n",
    "\r",
    "\r\n",
    "x\ry",
    "\ufeff",
    "#",
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
CELLS = st.one_of(st.sampled_from(AWKWARD), TEXT)
TABLES = st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(CELLS, min_size=width, max_size=width), min_size=1))


@given(TABLES)
@example([[text] for text in AWKWARD])
@example([[text, ""] for text in AWKWARD])
@example([["", text] for text in AWKWARD])
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_cell_of_a_table_is_read_as_written(tmp_path, rows):
    columns = ["label", "id, of the image", "é\n2"][: len(rows[0])]
    write_table(tmp_path / "table.csv", pd.DataFrame(rows, columns=columns))
    table = read_table(tmp_path / "table.csv")
    assert table.columns.tolist() == columns
    assert table.to_numpy().tolist() == rows


def test_a_table_with_numbers_or_without_rows_is_read_as_written(tmp_path):
    write_table(tmp_path / "table.csv", pd.DataFrame({"fold": [0, 10], "accuracy": [0.1, 1 / 3]}))
    assert read_table(tmp_path / "table.csv")["fold"].tolist() == ["0", "10"]
    assert read_table(tmp_path / "table.csv")["accuracy"].astype(float).tolist() == [0.1, 1 / 3]
    write_table(tmp_path / "empty.csv", pd.DataFrame({"image_id": [], "label": []}))
    assert read_table(tmp_path / "empty.csv").shape == (0, 2)


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_a_table_of_another_program_is_read(tmp_path, start, end):
    (tmp_path / "table.csv").write_bytes(start + end.join([b"id,label", b"1,", b"02,caf\xc3\xa9", b"3", b""]))
    assert read_table(tmp_path / "table.csv").to_numpy().tolist() == [["1", ""], ["02", "café"], ["3", ""]]


@pytest.mark.parametrize("row", ["1,cat,", "1,black, cat"])
def test_rows_with_more_cells_than_the_header_are_refused(tmp_path, row):
    (tmp_path / "table.csv").write_text(f"id,label\n{row}\n{row}\n")
    with pytest.raises(DataError, match="table.csv .*more cells than its header"):
        read_table(tmp_path / "table.csv")


def test_cells_are_quoted_only_if_needed(tmp_path):
    write_table(tmp_path / "table.csv", pd.DataFrame({"name": ["a b", "c,d"], "label": ["007", ""], "fold": [0, 1]}))
    assert (tmp_path / "table.csv").read_bytes() == b'name,label,fold\na b,007,0\n"c,d",,1\n'


def test_a_file_is_written_atomically_with_the_usual_permissions(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    (tmp_path / "usual").touch()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["file"]
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, "old"])
def test_an_exception_keeps_the_old_file_and_leaves_no_other(tmp_path, error, before):
    path = tmp_path / "file"
    if before:
        path.write_text(before)
    with pytest.raises(error):  # noqa: PT012, SIM117
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == ({"file": "old"} if before else {})


def test_a_value_that_is_not_json_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "file", ["ü", 1])
    with pytest.raises(TypeError):
        write_json(tmp_path / "file", {"key": object()})
    assert read_json(tmp_path / "file") == ["ü", 1]
    assert "ü" in (tmp_path / "file").read_text(encoding="utf-8")
    assert os.listdir(tmp_path) == ["file"]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=10,
)


@given(st.dictionaries(TEXT, JSON))
def test_equal_values_have_one_text_and_one_fingerprint(value):
    turned = dict(reversed(value.items()))
    assert canonical(turned) == canonical(value)
    assert fingerprint(turned) == fingerprint(value)
    assert json.loads(canonical(value)) == value


@pytest.mark.parametrize("pair", [(1, "1"), ([1, 2], [2, 1]), ({"a": {}}, {"a": []}), ("é", "e"), (None, False)])
def test_other_values_have_another_fingerprint(pair):
    assert fingerprint(pair[0]) != fingerprint(pair[1])


def test_the_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    np.arange(300_000, dtype=np.uint8).tofile(tmp_path / "large")
    assert sha256_of(tmp_path / "large") != sha256_of(tmp_path / "file")


def test_the_next_write_deletes_files_of_a_killed_process(tmp_path):
    (tmp_path / ".table.csv.abc123.tmp").write_text("half")
    (tmp_path / ".other.csv.abc123.tmp").write_text("of another file")
    with atomic(tmp_path / "table.csv") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.csv.abc123.tmp", "table.csv"]


def written_long_ago(path, content=b"content"):
    path.write_bytes(content)
    os.utime(path, (10**9, 10**9))
    return path


def test_a_linked_file_is_the_same_file_with_a_new_time(tmp_path):
    source, target = written_long_ago(tmp_path / "source"), tmp_path / "folder" / "target"
    started = time.time()
    for _ in range(2):  # also over what is there
        link(source, target)
        assert os.path.samefile(source, target)
        assert target.stat().st_mtime >= started - 1
    assert os.listdir(tmp_path / "folder") == ["target"]


def test_without_hard_links_the_second_name_is_a_copy(tmp_path, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    source, target = written_long_ago(tmp_path / "source"), tmp_path / "target"
    link(source, target)
    assert not os.path.samefile(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["source", "target"]
