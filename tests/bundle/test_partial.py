import csv
import io
import os
import re
from pathlib import Path

import pytest

from kfold_ens.bundle.partial import Done, PartialCsv, done_so_far
from kfold_ens.errors import KfoldError

HEADER = ["image", "label", "error"]
NAMES = [f'{number}, "ü".png' for number in range(10)]
REASONS = {3: "broken", 4: "broken"}


def content(omit=()):
    text = io.StringIO()
    rows = [[name, "two\nlines", REASONS.get(number, "")] for number, name in enumerate(NAMES) if number not in omit]
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue().encode()


@pytest.mark.parametrize("omit", [(), (3, 4), (4, 5, 6), (0, 1, 2, 3), (9,)])
def test_a_file_cut_anywhere_keeps_whole_batches(omit, tmp_path):
    whole, path = content(omit), tmp_path / "partial"
    most = 0
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        done = done_so_far(path, HEADER, NAMES, 3)
        assert done.images % 3 == 0
        kept = whole[: done.size]
        rows = list(csv.reader(io.StringIO(kept.decode(), newline="")))
        assert [row[0] for row in rows[1:]] == [name for n, name in enumerate(NAMES[: done.images]) if n not in omit]
        most = max(most, done.images)
    assert most == (9 if 9 not in omit else 6)
    without = {NAMES[number]: "" for number in omit if number < most}
    assert dict(done.failed) == without | {NAMES[n]: why for n, why in REASONS.items() if n not in omit and n < most}


@pytest.mark.parametrize("left", [b"", b"imag", b"other,columns\n", b"\xff\xfe\n", b"\0" * 4096])
def test_a_file_without_the_header_starts_over(left, tmp_path):
    (tmp_path / "partial").write_bytes(left)
    assert done_so_far(tmp_path / "partial", HEADER, NAMES, 3) == Done()


def test_zeros_left_by_a_power_cut_are_dropped(tmp_path):
    whole = content()
    (tmp_path / "partial").write_bytes(whole[:150] + b"\0" * 500 + b"\n")
    assert done_so_far(tmp_path / "partial", HEADER, NAMES, 3).images == 3


def begin(out, resume=False, force=False, **identity):
    table = PartialCsv(out)
    table.refuse_what_is_there(resume, force)
    done = table.begin({"ensemble": "abc"} | identity, HEADER, NAMES, 2, resume)
    return table, done


def test_only_a_finished_file_has_the_final_name(tmp_path):
    out = tmp_path / "new/out.csv"
    table, _ = begin(out)
    table.append([["a", "b", ""]])
    assert {path.name for path in out.parent.iterdir()} == {"out.csv.partial", "out.csv.partial.json"}
    table.finish()
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]
    assert out.read_text() == "image,label,error\na,b,\n"


def test_existing_files_are_replaced_only_by_force(tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("precious")
    with pytest.raises(KfoldError, match="out.csv exists; --force replaces it"):
        begin(out)
    with pytest.raises(KfoldError, match="is a folder"):
        begin(tmp_path, force=True)
    table, _ = begin(out, force=True)
    assert out.read_text() == "precious"
    with pytest.raises(KfoldError, match="another process is writing"):
        begin(out, force=True)
    table.finish()
    assert out.read_text() == "image,label,error\n"


def test_an_output_that_cannot_be_a_file_is_refused(in_folder):
    (in_folder / "file").touch()
    os.mkfifo(in_folder / "pipe")
    for out, words in [
        (".", "--out . is a folder; name a file in it"),
        ("pipe", "--out pipe is a device or a pipe; name a file"),
        ("file/new/out.csv", f"--out file/new/out.csv: {in_folder}/file is a file, not a folder"),
    ]:
        with pytest.raises(KfoldError, match=re.escape(words)):
            begin(Path(out), force=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_to_write_is_named(in_folder):
    (in_folder / "locked").mkdir(mode=0o555)
    with pytest.raises(KfoldError, match="locked cannot be written to: permission denied"):
        begin(Path("locked/new/out.csv"))


def test_an_interrupted_file_is_resumed_only_by_the_same_command(tmp_path):
    out = tmp_path / "out.csv"
    table, _ = begin(out)
    table.append([name, "x", ""] for name in NAMES[:5])
    table._file.close()
    with pytest.raises(KfoldError, match="--resume continues it, --force starts over"):
        begin(out)
    with pytest.raises(KfoldError, match=r"started with another ensemble, top_k; use the same"):
        begin(out, resume=True, ensemble="other", top_k=3)
    table, done = begin(out, resume=True)
    assert done.images == 4
    table.append([name, "x", ""] for name in NAMES[4:])
    table.finish()
    assert [row[0] for row in csv.reader(out.open())] == ["image", *NAMES]


def test_a_kill_while_starting_over_leaves_no_old_rows(tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    table, _ = begin(out)
    table.append([name, "x", ""] for name in NAMES)
    table._file.close()

    def killed(*_):
        raise SystemExit

    for gone in (False, True):  # the file that says what it belongs to is of before, or was never written
        with monkeypatch.context() as patch:
            patch.setattr("kfold_ens.bundle.partial.write_json", killed)
            with pytest.raises(SystemExit):
                begin(out, force=True, ensemble="other")
        if gone:
            (tmp_path / "out.csv.partial.json").unlink()
        table, done = begin(out, resume=True, ensemble="other")
        assert done == Done()
        table._file.close()


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_a_file_of_an_unknown_run_is_not_resumed(damage, tmp_path):
    out = tmp_path / "out.csv"
    begin(out)[0]._file.close()
    beside = tmp_path / "out.csv.partial.json"
    beside.unlink() if damage is None else beside.write_text(damage)
    with pytest.raises(KfoldError, match="is missing or damaged"):
        begin(out, resume=True)
    assert begin(out, force=True)[1] == Done()
