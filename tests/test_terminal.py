"""Runs of Snakemake in a terminal and without one: what users see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY_RECIPE
from projects import new_project

from kfold_ens.files import write_json
from kfold_ens.run_log import error_in

pytestmark = pytest.mark.slow

CONTROL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HIDES_CURSOR, ERASES_LINE = "\x1b[?25l", "\x1b[1A\x1b[2K"
SNAKEFILE = """
import os
from snakemake.logging import logger
from kfold_ens.run_log import show_run

show_run(logger, workflow.output_settings)

rule submission:
    input: "results/tiny/fold0/model.safetensors", "results/tiny/fold1/model.safetensors"
    output: "results/submission.csv"
    shell: "touch {output}"

rule:
    name: "train_fold0"
    output: "results/tiny/fold0/model.safetensors"
    log: "train0.log"
    shell: "echo a finding; echo a warning >&2; touch state/tiny/fold0/progress.json; sleep 3; touch {output}"

rule:
    name: "train_fold1"
    output: "results/tiny/fold1/model.safetensors"
    log: "train1.log"
    shell: os.environ.get("JOB_OF_FOLD1", "touch {output}")

rule users:
    message: "my own rule runs"
    shell: "exit 1"

onsuccess:
    print("the scores")
"""
FAILS = "echo '2026-11-28 03:00:00,123 ERROR: the disk is full' > {log}; exit 1"
PROGRESS = {
    "select": "last",
    "epoch": 2,
    "epochs": 4,
    "step": 1,
    "steps": 2,
    "loss": 0.5,
    "accuracy": 0.75,
    "images_per_second": 84.0,
    "seconds_left": 75.0,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A workflow of two folds. The first has reported its progress."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    write_json(tmp_path / "state/tiny/fold0/progress.json", PROGRESS)
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going", "--quiet", "rules", *arguments]


def in_terminal(
    folder: Path,
    arguments: list[str],
    columns: int = 120,
    after: Callable[[str], bool] | None = None,
    typed: str = "^C",
) -> tuple[int, str]:
    """Run a command in a terminal of its own; return its exit code and all that is shown there.

    ``typed`` is typed once what is shown satisfies ``after``.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env=os.environ | {"TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        **dict.fromkeys(("stdin", "stdout", "stderr"), follower),
    )
    os.close(follower)
    shown = ""
    for part in parts_of(leader):
        shown += part
        if after and after(shown):
            os.write(leader, typed.replace("^C", "\x03").encode())
            after = None
    return process.wait(), shown


