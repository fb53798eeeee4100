"""The frame of every rule's script: logging, errors as messages, and settings of threads and memory."""

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
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from kfold_ens.config import Scoring
from kfold_ens.errors import KfoldError

log = logging.getLogger("kfold_ens")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
# From Ctrl-C, schedulers, clusters (as a warning), and closed terminals.
ASKING_TO_END = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
ROUTINE = {"is_routine": True}  # marks lines that a picture of the run replaces on the terminal
HAS_PICTURE = "KFOLD_HAS_PICTURE"  # set in jobs of a run that shows one
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM  # 143, the exit code that shells report for SIGTERM


class Preempted(Exception):
    """The job was asked to end and has saved its resume state."""


@contextmanager
def job(log_file: str) -> Iterator[None]:
    """Log to a file and the terminal. Print a KfoldError as a message and exit with 1; exit with 143 if preempted."""
    from tqdm.contrib.logging import logging_redirect_tqdm  # here: benchmarks/gpu.py runs without tqdm

    _log_to(log_file)
    wait_briefly()
    with nullcontext() if HAS_PICTURE in os.environ else logging_redirect_tqdm([log]):  # a picture has no bars
        try:
            yield
        except (KfoldError, OSError) as error:  # OSError: a full disk, a read-only folder, a deleted file
            log.error("ERROR: %s", error)
            sys.exit(1)
        except Preempted as reason:
            log.warning("%s", reason)
            sys.exit(TERMINATED)
        except KeyboardInterrupt:  # before training handles signals
            log.warning("interrupted")
            sys.exit(INTERRUPTED)
        except Exception:
            log.exception("This is a bug in kfold_ens; please report it with the lines below.")
            sys.exit(1)


def _log_to(log_file: str) -> None:
    log.setLevel(logging.INFO)
    log.propagate = False
    file = logging.FileHandler(log_file, mode="w", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter("%(message)s"))
    if HAS_PICTURE in os.environ:
        terminal.addFilter(lambda record: not hasattr(record, "is_routine"))
    log.handlers = [file, terminal]


def wait_briefly() -> None:
    """Let idle OpenMP threads sleep after a short wait, unless OMP_WAIT_POLICY is set.

    Call it before importing torch. By default idle threads spin for milliseconds; with one other busy process, a step
    on two threads then takes three times as long. Sleeping at once (OMP_WAIT_POLICY=passive) costs a third of the
    speed. benchmarks/README.md has the table. Only GNU OpenMP reads the variable; PyPI's torch for Linux uses it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def keep_freed_memory() -> None:
    """Let glibc reuse freed memory instead of returning it to the system.

    A training step on a CPU frees and allocates all gradients, and the system clears each new page. The cost depends on
    the machine: see benchmarks/README.md. With other C libraries than glibc, this does nothing.
    """
    with suppress(AttributeError, OSError, TypeError):
        libc = ctypes.CDLL(None)
        if libc.mallopt(M_MMAP_THRESHOLD, 2**30) or libc.mallopt(M_MMAP_THRESHOLD, 2**25):  # the limit of old versions
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def usable_threads(threads: int) -> int:
    """Return the rule's number of threads, limited to the processors of this job."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(threads, available))


def processes_at_once() -> int:
    """Return how many processes of this run may compute at once on this machine.

    workflow/rules/machine.smk sets it for jobs on one machine. It does not count other runs or other jobs of a cluster.
    """
    return int(os.environ.get("KFOLD_PROCESSES_AT_ONCE", 1))


def is_asked_for(rule: str) -> bool:
    """Whether the user asked to rerun this rule (-R, --force, --forceall), as set by workflow/rules/machine.smk."""
    return rule in os.environ.get("KFOLD_ASKED_FOR", "").split()


def metrics_of_recipes() -> dict[str, Scoring]:
    """Return the metrics that recipes use to select, stop or step, by recipe and key.

    workflow/rules/machine.smk sets them as an environment variable and not as params, since a changed recipe must not
    rerun the listing of images.
    """
    texts = json.loads(os.environ.get("KFOLD_METRICS_OF_RECIPES", "{}"))
    return {key: Scoring.model_validate(values) for key, values in texts.items()}


def snakemake_report(
    snakefile: str, config: dict[str, Any], targets: list[str], path: str, style: str, options: Sequence[str] = ()
) -> None:
    """Write Snakemake's report on finished targets for a configuration.

    ``style`` is the text of a style sheet; ``options`` go to Snakemake.

    Raises:
        KfoldError: if Snakemake fails; it holds Snakemake's output.
    """
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        configuration, sheet = Path(folder, "config.yaml"), Path(folder, "style.css")
        configuration.write_text(yaml.safe_dump(config), encoding="utf-8")
        sheet.write_text(style, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "snakemake", *targets),
            "--snakefile",
            snakefile,
            "--configfile",
            str(configuration),
            "--report",
            path,
            "--report-stylesheet",
            str(sheet),
            *options,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise KfoldError(f"Snakemake could not write the report {path}:\n{done.stdout}")
