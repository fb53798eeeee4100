"""Measure on a GPU in three calls, each of at most 8 minutes.

    python benchmarks/gpu.py 1    # limits, steps, compiling, determinism, variants
    python benchmarks/gpu.py 2    # whole folds on four cores, prediction, equivalence, two folds at once
    python benchmarks/gpu.py 3 --data data/fashion-mnist    # Fashion-MNIST, five folds

Each part runs in its own process with a time limit, and writes one record: its results, or why it failed. If you repeat
a call, it skips the parts that have results. `--tiny` rehearses a call without a GPU.
benchmarks/README.md, "On a GPU machine", lists what the machine needs. benchmarks/tables.py fills the tables.
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
RECKONED_START = 15  # seconds, estimated, until the first part starts
GRACE = 15  # seconds: a fold saves its state between SIGTERM and SIGKILL
START_SECONDS = 90  # limit for imports and the start of the driver
LEAST = 20  # seconds below which resuming a fold achieves nothing


@dataclass(frozen=True)
class Part:
    """Estimated time of a part on an H100, and its time limit: seconds."""

    reckoned: int
    limit: int
    resumes: bool = False


FOLD = Part(48, 150, resumes=True)
PARTS: dict[int, dict[str, Part]] = {  # the most valuable first
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


# --- processes -----------------------------------------------------------------------------------------


def attempt(context: BaseContext, work: Callable[[], Any], limit: float) -> dict[str, Any]:
    """Run ``work`` in a process with a time limit in seconds. Return its ``result``, or an ``error``."""
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
        return {"error": f"stopped after {limit:.0f} s. {found['error']}"} if late and "error" in found else found
    finally:
        end_all(process)


def received(receiver: connection.Connection, process: multiprocessing.Process) -> dict[str, Any]:
    try:
        if receiver.poll():
            return receiver.recv()
    except EOFError:
        pass
    process.join(1)
    return {"error": f"The process returned no result (exit code {process.exitcode})."}


def end_all(process: multiprocessing.Process) -> None:
    """Kill the process of a part and all its children."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def answer(work: Callable[[], Any], sender: connection.Connection) -> None:
    """Send the ``result`` of ``work``, or its ``error``."""
    os.setsid()
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        sender.send({"result": work()})
    except BaseException as error:  # also Preempted, and SystemExit from a library
        sender.send({"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()})


def end_with_parent() -> None:
    """Kill this process group when the parent ends, so that a killed call leaves nothing running."""
    multiprocessing.parent_process().join()
    os.killpg(0, signal.SIGKILL)


def part_of_call(how: argparse.Namespace, name: str) -> Any:
    keep_freed_memory()  # on a CPU, as jobs do
    return importlib.import_module(f"call{how.call}").PARTS[name](how)


def machine(how: argparse.Namespace) -> dict[str, Any]:
    return importlib.import_module("workload").machine()


def started(how: argparse.Namespace) -> tuple[BaseContext, dict[str, Any]]:
    """Choose how processes start, and describe the machine as the first of them sees it.

    A fork server imports torch once, without initializing CUDA, and so saves each part the imports. If CUDA does not
    work in its children, each part starts a new Python.
    """
    for method in ("forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([f"call{how.call}"])
        found = attempt(context, partial(machine, how), START_SECONDS)
        if "result" in found:
            return context, found["result"] | {"processes": method}
        say(f"{method}: {found['error']}")
    sys.exit("Cannot start processes on this machine: see the errors above.")


# --- records ---------------------------------------------------------------------------------------------


def is_measured(how: argparse.Namespace, name: str) -> bool:
    file = how.records / f"{name}.json"
    if not file.is_file():
        return False
    record = read_json(file)
    return "result" in record and record["tiny"] == how.tiny


def keep(how: argparse.Namespace, name: str, record: dict[str, Any]) -> None:
    """Write the record of a part. With ``--pack``, also rewrite the archive of all records."""
    write_json(how.records / f"{name}.json", record)
    if how.pack:
        with atomic(how.pack) as temporary, tarfile.open(temporary, "w:gz") as archive:
            archive.add(how.records, how.records.name)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- a call ----------------------------------------------------------------------------------------------


def measure(how: argparse.Namespace) -> bool:
    """Measure parts without results while time is left. Return whether all parts have results."""
    ends = time.monotonic() + how.seconds
    context, found = started(how)
    if found["device"].startswith("CPU") and not how.tiny:
        sys.exit("No GPU found. Add --tiny to rehearse the call without one.")
    for name, part in PARTS[how.call].items():
        left = ends - time.monotonic() - GRACE
        if is_measured(how, name):
            say(f"{name}: skipped, has results")
        elif left < (LEAST if part.resumes else part.reckoned) and not how.tiny:
            say(f"{name}: postponed to the next call ({left:.0f} s left)")
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
    parser.add_argument("call", type=int, choices=list(PARTS), help="see above")
    parser.add_argument("--records", type=Path, default=HERE / "results" / "gpu", help="folder with one file per part")
    parser.add_argument("--pack", type=Path, help=".tar.gz of all records, rewritten after each part")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("/usr/share/datasets/fashion-mnist"),
        help="folder with four .gz files",
    )
    parser.add_argument("--state", type=Path, default=Path("state/gpu"), help="folder with the resume states of folds")
    parser.add_argument("--seconds", type=float, default=CALL_SECONDS, help="time limit of the call")
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
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # so asking for a GPU does not initialize CUDA in the fork server
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    sys.exit(0 if measure(how) else 1)


if __name__ == "__main__":
    main()
