"""What a run of Snakemake shows: on a terminal a picture that stays in place, elsewhere a line per job.

A logger plugin would show the same, but Snakemake refuses a profile whose plugin is not installed, each profile would
have to name it, and plugins get records late, through a queue: the scores would be printed into the picture.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfold_ens.jobs import INTERRUPTED, TERMINATED
from kfold_ens.members import place_of
from kfold_ens.picture import Cells, Job, Run, clock, lines

if TYPE_CHECKING:
    from kfold_ens.terminal import Picture

Record = Any  # a logging.LogRecord to which Snakemake has added an event's attributes

WITHOUT_NEWS = ("job_started", "group_info", "shellcmd", "workflow_started")
ROUTINE = ("Assuming unrestricted shared", "Using shell: ", "Conda environments: ignored", "Select jobs to execute")
STOPS = ("Terminating processes on user request", "Will exit after finishing")  # Ctrl-C; SIGTERM
IS_EXPECTED = re.compile(rf"CalledProcessError.*exit status ({INTERRUPTED}|{TERMINATED})", re.DOTALL)
BEGINS_ERROR = re.compile(r"(?:ERROR: |This is a bug in kfold_ens)")
TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", re.MULTILINE)  # of lines in a job's log file
LAST_LINES = 10


def show_run(logger: logging.Logger, settings: Any) -> None:
    """Put a RunLog in place of Snakemake's own handler, unless users asked for another output or less of it.

    ``settings`` are Snakemake's OutputSettings.
    """
    own: Any = next((handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"), None)
    quiet = {str(each) for each in settings.quiet or ()} - {"rules", "host", "reason"}
    if (
        own
        and own.stream
        and not (quiet or settings.dryrun or settings.verbose or settings.debug_dag or settings.printshellcmds)
    ):
        logger.removeHandler(own)
        logger.addHandler(RunLog(own))


class RunLog(logging.Handler):
    """Shows Snakemake's records. Those that it does not know go to Snakemake's own handler."""

    def __init__(self, own: Any) -> None:
        super().__init__()
        self._own, self._run = own, Run(time.time())
        self._picture: Picture | None = None
        terminal = own.stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._has_terminal = terminal and sys.platform != "win32"

    def emit(self, record: logging.LogRecord) -> None:
        event = str(getattr(record, "event", None))
        try:
            if seen := getattr(self, f"_{event}", None):
                seen(record)
            elif event not in WITHOUT_NEWS:
                self._other(record)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Remove the picture, then say what failed and what to do: Snakemake calls this last."""
        self._end_picture()
        if words := outcome(self._run):
            with suppress(OSError):  # the terminal was closed
                self._say(words)
        self._run = Run(time.time())
        self._own.close()
        super().close()

    def _other(self, record: Record) -> None:
        message = str(record.msg)
        if not is_noise(message, self._run.stopping):
            self._own.handle(record)
        self._run.stopping |= message.startswith(STOPS)

    # --- Snakemake's events -------------------------------------------------------------------------------

    def _run_info(self, record: Record) -> None:
        self._run.plan(record.stats)
        self._resources_info(record)

    def _resources_info(self, record: Record) -> None:
        if not self._has_terminal:
            self._own.handle(record)

    def _job_info(self, record: Record) -> None:
        job = job_of(record, time.time())
        self._run.start(record.jobid, job)
        self._show_picture()
        if record.rule_msg:
            self._say(record.rule_msg)
        if job.place and not self._is_seen():
            self._say(f"{time.strftime('%H:%M:%S')} {job.rule} starts")

    def _job_finished(self, record: Record) -> None:
        job, run = self._run.finish(record.job_id), self._run
        if job and not self._is_seen():
            took = clock(time.time() - job.since)
            self._say(f"{time.strftime('%H:%M:%S')} {job.rule} is done after {took}: {len(run.done)} of {run.total}")

    def _job_error(self, record: Record) -> None:
        if job := self._run.fail(record.jobid):
            self._say(f"{time.strftime('%H:%M:%S')} {job.rule} failed{f': {job.log}' if job.log else ''}")

    def _progress(self, record: Record) -> None:
        self._run.total = record.total
        if record.done == record.total:
            self._end_picture()  # before the Snakefile prints the scores

    # --- the terminal -------------------------------------------------------------------------------------

    def _say(self, words: str) -> None:
        print(words, file=self._own.stream, flush=True)

    def _is_seen(self) -> bool:
        """Whether the picture shows what plain lines would say. Not in a run that a shell has put in the background."""
        return self._picture is not None and self._picture.is_in_front()

    def _show_picture(self) -> None:
        if self._has_terminal and self._picture is None:
            from kfold_ens.progress import live_row  # here: pandas loads slowly
            from kfold_ens.terminal import Picture

            def cells(job: Job) -> Cells:
                return live_row(Path(), *job.place, job.since) if job.place else {}

            def draw(width: int) -> list[str]:
                return lines(self._run, width, time.time(), cells)

            self._picture = Picture(draw, colours=not self._own.nocolor)
            self._picture.start()

    def _end_picture(self) -> None:
        picture, self._picture = self._picture, None
        if picture:
            picture.end()


def job_of(record: Record, now: float) -> Job:
    """Return the job that Snakemake's record describes. Only jobs that train have a place."""
    # not by the rule's name, which may have a prefix
    models = [file for file in record.output or () if Path(file).name == "model.safetensors"]
    place = place_of(models[0]) if models else None
    return Job(record.rule_name, now, record.log[0] if record.log else None, place)


def is_noise(message: str, stopping: bool) -> bool:
    """Whether a message tells users nothing: routine, repeated while a run stops, or a stopped job's exit code."""
    is_repeated = stopping and message.startswith(STOPS)
    return is_repeated or message.startswith(ROUTINE) or (stopping and bool(IS_EXPECTED.search(message)))


def outcome(run: Run) -> str:
    """Say what failed, with the errors, and what to do next. Empty if all jobs are done."""
    if not (run.failed or run.stopping) or len(run.done) == run.total:
        return ""
    errors = [f"{job.rule} failed:\n{error_in(job.log)}" for job in run.failed.values()]
    next_step = (
        f"{len(run.done)} of {run.total} steps are done.\n"
        f"{'Once this is fixed, the' if errors else 'The'} same command runs the rest, "
        "and resumes each fold from its last saved step."
    )
    return "\n" + "\n\n".join([*errors, next_step])


def error_in(log: str | None) -> str:
    """Return a job's error message from its log file; without one, its last lines."""
    if log is None:
        return "It has no log. The lines above may say why."
    try:
        text = TIME.sub("", Path(log).read_text(encoding="utf-8", errors="replace")).rstrip()
    except OSError:
        text = ""
    if not text:
        return f"Its log is empty, or not on this machine: {log}. The lines above may say why."
    found = list(BEGINS_ERROR.finditer(text))
    error = text[found[-1].start() :] if found else "\n".join(text.splitlines()[-LAST_LINES:])
    return f"{error}\nThe whole log: {log}"
