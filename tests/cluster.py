"""A Kubernetes cluster and an S3 storage, as far as one process can play them: on loopback, without a machine.

Snakemake's executor plugin and its Kubernetes client are the real ones. Of the API there is what they call; a job is
refused where Kubernetes would refuse it for its GPUs. A pod is a process of this machine, in an empty folder.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import Request, urlopen

from conftest import write_yaml
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's server, with nothing in it; yields its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()  # the servers of a process share their content
    try:
        yield address
    finally:
        server.stop()


@dataclass
class Cluster:
    """What was asked of the cluster, and how its pods fare; where they are ``played``, they run below ``folder``."""

    folder: Path
    played: bool
    jobs: list[dict] = field(default_factory=list)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    pods: dict[str, subprocess.Popen] = field(default_factory=dict)

    def create_secret(self, secret: dict) -> dict:
        self.secrets[secret["metadata"]["name"]] = secret["data"]
        return secret

    def create_job(self, job: dict) -> dict:
        self.jobs.append(job)
        if self.played:
            self.pods[job["metadata"]["name"]] = self._start(job["metadata"]["name"], container_of(job))
        return job

    def _start(self, name: str, container: dict) -> subprocess.Popen:
        workdir = self.folder / name / "workdir"
        workdir.mkdir(parents=True)
        for mount in container["volumeMounts"][1:]:
            volume = self.folder / "volumes" / mount["name"]
            volume.mkdir(parents=True, exist_ok=True)
            (workdir / Path(mount["mountPath"]).relative_to(container["workingDir"])).symlink_to(volume)
        with open(self.folder / name / "log", "wb") as log:
            command = [*container["command"], *container["args"]]
            where = {"cwd": workdir, "env": self._environment(container), "start_new_session": True}
            return subprocess.Popen(command, stdout=log, stderr=log, **where)

    def _environment(self, container: dict) -> dict[str, str]:
        """This Python and its packages are those of the image; pip, which has nothing to install, is none."""
        pip = self.folder / "bin" / "pip"
        pip.parent.mkdir(exist_ok=True)
        pip.write_text("#!/bin/sh\n")
        pip.chmod(0o755)
        kept = {name: os.environ[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
        path = f"{pip.parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
        return kept | {"PATH": path, "HOME": str(self.folder)} | self._secret_environment(container)

    def _secret_environment(self, container: dict) -> dict[str, str]:
        keys = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"]}
        return {name: base64.b64decode(self.secrets[key["name"]][key["key"]]).decode() for name, key in keys.items()}

    def of_rule(self, rule: str) -> list[str]:
        """The names of the jobs that run a rule, in their order."""
        return [job["metadata"]["name"] for job in self.jobs if rule_of(job) == rule]

    def log_of(self, name: str) -> str:
        return (self.folder / name / "log").read_text()

    def kill(self, name: str) -> None:
        """As where its machine is taken away."""
        os.killpg(self.pods[name].pid, signal.SIGKILL)

    def end(self) -> None:
        for name, pod in self.pods.items():
            if pod.poll() is None:
                self.kill(name)

    def status(self, name: str) -> dict:
        """Pods that are not played fail at once."""
        ended = self.pods[name].poll() if self.played else 1
        return {} if ended is None else {"failed": 1} if ended else {"succeeded": 1}


def container_of(job: dict) -> dict:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def rule_of(job: dict) -> str:
    return re.search(r"--allowed-rules (\w+)", container_of(job)["args"][1])[1]


def refusal_of(job: dict) -> str | None:
    """What Kubernetes says of a job that it does not take: a GPU that is asked for is to be its limit, too."""
    asked, limits = (container_of(job)["resources"].get(each) or {} for each in ("requests", "limits"))
    extended = [name for name in asked if "/" in name]
    wrong = [name for name in extended if limits.get(name) != asked[name]]
    return "Limit must be set for non overcommitable resources" if wrong else None


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("/secrets"):
                self._answer(201, cluster.create_secret(body))
            elif refusal := refusal_of(body):
                self._answer(422, {"kind": "Status", "status": "Failure", "message": refusal})
            else:
                self._answer(201, cluster.create_job(body))

        def do_GET(self) -> None:
            if "/pods" in self.path:
                self._answer(200, {"kind": "PodList", "items": []})
            else:
                self._answer(200, {"kind": "Job", "status": cluster.status(self.path.split("/")[-2])})

        def do_DELETE(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(200, {"kind": "Status", "status": "Success"})

        def _answer(self, code: int, value: dict) -> None:
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@contextmanager
def kubernetes_api(folder: Path, played: bool) -> Iterator[Cluster]:
    """The cluster's API on loopback, and a kubeconfig that leads there: ``folder / "kubeconfig"``."""
    cluster = Cluster(folder, played)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cluster))
    Thread(target=server.serve_forever, daemon=True).start()
    _write_kubeconfig(folder / "kubeconfig", "http://{}:{}".format(*server.server_address))
    try:
        yield cluster
    finally:
        server.shutdown()
        cluster.end()


def _write_kubeconfig(path: Path, address: str) -> None:
    write_yaml(
        path,
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "users": [{"name": "me", "user": {}}],
        },
    )
