"""What every rule's script does around its one call: a log, and errors that people can read."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kfold_ens.config import Scoring
from kfold_ens.errors import KfoldError

log = logging.getLogger("kfold_ens")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Ctrl-C, a scheduler, a cluster's warning, a closed terminal
ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
TERMINATED = 128 + signal.SIGTERM  # 143: what a shell reports of a process ended by SIGTERM


class Preempted(Exception):
    """The job was asked to end, and has saved what it needs to resume."""


@contextmanager
def job(log_file: str) -> Iterator[None]:
    """Log to a file and to the terminal; print a KfoldError as a message and exit with 1, a Preempted with 143."""
    from tqdm.contrib.logging import logging_redirect_tqdm  # here: benchmarks/gpu.py runs without tqdm

    _log_to(log_file)
    wait_briefly()
    with logging_redirect_tqdm([log]):
        try:
            yield
        except (KfoldError, OSError) as error:  # a full disk, a folder that cannot be written to, a file that is gone
            log.error("ERROR: %s", error)
            sys.exit(1)
        except Preempted as reason:
            log.warning("%s", reason)
            sys.exit(TERMINATED)
        except Exception:
            log.exception("This is a defect of kfold_ens; please report it with the lines below.")
            sys.exit(1)


def _log_to(log_file: str) -> None:
    log.setLevel(logging.INFO)
    log.propagate = False
    file = logging.FileHandler(log_file, mode="w", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [file, terminal]


def wait_briefly() -> None:
    """Let OpenMP's threads sleep after a short wait for each other, unless the user says how.

    Call it before torch loads. By default they spin for milliseconds: beside one busy process a step on two threads
    then takes three times as long. Threads that sleep at once (OMP_WAIT_POLICY=passive) cost a third of the speed.
    benchmarks/README.md has the table. Only GNU's OpenMP reads the variable: that of PyPI's torch on Linux.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_freed_memory() -> None:
    """Let glibc reuse memory that this process frees, rather than return it to the system.

    A step on a CPU frees and allocates all gradients, and the system clears each page that it gives. What that costs
    varies with the machine: benchmarks/README.md. Does nothing with C libraries other than glibc.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        if libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25):  # as much as old ones take
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def usable_threads(threads: int) -> int:
    """As many threads as the rule was given, but no more than there are processors for this job."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(threads, available))


def processes_at_once() -> int:
    """How many processes of this run compute at once on this machine, at most: as many as Snakemake may give a GPU.

    workflow/rules/machine.smk says so to jobs on one machine. Of other runs, and of a cluster's other jobs, nothing is
    known.
    """
    return int(os.environ.get("KFOLD_PROCESSES_AT_ONCE", 1))


def is_asked_for(rule: str) -> bool:
    """Whether the user asked to rerun this rule (-R, --force, --forceall): workflow/rules/machine.smk says so."""
    return rule in os.environ.get("KFOLD_ASKED_FOR", "").split()


def metrics_of_recipes() -> dict[str, Scoring]:
    """The metrics that recipes select, stop or step by, by recipe and key: workflow/rules/machine.smk says so.

    They are no params, as a change of a recipe must not list the images again.
    """
    texts = json.loads(os.environ.get("KFOLD_METRICS_OF_RECIPES", "{}"))
    return {key: Scoring.model_validate(values) for key, values in texts.items()}


def snakemake_report(
    snakefile: str, config: dict[str, Any], targets: list[str], path: str, options: Sequence[str] = ()
) -> None:
    """Write Snakemake's report of some finished targets, by a configuration; ``options`` are Snakemake's own.

    Raises:
        KfoldError: with Snakemake's own words, where it cannot.
    """
    import yaml

    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(config, file)
        file.flush()
        style = Path(snakefile).parent / "workflow" / "report" / "style.css"
        command = [
            *(sys.executable, "-m", "snakemake", *targets),
            "--snakefile",
            snakefile,
            "--configfile",
            file.name,
            "--report",
            path,
            "--report-stylesheet",
            str(style),
            *options,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise KfoldError(f"the report could not be made:\n{done.stdout}")
