"""Snakemake as ``python -m snakemake`` runs it, but forked from a process that has imported it and all of its plugins.

Those of the tests' environment, Kubernetes' client among them, take longer to import than a dry run takes.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile


def run_snakemake(folder: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, in this process's environment; all that it and its jobs print is its output."""
    server = _server()
    with NamedTemporaryFile("w+", errors="replace") as output:
        request = {"folder": str(folder), "arguments": arguments, "environment": dict(os.environ)}
        print(json.dumps(request | {"output": output.name}), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, output.read())


@cache
def _server() -> subprocess.Popen[str]:
    """It ends with this process, which alone writes to it."""
    server = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.communicate)  # closes its input, and waits for it
    return server


def _serve() -> None:
    from snakemake.cli import get_argument_parser, main

    import kfold_ens.machine  # noqa: F401 (the Snakefile imports it)

    get_argument_parser()  # which imports the plugins
    for line in sys.stdin:
        process = os.fork()
        if not process:
            _become(**json.loads(line))
            main()
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def _become(folder: str, arguments: list[str], environment: dict[str, str], output: str) -> None:
    """What a new process is given."""
    for path, mode, number in ((os.devnull, os.O_RDONLY, 0), (output, os.O_WRONLY | os.O_APPEND, 1)):
        opened = os.open(path, mode)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv, sys.path[0] = ["snakemake", *arguments], folder


if __name__ == "__main__":
    _serve()