def parts_of(terminal: int) -> Iterator[str]:
    with open(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                yield stream.read(65536).decode(errors="replace")
            except OSError:  # the last process with this terminal has ended
                return


def words(shown: str) -> str:
    """What is written, without control codes."""
    return CONTROL_CODE.sub("", shown).replace("\r", "")


def at_the_end(shown: str) -> str:
    """What is shown after the picture has been removed for the last time."""
    return words(shown[shown.rindex(ERASES_LINE) :])


def assert_left_clean(shown: str) -> None:
    assert HIDES_CURSOR not in shown
    assert "steps done" not in at_the_end(shown)


def test_a_terminal_shows_one_picture_and_then_the_scores(folder):
    code, shown = in_terminal(folder, command())
    assert code == 0, shown
    assert re.search(r"fold 0 +━+╌+  epoch 1.5/4  loss 0.500 .*84 images/s  0:01:15 left", words(shown))
    assert re.search(r"next +submission", words(shown))
    assert "a finding" in shown
    assert "a warning" in shown
    assert "Select jobs" not in shown
    assert_left_clean(shown)
    assert "the scores" in at_the_end(shown)


def test_a_narrow_terminal_shows_the_same_picture_on_lines_of_its_own(folder):
    code, shown = in_terminal(folder, command(), columns=40)
    assert code == 0, shown
    assert "fold 0  epoch 1.5/4  0:01:15 left\n" in words(shown)


FIX_IT = (
    "train_fold1 failed:\nERROR: the disk is full\nThe whole log: train1.log\n\n1 of 3 steps are done.\n"
    "Once this is fixed, the same command runs the rest, and resumes each fold from its last saved step."
)


def test_the_error_of_a_fold_and_what_to_do_come_last(folder, monkeypatch):
    monkeypatch.setenv("JOB_OF_FOLD1", FAILS)
    code, shown = in_terminal(folder, command())
    assert code == 1
    assert_left_clean(shown)
    assert words(shown).rstrip().endswith(FIX_IT)
    assert "CalledProcessError" in shown


RESUMES = " of 3 steps are done.\nThe same command runs the rest, and resumes each fold from its last saved step."


def test_ctrl_c_leaves_the_terminal_clean_and_says_what_comes_next(folder, monkeypatch):
    monkeypatch.setenv("JOB_OF_FOLD1", "exec sleep 60")
    code, shown = in_terminal(folder, command(), after=lambda shown: shown.count("fold 1 ") > 2)
    assert code != 0
    assert_left_clean(shown)
    assert words(shown).rstrip().endswith(RESUMES)
    assert "failed" not in words(shown)


def test_sigterm_too_says_what_comes_next(folder, monkeypatch):
    monkeypatch.setenv("JOB_OF_FOLD1", "kill $PPID; sleep 2; exit 143")
    code, shown = in_terminal(folder, command())
    assert code != 0
    assert "stopping after the running jobs" in words(shown)
    assert_left_clean(shown)
    assert words(shown).rstrip().endswith("1" + RESUMES)
    assert "failed" not in words(shown)
    assert words(shown).count("Will exit after finishing") == 1


def test_a_run_in_the_background_draws_nothing_until_it_is_in_front(folder):
    in_background = f"set -m; {shlex.join(command())} & sleep 1; read -t 30; echo in front; fg"
    code, shown = in_terminal(
        folder, ["bash", "-c", in_background], after=lambda shown: "fold0 starts" in shown, typed="\n"
    )
    assert code == 0, shown
    before, after = shown.split("in front")
    assert "steps done" not in before
    assert ERASES_LINE not in before
    assert "train_fold0 starts" in before
    assert "steps done" in after
    assert_left_clean(shown)


def test_a_stopped_run_draws_below_the_shells_lines_when_it_continues(folder):
    with_shell = f"set -m; {shlex.join(command())}; echo $ fg; sleep 4; fg"
    code, shown = in_terminal(
        folder, ["bash", "-c", with_shell], after=lambda shown: "steps done" in shown, typed="\x1a"
    )
    assert code == 0, shown
    assert shown.index("steps done", shown.index("$ fg")) < shown.index(ERASES_LINE, shown.index("$ fg"))
    assert_left_clean(shown)


def test_a_job_that_outlives_snakemake_can_still_print(folder, monkeypatch):
    prints = "for i in 1 2 3; do echo line $i || exit; sleep 0.2; done; touch {output}"
    monkeypatch.setenv("JOB_OF_FOLD1", f"sleep 1; kill -9 $PPID; sleep 1; {prints}")
    _, shown = in_terminal(folder, ["bash", "-c", f"{shlex.join(command())}; sleep 4"])
    assert (folder / "results/tiny/fold1/model.safetensors").exists()
    assert "line 3" in words(shown)
    assert HIDES_CURSOR not in shown


def test_the_message_of_a_users_own_rule_is_shown(folder):
    code, shown = in_terminal(folder, command("--", "users"))
    assert code == 1
    assert "my own rule runs\n" in words(shown)
    assert "users failed:\nIt has no log. The lines above may say why.\n" in words(shown)


def test_without_a_terminal_there_are_plain_lines_without_control_codes(folder):
    done = subprocess.run(command(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert re.search(r"^\d\d:\d\d:\d\d train_fold0 starts$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d\d:\d\d:\d\d submission is done after 0:00:\d\d: 3 of 3$", done.stdout, re.MULTILINE)
    assert "Select jobs" not in done.stdout
    assert "the scores" in done.stdout


def test_without_a_terminal_too_the_error_comes_last(folder, monkeypatch):
    monkeypatch.setenv("JOB_OF_FOLD1", FAILS)
    done = subprocess.run(command(), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.stdout.rstrip().endswith(FIX_IT)


@pytest.mark.parametrize("option", ["--dry-run", "--verbose", "--printshellcmds"])
def test_users_who_ask_for_snakemakes_output_get_it(option, folder):
    _, shown = in_terminal(folder, command(option))
    assert ERASES_LINE not in shown
    assert "Job stats" in shown


def test_a_fold_in_training_says_nothing_beside_the_picture(tmp_path):
    project = new_project(tmp_path, TINY_RECIPE | {"epochs": 10}, data={"source": "digits", "limit_per_class": 6})
    arguments = [sys.executable, "-m", "snakemake", "--cores", "1", "train_fold0"]
    code, shown = in_terminal(project.folder, arguments)
    assert code == 0, shown
    assert re.search(r"fold 0 .*epoch \d.* left", words(shown))
    assert "images/s, " not in words(shown)  # of an epoch's line and of bars
    assert "the split, in images per class" in shown
    assert "fold 0: kept the weights of epoch" in shown
    assert_left_clean(shown)
    assert "epoch 10/10" in (project.folder / "logs/tiny/fold0/train.log").read_text()


def test_the_same_command_resumes_a_fold_after_ctrl_c(tmp_path):
    project = new_project(tmp_path, TINY_RECIPE | {"epochs": 20}, data={"source": "digits", "limit_per_class": 6})
    history = project.folder / "results/tiny/fold0/history.csv"
    arguments = [sys.executable, "-m", "snakemake", "--cores", "1", "train_fold0"]
    code, shown = in_terminal(project.folder, arguments, after=lambda shown: history.exists())
    assert code != 0
    assert_left_clean(shown)
    assert "Traceback" not in shown
    assert "CalledProcessError" not in shown
    done = project.run("train_fold0")
    assert done.returncode == 0, done.stdout
    assert "fold 0 resumes at epoch" in done.stdout


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        ("2026-11-28 03:00:00,123 reading\n2026-11-28 03:00:01,000 ERROR: two\nlines\n", "ERROR: two\nlines"),
        ("2026-11-28 03:00:00,123 reading\n", "reading"),
        ("", "Its log is empty, or not on this machine: train.log. The lines above may say why."),
    ],
)
def test_an_error_is_found_in_the_log_of_its_job(log, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("train.log").write_text(log)
    assert error_in("train.log").splitlines()[: len(shown.splitlines())] == shown.splitlines()
