"""A Slurm of one node on this machine: its own munge, controller and daemon, below a folder, on loopback.

Two GPUs are declared on device files that any machine has; Slurm hands them out as it would real ones.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

NODE = platform.node().split(".")[0]
SLURM_CONF = """
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MinJobAge=86400
ReturnToService=1
MpiDefault=none
# No cgroups: a test machine may be a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Without accounting, but jobs over their memory are ended.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GRES_CONF = """
NodeName={node} Name=gpu File=/dev/null
NodeName={node} Name=gpu File=/dev/zero
"""
# The plugin takes SLURM_CONF from its nested srun, as on a real cluster the file lies where Debian looks for it.
SRUN = """#!/bin/sh
SLURM_CONF={folder}/slurm.conf exec {srun} "$@"
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm, in a folder."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which Slurm's commands speak to this one."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return os.environ | {"PATH": path, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def command(self, *arguments: str) -> str:
        """What one of Slurm's commands prints."""
        done = subprocess.run(arguments, env=self.environment, text=True, capture_output=True)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs so far, as Slurm has them: id, rule, state, memory, start and end."""
        lines = self.command("squeue", "--states=all", "--noheader", "--sort=i", "--format=%i|%k|%T|%m|%S|%e").split()
        return [
            dict(zip(("id", "rule", "state", "memory", "start", "end"), line.split("|"), strict=True)) for line in lines
        ]

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        return [job for job in self.jobs() if job["rule"] == f"rule_{rule}"]

    def set_node(self, state: str) -> None:
        self.command("scontrol", "update", f"nodename={NODE}", f"state={state}", "reason=test")

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


def start_slurm(folder: Path, cleanup: ExitStack) -> Slurm:
    """Start munge, the controller and a node's daemon; ``cleanup`` ends them."""
    folder.chmod(0o755)  # munge refuses a socket in a folder that others cannot enter
    slurm = Slurm(folder)
    _configure(slurm)
    key = folder / "munge.key"
    paths = {name: folder / f"munge.{name}" for name in ("socket", "log-file", "pid-file", "seed-file")}
    options = [f"--{name}={path}" for name, path in paths.items()]
    for command in (["munged", "--force", f"--key-file={key}", *options], ["slurmctld"], ["slurmd"]):
        pid_file = paths["pid-file"] if command[0] == "munged" else folder / f"{command[0]}.pid"
        cleanup.callback(_end, pid_file)
        slurm.command(*command)
    _wait_for_node(slurm)
    return slurm


def _configure(slurm: Slurm) -> None:
    folder = slurm.folder
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(SLURM_CONF.format(folder=folder, node=NODE, ports=_free_ports()))
    (folder / "gres.conf").write_text(GRES_CONF.format(node=NODE))
    (folder / "bin/srun").write_text(SRUN.format(folder=folder, srun=shutil.which("srun")))
    (folder / "bin/srun").chmod(0o755)


def _free_ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait_for_node(slurm: Slurm) -> None:
    until, states = time.monotonic() + 30, ["sinfo", "--noheader", "--format=%T"]
    while b"idle" not in subprocess.run(states, env=slurm.environment, capture_output=True).stdout:
        assert time.monotonic() < until, slurm.logs()
        time.sleep(0.2)


def _end(pid_file: Path) -> None:
    with suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
