"""kfold-predict as people run it."""

import csv
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import CLASSES, tiny_ensemble
from conftest import log_restored, write_image
from disks import run_on_a_disk
from PIL import Image

from kfold_ens.bundle.command import main

FILES, DAMAGED = 40, (3, 17, 18, 19)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predict")
    tiny_ensemble(folder / "ensemble.safetensors", count=2)
    for number in range(FILES):
        path = write_image(folder / f"new/{number:03d}.png", 6 * number, number)
        if number in DAMAGED:
            path.write_bytes(path.read_bytes()[:60])
    return folder


@pytest.fixture(autouse=True)
def _log_as_before():
    with log_restored():
        yield


def run(folder, out, *options, images="new", ensemble="ensemble.safetensors"):
    """The exit code."""
    try:
        main([str(folder / ensemble), str(folder / images), "--out", str(out), "--batch-size", "4", *options])
    except SystemExit as end:
        return end.code
    return 0


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_readable_files_have_rows_and_unreadable_ones_are_listed(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out.csv") == 3
    table = rows(tmp_path / "out.csv")
    assert list(table[0]) == ["image", "label", "probability", "agreement", "entropy"]
    readable = [number for number in range(FILES) if number not in DAMAGED]
    assert [row["image"] for row in table] == [str(folder / f"new/{number:03d}.png") for number in readable]
    assert {row["label"] for row in table} <= set(CLASSES)
    assert {row["agreement"] for row in table} <= {"0", "1", "2"}
    told = capsys.readouterr().err
    assert "4 files cannot be read and have no prediction" in told
    assert all(f"new/{number:03d}.png: broken" in told for number in DAMAGED)
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_options_add_columns(folder, tmp_path):
    options = ("--probabilities", "--top-k", "3", "--min-probability", "1", "--errors", "column", "--no-tta")
    assert run(folder, tmp_path / "out.csv", *options, "--folds", "1") == 3
    table = rows(tmp_path / "out.csv")
    assert len(table) == FILES
    for number, row in enumerate(table):
        if number in DAMAGED:
            assert row["error"].startswith("broken")
            assert row["label"] == row["p_dark"] == row["unsure"] == ""
            continue
        assert (row["error"], row["unsure"], row["agreement"]) == ("", "yes", "1")
        assert sorted([row["label"], row["label_2"], row["label_3"]]) == sorted(CLASSES)
        assert row["probability"] == row[f"p_{row['label']}"] >= row["probability_2"] >= row["probability_3"]
        assert sum(float(row[f"p_{label}"]) for label in CLASSES) == pytest.approx(1, abs=1e-5)


def interrupted(folder, out, batches, monkeypatch, *options):
    """Interrupt a run as Ctrl-C does, after this many batches."""
    from kfold_ens.bundle.partial import PartialCsv

    append, left = PartialCsv.append, [batches]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for jobs in the background

    def some(table, lines):
        left[0] -= 1
        if left[0] < 0:
            signal.raise_signal(signal.SIGINT)
        append(table, lines)

    with monkeypatch.context() as patch:
        patch.setattr(PartialCsv, "append", some)
        patch.setattr("kfold_ens.bundle.command.os._exit", sys.exit)
        assert run(folder, out, *options) == 130
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("errors", ["omit", "column"])
def test_an_interrupted_prediction_resumes_to_the_same_csv(errors, folder, tmp_path, monkeypatch, capsys):
    options = ("--errors", errors, "--probabilities")
    assert run(folder, tmp_path / "whole.csv", *options) == 3
    interrupted(folder, tmp_path / "out.csv", 8, monkeypatch, *options)
    assert not (tmp_path / "out.csv").exists()
    partial = tmp_path / "out.csv.partial"
    partial.write_bytes(partial.read_bytes()[:-7])
    assert run(folder, tmp_path / "out.csv", *options) == 2  # nothing is lost unless it is asked for
    assert run(folder, tmp_path / "out.csv", "--resume", "--errors", errors) == 2
    assert "started with another --probabilities" in capsys.readouterr().err
    assert run(folder, tmp_path / "out.csv", *options, "--resume") == 3
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    told = capsys.readouterr().err
    assert all(f"new/{number:03d}.png: broken" in told for number in DAMAGED)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.csv", "out.csv"}


def test_wrong_arguments_are_refused_before_anything_is_written(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").write_bytes((folder / "ensemble.safetensors").read_bytes()[:-1])
    assert run(folder, out, ensemble=tmp_path / "cut", images=tmp_path / "empty") == 2
    told = capsys.readouterr().err
    assert "cut is damaged" in told
    assert "empty holds no images" in told
    for options, words in [
        (("--folds", "7"), "--folds: the ensemble has no fold7; it has fold0, fold1"),
        (("--top-k", "4"), "--top-k 4: the ensemble has only 3 classes"),
        (("--top-k", "0"), "must be a whole number above 0"),
        (("--folds", ""), "--folds: the ensemble has no ''; it has"),
        (("--min-probability", "2"), "must be a number from 0 to 1 (got '2')"),
        (("--min-probability", "nan"), "must be a number from 0 to 1 (got 'nan')"),
        (("--min-probability", "x"), "must be a number from 0 to 1 (got 'x')"),
    ]:
        assert run(folder, out, *options) == 2
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("what", ["ensemble.safetensors", "new/007.png", "list.csv"])
def test_force_replaces_no_input(what, folder, tmp_path, capsys):
    link = tmp_path / "link"
    link.symlink_to(folder / what)
    (folder / "list.csv").write_text(f"image\n{folder}/new/007.png\n")
    before = (folder / what).read_bytes()
    images = "list.csv" if what == "list.csv" else "new"
    assert run(folder, link, "--force", images=images) == 2
    assert "is one of the files to read; name another" in capsys.readouterr().err
    assert (folder / what).read_bytes() == before
    assert link.is_symlink()


def test_a_broken_link_is_named_as_such(folder, tmp_path, capsys):
    (tmp_path / "away.png").symlink_to("/nowhere/image.png")
    assert run(folder, tmp_path / "out.csv", images=tmp_path) == 3
    told = capsys.readouterr().err
    assert "1 file cannot be read and has no prediction" in told
    assert "away.png: a link to /nowhere/image.png, which does not exist" in told


def test_only_a_full_disk_gives_advice_about_space(folder, tmp_path, monkeypatch, capsys):
    def failing(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("kfold_ens.bundle.run.tqdm.update", failing)
    assert run(folder, tmp_path / "out.csv") == 2
    told = capsys.readouterr().err
    assert "--out: [Errno 5] Input/output error" in told
    assert "free some disk space" not in told


def test_a_full_disk_is_reported_before_and_during_prediction(folder, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr("kfold_ens.files.shutil.disk_usage", lambda _: SimpleNamespace(free=9))
        assert run(folder, tmp_path / "out.csv") == 2
    assert "only 0.00 GB are free" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("kfold_ens.bundle.run.tqdm.update", full)
        assert run(folder, tmp_path / "out.csv") == 2
    assert "No space left on device. The rows so far are kept" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


PREDICT_ON_A_FULL_DISK = """
import os, shutil, subprocess, sys
from pathlib import Path

PREDICT = '''
import sys
from kfold_ens.bundle import command, run
run.require_space = lambda *arguments: None  # as if something else filled the disk meanwhile
command.main(sys.argv[1:])
'''
options = ["--batch-size", "4", "--threads", "1", "--probabilities", "--errors", "column"]
arguments = ["../ensemble.safetensors", "../new", "--out", "out.csv", *options]

def predict(*more):
    done = subprocess.run([sys.executable, "-c", PREDICT, *arguments, *more], capture_output=True, text=True)
    print("PREDICTED", done.returncode, *sorted(os.listdir()), done.stderr, flush=True)

page = os.sysconf("SC_PAGE_SIZE")
Path("filler").write_bytes(b"0" * (shutil.disk_usage(".").free - 2 * page))  # one for the rows, and one
predict()
predict("--resume")
os.remove("filler")
predict("--resume")
shutil.copy("out.csv", "../after_making_room.csv")
"""


@pytest.mark.slow
def test_on_a_full_disk_it_resumes_once_there_is_space(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "project") / "new")
    for path in Path().iterdir():
        path.rename(path.with_stem(f"{'a_long_name_' * 15}{path.stem}"))  # 40 rows of 200 bytes are more than a page
    Path("../small").mkdir()
    done = run_on_a_disk(Path("../small").resolve(), "1m", PREDICT_ON_A_FULL_DISK)
    assert done.returncode == 0, done.stderr
    _, full, still_full, finished = done.stdout.split("PREDICTED ")
    for said in (full, still_full):
        assert said.startswith("2 filler out.csv.partial out.csv.partial.json")
        assert "The rows so far are kept: free some disk space, then run the same command with --resume" in said
        assert "Traceback" not in said
        assert "Exception ignored" not in said
    assert finished.startswith("3 out.csv ")
    options = ("--threads", "1", "--probabilities", "--errors", "column")
    monkeypatch.chdir("../small")
    assert run(Path(".."), "../whole.csv", *options) == 3
    assert Path("../after_making_room.csv").read_bytes() == Path("../whole.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("errors", ["omit", "column"])
def test_a_kill_at_any_moment_resumes_to_the_same_csv(errors, folder, tmp_path, capsys):
    for number in range(400):
        path = write_image(tmp_path / f"many/{number:03d}.png", number % 250, number)
        if number % 100 == 50:
            path.write_bytes(b"no image")
    options = ("--errors", errors)
    assert run(folder, tmp_path / "whole.csv", *options, images=tmp_path / "many") == 3
    assert len(rows(tmp_path / "whole.csv")) == (400 if errors == "column" else 396)
    named = unreadable(capsys.readouterr().err)
    assert len(named) == 4
    draw, out, while_writing = random.Random(0), tmp_path / "out.csv", 0
    for _ in range(4):
        run_and_kill(folder, tmp_path, options, seconds=draw.uniform(0, 1))
        while_writing += run_and_kill(folder, tmp_path, options, after=draw.randint(1, 5000))
    assert while_writing >= 3
    assert not out.exists()
    run_and_kill(folder, tmp_path, options)
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert unreadable((tmp_path / "told").read_text()) == named


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_prediction_at_once_during_slow_decoding(number, code, folder, tmp_path):
    (tmp_path / "many").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (4000, 4000, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png", compress_level=1)
    for name in range(300):
        os.link(tmp_path / "large.png", tmp_path / f"many/{name}.png")
    process = start(folder, tmp_path, ("--batch-size", "100"))
    while not (tmp_path / "out.csv.partial.json").exists():
        time.sleep(0.01)
    os.kill(process.pid, number)
    process.join(10)  # a batch takes longer
    assert process.exitcode == code
    assert {path.name for path in tmp_path.glob("out*")} == {"out.csv.partial", "out.csv.partial.json"}


def unreadable(told):
    return [line for line in told.splitlines() if "not an image of a known format" in line]


def run_to_file(folder, tmp_path, options):
    with open(tmp_path / "told", "w") as sys.stderr:
        sys.exit(run(folder, tmp_path / "out.csv", "--resume", *options, images=tmp_path / "many"))


def run_and_kill(folder, tmp_path, options, seconds=None, after=None):
    """Kill a run after a time, or once it has written a number of bytes; return whether it was killed."""
    partial = tmp_path / "out.csv.partial"
    enough = size(partial) + after if after else None
    process = start(folder, tmp_path, options)
    while after and process.is_alive() and size(partial) < enough:
        time.sleep(0.001)
    process.join(0 if after else seconds)
    if killed := process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return killed


def start(folder, tmp_path, options):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kfold_ens.bundle.predictor", "kfold_ens.bundle.run"])
    process = context.Process(target=run_to_file, args=(folder, tmp_path, options))
    process.start()
    return process


def size(path):
    return path.stat().st_size if path.exists() else 0
