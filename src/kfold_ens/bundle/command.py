"""``kfold-predict``: predict any images with an ensemble, without the workflow. Imports torch only to predict."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from kfold_ens.errors import KfoldError
from kfold_ens.jobs import ASKING_TO_END, wait_briefly

UNREADABLE, REFUSED = 3, 2  # exit codes
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parse = argparse.ArgumentParser(prog="kfold-predict", description="Predict images with an ensemble file.")
    add = parse.add_argument
    add("ensemble", metavar="ENSEMBLE", help="the ensemble.safetensors of a run")
    add("images", nargs="+", metavar="IMAGES", help="images, folders, CSVs of paths, or patterns in quotes")
    add("--out", required=True, type=Path, help="the CSV to write")
    add("--probabilities", action="store_true", help="add a column per class")
    add("--top-k", type=count, default=1, metavar="K", help="add the likeliest labels up to the K-th")
    add("--min-probability", type=_probability, metavar="P", help="add a column that marks rows below P as unsure")
    add("--folds", nargs="+", metavar="N", help="use only the models of these folds; write it after IMAGES")
    add("--no-tta", action="store_true", help="use the evaluation view alone")
    add("--errors", choices=["omit", "column"], default="omit", help="unreadable files: no row, or one with the reason")
    add("--batch-size", type=count, metavar="N", help="images per batch; default: that of training")
    add("--device", choices=["auto", "cuda", "mps", "cpu"], default="auto")
    add("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    add("--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="default: all processors")
    add("--resume", action="store_true", help="continue an interrupted prediction")
    add("--force", action="store_true", help="replace an existing file")
    return parse


def count(text: str) -> int:
    """Parse an option that must be a positive integer."""
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0 (got {text!r})")
    return int(text)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1 (got {text!r})")
    return value


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict. Exit with 0, with 3 if some files cannot be read, or with 2 if the input was refused."""
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115 (it is None after 2>&-)
    options = parser().parse_args(arguments)
    log_to_terminal()
    wait_briefly()
    with _ended_at_once():
        failed = _predict(options)
        if failed:
            what = "file cannot be read and has" if len(failed) == 1 else "files cannot be read and have"
            lines = "\n".join(f"  {name}: {reason}" for name, reason in failed.items())
            end(f"{len(failed)} {what} no prediction:\n{lines}", UNREADABLE)


def _predict(options: argparse.Namespace) -> dict[str, str]:
    """Predict; return the reasons for unreadable files, by name."""
    try:
        from kfold_ens.bundle.run import predict_files

        return predict_files(options)
    except KfoldError as error:
        end(f"ERROR: {error}", REFUSED)
    except OSError as error:
        kept = ". The rows so far are kept: free some disk space, then run the same command with --resume"
        end(f"ERROR: --out: {error}{kept if error.errno in NO_ROOM else ''}", REFUSED)


@contextmanager
def _ended_at_once() -> Iterator[None]:
    """Let signals end the process at once, without waiting for decoding threads: all known rows are already written.

    Ignored signals stay ignored (nohup ignores SIGHUP). SIGPIPE ends the process, as with ``| head``.
    """
    answers = dict.fromkeys(ASKING_TO_END, _interrupted) | {signal.SIGPIPE: signal.SIG_DFL}
    before = {name: signal.getsignal(name) for name in answers}
    for name, answer in answers.items():
        if before[name] is not signal.SIG_IGN or name == signal.SIGPIPE:  # Python ignores SIGPIPE by default
            signal.signal(name, answer)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _interrupted(number: int, _: object) -> None:
    with suppress(OSError):  # not print, which the signal may have interrupted
        os.write(2, b"\nInterrupted. To continue, run the same command with --resume.\n")
    os._exit(128 + number)


def end(message: str, code: int) -> NoReturn:
    """Print a message to stderr and exit."""
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)


def log_to_terminal() -> None:
    """Show the package's log lines in the terminal."""
    log = logging.getLogger("kfold_ens")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.StreamHandler(sys.stderr)]


if __name__ == "__main__":
    main()
