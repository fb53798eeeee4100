import logging
import os
import platform
import subprocess
import sys

import pytest
from conftest import log_restored

from kfold_ens.errors import KfoldError
from kfold_ens.jobs import HAS_PICTURE, ROUTINE, Preempted, job, usable_threads


@pytest.fixture(autouse=True)
def _log_as_before():
    with log_restored():
        yield


@pytest.mark.parametrize(
    ("error", "code", "message", "traceback"),
    [
        (KfoldError("fold 3: lower the rate"), 1, "ERROR: fold 3: lower the rate", False),
        (Preempted("the state is saved"), 143, "the state is saved", False),
        (ZeroDivisionError("by nought"), 1, "please report it", True),
    ],
)
def test_an_error_ends_the_job_with_its_message_and_code(error, code, message, traceback, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended, job(str(tmp_path / "job.log")):
        raise error
    assert ended.value.code == code
    for text in (capsys.readouterr().err, (tmp_path / "job.log").read_text(encoding="utf-8")):
        assert message in text
        assert ("Traceback" in text) == ("ZeroDivisionError: by nought" in text) == traceback


def test_a_message_may_name_a_file_that_is_not_utf8(tmp_path, capfd):
    with pytest.raises(SystemExit), job(str(tmp_path / "job.log")):
        raise KfoldError("no image a\udcffb.png, ü")
    assert "ERROR: no image a\\udcffb.png, ü" in (tmp_path / "job.log").read_text(encoding="utf-8")
    assert "Traceback" not in capfd.readouterr().err


def test_a_job_logs_every_module_to_its_own_file_and_the_terminal(tmp_path, capsys):
    for number in range(2):
        with job(str(tmp_path / f"{number}.log")):
            logging.getLogger("kfold_ens.training.fold").info("fold %d", number)
    assert capsys.readouterr().err.splitlines() == ["fold 0", "fold 1"]
    assert [(tmp_path / f"{number}.log").read_text().split()[-1] for number in range(2)] == ["0", "1"]


def test_under_a_picture_of_the_run_routine_lines_go_to_the_file_only(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv(HAS_PICTURE, "yes")
    with job(str(tmp_path / "job.log")):
        logging.getLogger("kfold_ens.training.record").info("epoch 1", extra=ROUTINE)
        logging.getLogger("kfold_ens.data.manifest").warning("doubtful")
    assert capsys.readouterr().err.splitlines() == ["doubtful"]
    assert "epoch 1" in (tmp_path / "job.log").read_text()


def test_a_job_uses_no_more_threads_than_it_has_processors():
    processors = len(os.sched_getaffinity(0))
    assert [usable_threads(threads) for threads in (0, 1, 10**6)] == [1, 1, processors]


WAITS = """
import os, sys
from kfold_ens.jobs import job
with job(sys.argv[1]):
    assert "torch" not in sys.modules  # OpenMP reads this once, when torch loads it
    print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("of_the_user", "waits"),
    [({}, "None 1000"), ({"OMP_WAIT_POLICY": "active"}, "active None"), ({"GOMP_SPINCOUNT": "9"}, "None 9")],
)
def test_idle_threads_of_a_job_soon_sleep_unless_the_user_sets_a_policy(of_the_user, waits, tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    command = [sys.executable, "-c", WAITS, str(tmp_path / "job.log")]
    done = subprocess.run(command, env=environment | of_the_user, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == waits


FREES = """
import resource, sys
from kfold_ens.jobs import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
def step():
    gradients = [b"x" * 2**22 for _ in range(20)]
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_freed_by_a_step_is_reused_by_the_next():
    """Each new page from the system is a page fault: thousands for 80 MB."""
    faults = [
        int(subprocess.run([sys.executable, "-c", FREES, how], capture_output=True, text=True, check=True).stdout)
        for how in ("returned", "kept")
    ]
    assert faults[1] * 10 < faults[0]
