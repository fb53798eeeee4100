"""A Slurm of two nodes on this machine: its own munge, controller and daemons, below a folder, on loopback.

Each node has two GPUs, declared on device files that any machine has; Slurm hands them out as it would real ones. The
second node takes no jobs until it is resumed. With accounting, a database and its daemon are started too.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
# A job that is queued again waits for so many seconds (120).
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MinJobAge=86400
ReturnToService=1
MpiDefault=none
# No cgroups: a test machine may be a container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Jobs over their memory are ended, and urgent ones take the place of others; none is queued again unless it asks to.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=0
SchedulerParameters=sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=16 RealMemory=64000 Gres=gpu:2
NodeName=first NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=second NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} State=DRAIN
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF State=UP
{accounting}
"""
GRES_CONF = """
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
"""
ACCOUNTING = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
AccountingStorageEnforce=associations
"""
SLURMDBD_CONF = """
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[1]}
StorageUser=slurm
StoragePass=slurm
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
        done = subprocess.run(arguments, env=self.environment, text=True, capture_output=True, timeout=120)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def answers(self, *arguments: str) -> bool:
        """Whether one of Slurm's commands finds the daemon that it speaks to."""
        with suppress(subprocess.TimeoutExpired):
            return subprocess.run(arguments, env=self.environment, capture_output=True, timeout=20).returncode == 0
        return False

    def jobs(self) -> list[dict[str, str]]:
        """All jobs so far, as Slurm has them."""
        names = {
            "id": "i",
            "rule": "k",
            "state": "T",
            "memory": "m",
            "minutes": "l",
            "start": "S",
            "end": "e",
            "node": "N",
        }
        form = "|".join(f"%{letter}" for letter in names.values())
        lines = self.command("squeue", "--states=all", "--noheader", "--sort=i", f"--format={form}").splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]

    def jobs_of(self, rule: str) -> list[dict[str, str]]:
        return [job for job in self.jobs() if job["rule"] == f"rule_{rule}"]

    def set_node(self, name: str, state: str) -> None:
        self.command("scontrol", "update", f"nodename={name}", f"state={state}", "reason=test")

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


def start_slurm(folder: Path, cleanup: ExitStack, accounting: bool = False) -> Slurm:
    """Start munge, the controller and the nodes' daemons; ``cleanup`` ends them.

    The folder's path must be short: a job's socket lies below it, and sockets have 108 characters.
    """
    folder.chmod(0o755)  # munge refuses a socket in a folder that others cannot enter
    slurm, ports = Slurm(folder), _free_ports(5)
    _configure(slurm, ports, accounting)
    munge = [f"--{name}={folder / f'munge.{name}'}" for name in ("socket", "log-file", "pid-file", "seed-file")]
    _start(slurm, cleanup, "munge.pid-file", "munged", "--force", f"--key-file={folder / 'munge.key'}", *munge)
    if accounting:
        _start_database(slurm, cleanup, ports[4])
        _start(slurm, cleanup, "slurmdbd.pid", "slurmdbd")
        until(lambda: slurm.answers("sacctmgr", "--readonly", "show", "cluster"), slurm, 30)
    _start(slurm, cleanup, "slurmctld.pid", "slurmctld")
    for name in ("first", "second"):
        _start(slurm, cleanup, f"slurmd-{name}.pid", "slurmd", "-N", name)
    until(lambda: slurm.answers("sinfo") and "idle" in slurm.command("sinfo", "--noheader", "--format=%T"), slurm, 30)
    return slurm


def _configure(slurm: Slurm, ports: list[int], accounting: bool) -> None:
    folder = slurm.folder
    for name in ("state", "bin"):
        (folder / name).mkdir()
    host = platform.node().split(".")[0]
    database = ACCOUNTING.format(folder=folder, port=ports[3]) if accounting else ""
    _write(folder / "munge.key", os.urandom(128), 0o400)
    _write(folder / "slurm.conf", SLURM_CONF.format(folder=folder, host=host, ports=ports, accounting=database))
    _write(folder / "gres.conf", GRES_CONF)
    _write(folder / "slurmdbd.conf", SLURMDBD_CONF.format(folder=folder, ports=ports[3:]), 0o600)
    _write(folder / "bin/srun", SRUN.format(folder=folder, srun=shutil.which("srun")), 0o755)


def _write(path: Path, content: str | bytes, mode: int = 0o644) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _start_database(slurm: Slurm, cleanup: ExitStack, port: int) -> None:
    """A MariaDB on loopback, with the user that Slurm's accounting comes as."""
    folder = slurm.folder
    data, reach = f"--datadir={folder / 'database'}", f"--socket={folder / 'database.socket'}"
    slurm.command("mariadb-install-db", "--no-defaults", data, "--user=root", "--skip-test-db")
    options = ["--user=root", "--bind-address=127.0.0.1", f"--port={port}", f"--log-error={folder / 'database.log'}"]
    database = subprocess.Popen(["mariadbd", "--no-defaults", data, reach, *options])
    cleanup.callback(database.wait)
    cleanup.callback(database.terminate)
    until((folder / "database.socket").exists, slurm, 30)
    user = "CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON *.* TO slurm@localhost"
    slurm.command("mariadb", "--no-defaults", reach, "--execute", user)


def _start(slurm: Slurm, cleanup: ExitStack, pid_file: str, *command: str) -> None:
    """Start a daemon, which goes on by itself once it can be spoken to."""
    cleanup.callback(_end, slurm.folder / pid_file)
    slurm.command(*command)


def until(condition: Callable[[], object], slurm: Slurm, seconds: float = 120) -> None:
    """Wait for something that a Slurm is to bring about."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, slurm.logs()
        time.sleep(0.1)


def _end(pid_file: Path) -> None:
    with suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
