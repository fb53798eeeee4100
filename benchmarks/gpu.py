"""Measure on a GPU in three calls. Each ends within 8 minutes, and can be repeated.

    python benchmarks/gpu.py 1    # limits, steps, compiling, determinism, variants
    python benchmarks/gpu.py 2    # whole folds on four cores, prediction, equivalence, two folds at once
    python benchmarks/gpu.py 3 --data data/fashion-mnist    # Fashion-MNIST, five folds

Each part runs in a process of its own that is ended at a time limit, and leaves one record: its results, or why it
failed. A repeated call skips the parts that have results. `--tiny` rehearses a call without a GPU.
benchmarks/README.md, "On a GPU machine", says what to carry. benchmarks/tables.py fills the tables from the records.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shlex
import signal
import sys
import tarfile
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from multiprocessing import connection
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

from kfold_ens.files import atomic, read_json, write_json
from kfold_ens.jobs import keep_freed_memory, wait_briefly

HERE = Path(__file__).resolve().parent
CALL_SECONDS = 480
RECKONED_START = 15  # seconds until the first part begins
GRACE = 15  # seconds: a fold saves its state between SIGTERM and SIGKILL
START_SECONDS = 90  # of imports and of the driver, at most
LEAST = 20  # seconds in which a fold that resumes gets anywhere


@dataclass(frozen=True)
class Part:
    """What a part takes on an H100 as reckoned, and after how long it is ended: seconds."""

    reckoned: int
    limit: int
    resumes: bool = False


FOLD = Part(48, 150, resumes=True)
PARTS: dict[int, dict[str, Part]] = {  # in order of value
    1: {
        "limits": Part(5, 40),
        "steps": Part(45, 120),
        "compiled": Part(100, 210),
        "determinism": Part(15, 60),
        "kernels": Part(10, 60),
        "grouped": Part(20, 60),
        "convolutions": Part(15, 60),
        "out_of_memory": Part(8, 40),
        "batches": Part(15, 60),
        "cuda_graphs": Part(50, 150),
        "tests": Part(20, 90),
    },
    2: {
        "whole": Part(30, 90),
        "whole_compiled": Part(95, 200),
        "prediction": Part(22, 70),
        "loader_memory": Part(10, 40),
        "equivalence": Part(42, 120),
        "two_folds": Part(30, 90),
        "equivalence_compiled": Part(75, 180),
    },
    3: {
        **{f"mixed_fold{number}": FOLD for number in range(5)},
        "mixed_ensembles": Part(5, 40),
        **{f"unmixed_fold{number}": FOLD for number in range(5)},
        "unmixed_ensembles": Part(5, 40),
        "mixed_to_unmixed": Part(5, 40),
    },
}


# --- a process per part ----------------------------------------------------------------------------------


def attempt(context: BaseContext, work: Callable[[], Any], limit: float) -> dict[str, Any]:
    """What ``work`` returns, or why it did not: ``result`` or ``error``."""
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=answer, args=(work, sender))
    process.start()
    sender.close()
    try:
        connection.wait([receiver, process.sentinel], limit)
        late = not receiver.poll() and process.is_alive()
        if late:
            process.terminate()
            connection.wait([receiver, process.sentinel], GRACE)
        found = received(receiver, process)
        return {"error": f"ended after {limit:.0f} s. {found['error']}"} if late and "error" in found else found
    finally:
        end_all(process)


def received(receiver: connection.Connection, process: multiprocessing.Process) -> dict[str, Any]:
    try:
        if receiver.poll():
            return receiver.recv()
    except EOFError:
        pass
    process.join(1)
    return {"error": f"The process said nothing; its exit code is {process.exitcode}."}


def end_all(process: multiprocessing.Process) -> None:
    """End a part's process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def answer(work: Callable[[], Any], sender: connection.Connection) -> None:
    """Send what ``work`` returns, or why it does not."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        sender.send({"result": work()})
    except BaseException as error:  # Preempted, and what a library exits with, too
        sender.send({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def end_with_parent() -> None:
    """A call that is killed leaves nothing running."""
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def part_of_call(how: argparse.Namespace, name: str) -> Any:
    keep_freed_memory()  # as jobs do on a CPU
    return importlib.import_module(f"call{how.call}").PARTS[name](how)


def machine(how: argparse.Namespace) -> dict[str, Any]:
    return importlib.import_module("workload").machine()


def started(how: argparse.Namespace) -> tuple[BaseContext, dict[str, Any]]:
    """How processes start, and the machine as the first of them sees it.

    A server that has imported torch once, and has not touched CUDA, saves each part the imports. If CUDA does not work
    in its children, each part starts anew.
    """
    for method in ("forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([f"call{how.call}"])
        found = attempt(context, partial(machine, how), START_SECONDS)
        if "result" in found:
            return context, found["result"] | {"processes": method}
        say(f"{method}: {found['error']}")
    sys.exit("No process starts here; the reasons are above.")


# --- records ---------------------------------------------------------------------------------------------


def is_measured(how: argparse.Namespace, name: str) -> bool:
    file = how.records / f"{name}.json"
    if not file.is_file():
        return False
    record = read_json(file)
    return "result" in record and record["tiny"] == how.tiny


def keep(how: argparse.Namespace, name: str, record: dict[str, Any]) -> None:
    """Write a part's record, and all records as one archive: some machines bring back few files."""
    write_json(how.records / f"{name}.json", record)
    if how.pack:
        with atomic(how.pack) as temporary, tarfile.open(temporary, "w:gz") as archive:
            archive.add(how.records, how.records.name)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- a call ----------------------------------------------------------------------------------------------


def measure(how: argparse.Namespace) -> bool:
    """Measure the parts that have no results yet, while time is left; whether all have results now."""
    ends = time.monotonic() + how.seconds
    context, found = started(how)
    if found["device"].startswith("CPU") and not how.tiny:
        sys.exit("There is no GPU here. Add --tiny to rehearse the call.")
    for name, part in PARTS[how.call].items():
        left = ends - time.monotonic() - GRACE
        if is_measured(how, name):
            say(f"{name}: has results")
        elif left < (LEAST if part.resumes else part.reckoned) and not how.tiny:
            say(f"{name}: left to the next call, as {left:.0f} s are left")
        else:
            measure_part(how, name, min(part.limit, left), context, found)
    return all(is_measured(how, name) for name in PARTS[how.call])


def measure_part(
    how: argparse.Namespace, name: str, limit: float, context: BaseContext, machine: dict[str, Any]
) -> None:
    began = time.monotonic()
    found = attempt(context, partial(part_of_call, how, name), limit)
    took = round(time.monotonic() - began, 1)
    head = {"part": name, "call": how.call, "tiny": how.tiny, "command": how.command}
    head |= {"date": datetime.now().isoformat(timespec="minutes"), "seconds": took, **machine}
    keep(how, name, head | found)
    say(f"{name}: {found.get('error', 'measured')} ({took} s)")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("call", type=int, choices=list(PARTS))
    parser.add_argument("--records", type=Path, default=HERE / "results" / "gpu", help="a folder: a file per part")
    parser.add_argument("--pack", type=Path, help="a .tar.gz of all records, written anew after each part")
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="four .gz files")
    parser.add_argument("--state", type=Path, default=Path("state/gpu"), help="where folds keep what they resume from")
    parser.add_argument("--seconds", type=float, default=CALL_SECONDS, help="after which the call has ended")
    parser.add_argument("--tiny", action="store_true", help="rehearse on tiny images, without compiling")
    how = parser.parse_args()
    how.command = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    return how


def main() -> None:
    how = options()
    how.records.mkdir(parents=True, exist_ok=True)
    how.state.mkdir(parents=True, exist_ok=True)
    wait_briefly()
    if how.tiny:
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # so asking for a GPU does not begin CUDA in the server
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    sys.exit(0 if measure(how) else 1)


if __name__ == "__main__":
    main()
