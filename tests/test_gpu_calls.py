"""The three calls for a GPU machine, rehearsed at a tiny size on the CPU; what they measure here means nothing."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import time
import uuid
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from kfold_ens.config import find_recipe, load_recipe

BENCHMARKS = REPOSITORY / "benchmarks"
sys.path.append(str(BENCHMARKS))  # its scripts import each other by their names

import gpu  # noqa: E402

CARRIED = ["torch", "torchvision", "numpy", "pandas", "scikit-learn", "pillow", "matplotlib", "safetensors", "pydantic"]
BLOCKING = """
import json
from importlib.machinery import PathFinder

BLOCKED = set(json.loads({blocked!r}))
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *more, **keys: None if name.split(".")[0] in BLOCKED else find(name, *more, **keys)
"""


# --- a machine that has few packages, and the data ---------------------------------------------------------


def with_what_it_needs(packages: list[str]) -> set[str]:
    """The names of these packages and of all that they need."""
    found, open_ = set(), list(packages)
    while open_:
        name = re.sub(r"[-_.]+", "-", open_.pop().lower())
        if name not in found:
            found.add(name)
            open_ += needs(name)
    return found


def needs(package: str) -> list[str]:
    try:
        required = metadata.requires(package) or []
    except metadata.PackageNotFoundError:  # of another platform
        return []
    return [re.match(r"[\w.-]+", line)[0] for line in required if "extra ==" not in line]


def missing_modules() -> list[str]:
    """What is installed here, and not there."""
    there = with_what_it_needs(CARRIED) | {"kfold-ens"}
    return [
        module
        for module, packages in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", each.lower()) for each in packages} & there
    ]


def write_fashion(folder: Path) -> Path:
    """Images in the files of Fashion-MNIST: 60 to train on and 20 to test, a shade per class."""
    folder.mkdir()
    for name, count in {"train": 60, "t10k": 20}.items():
        labels = np.arange(count, dtype=np.uint8) % 10
        noise = np.random.default_rng(0).integers(25, size=(count, 28, 28), dtype=np.uint8)
        for kind, values in {"labels-idx1": labels, "images-idx3": 25 * labels[:, None, None] + noise}.items():
            header = struct.pack(f">4B{values.ndim}i", 0, 0, 8, values.ndim, *values.shape)
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes()))
    return folder


class Rehearsal:
    """A call in a folder, on a machine that lacks packages."""

    def __init__(self, call: int, folder: Path) -> None:
        self.call, self.folder, self.records = call, folder, folder / "records"
        self.mark = uuid.uuid4().hex
        (folder / "sitecustomize.py").write_text(BLOCKING.format(blocked=json.dumps(missing_modules())))

    def start(self) -> subprocess.Popen:
        arguments = ["--tiny", "--records", "records", "--state", "state", "--data", "data", "--pack", "all.tar.gz"]
        path = os.pathsep.join([str(self.folder), str(REPOSITORY / "src")])
        environment = os.environ | {"PYTHONPATH": path, "MARK": self.mark}
        command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "gpu.py"), str(self.call), *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=environment, stderr=subprocess.PIPE, text=True)

    def kept(self) -> dict[str, bytes]:
        return {file.stem: file.read_bytes() for file in self.records.glob("*.json")}

    def running(self) -> list[str]:
        """The processes of this rehearsal."""
        marked = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes():
                    marked.append(process.name)
            except OSError:
                continue
        return marked


def until(condition, seconds: float = 180) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.fixture(scope="module", params=gpu.PARTS)
def called(request, tmp_path_factory):
    """A call in a folder, and what was kept when it was killed; of calls 1 and 2, which are not, nothing."""
    rehearsal = Rehearsal(request.param, tmp_path_factory.mktemp("call"))
    write_fashion(rehearsal.folder / "data")
    before = killed(rehearsal) if rehearsal.call == 3 else {}
    process = rehearsal.start()
    said = process.communicate()[1]
    assert process.returncode == 0, said[-3000:]
    return rehearsal, before


def killed(rehearsal: Rehearsal) -> dict[str, bytes]:
    """What is kept when a call is killed after two parts."""
    process = rehearsal.start()
    until(lambda: len(rehearsal.kept()) >= 2 or process.poll() is not None)
    process.kill()
    process.communicate()
    until(lambda: not rehearsal.running())  # nor does any part go on
    return rehearsal.kept()


@pytest.mark.slow
def test_a_call_measures_each_part_without_what_a_gpu_machine_lacks(called):
    rehearsal, _ = called
    records = {name: json.loads(content) for name, content in rehearsal.kept().items()}
    assert records.keys() == gpu.PARTS[rehearsal.call].keys()
    for name, record in records.items():
        assert record["result"], name
        assert record["tiny"]
        assert {"device", "date", "command", "versions", "seconds"} <= record.keys()


@pytest.mark.slow
def test_a_call_that_is_killed_and_repeated_measures_nothing_twice(called):
    rehearsal, before = called
    if rehearsal.call == 3:
        assert 2 <= len(before) < len(gpu.PARTS[3])
    assert before.items() <= rehearsal.kept().items()


@pytest.mark.slow
def test_all_records_come_back_as_one_file(called):
    rehearsal, _ = called
    with tarfile.open(rehearsal.folder / "all.tar.gz") as archive:
        names = {Path(name).name for name in archive.getnames()}
    assert {file.name for file in rehearsal.records.iterdir()} <= names


@pytest.mark.slow
def test_every_table_can_be_made_of_a_calls_records(called):
    import tables

    rehearsal, _ = called
    records = {name: json.loads(content) for name, content in rehearsal.kept().items()}
    for record in records.values():
        only_on_a_gpu(record["result"])
    made = [make(records) for make in tables.TABLES.values()]
    commands = [line for each in made for line in each.splitlines() if f"benchmarks/gpu.py {rehearsal.call}" in line]
    assert len(commands) >= len(records)


def only_on_a_gpu(result) -> None:
    """Numbers that a CPU does not give."""
    if "images/s" in result and "first step, s" in result:
        result["peak memory, GiB"] = dict.fromkeys(result["images/s"], 1.0)
    for each in (result, result.get("kernels, compiled", {})) if isinstance(result, dict) else ():
        if "largest" in each:
            each["share of the time without a kernel"] = 0.1


# --- a process per part ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (partial(time.sleep, 60), "stopped after 2 s"),
        (partial(os._exit, 9), "exit code 9"),
        (partial(int, "x"), "ValueError: invalid literal"),
    ],
)
def test_a_part_that_hangs_dies_or_fails_says_why(work, error):
    found = gpu.attempt(get_context("spawn"), work, 2 if work.func is time.sleep else 60)
    assert error in found["error"]


def test_a_part_that_failed_is_tried_again(tmp_path):
    how = gpu.argparse.Namespace(records=tmp_path, pack=None, tiny=True)
    gpu.keep(how, "steps", {"tiny": True, "error": "out of memory"})
    assert not gpu.is_measured(how, "steps")
    gpu.keep(how, "steps", {"tiny": True, "result": {}})
    assert gpu.is_measured(how, "steps")


def test_each_call_is_reckoned_to_leave_a_third_of_its_time():
    mixed = [name for name in gpu.PARTS[3] if name.startswith("mixed_f") or name == "mixed_ensembles"]
    for parts in (gpu.PARTS[1], gpu.PARTS[2], {name: gpu.PARTS[3][name] for name in mixed}):
        assert gpu.RECKONED_START + sum(part.reckoned for part in parts.values()) <= gpu.CALL_SECONDS * 2 / 3


# --- what is measured ------------------------------------------------------------------------------------


def test_time_without_a_kernel_is_what_no_kernel_of_any_stream_covers():
    from throughput import of_trace

    spans = [("a", 0, 6), ("b", 2, 2), ("a", 8, 2)]  # the second runs during the first; none runs from 6 to 8
    events = [{"cat": "kernel", "name": name, "ts": start, "dur": length} for name, start, length in spans]
    found = of_trace([*events, {"cat": "gpu_user_annotation", "name": "step", "ts": 0, "dur": 10}, {"ph": "M"}])
    assert found["share of the time without a kernel"] == pytest.approx(0.2)
    assert found["largest"] == [{"what": "a", "share": 0.8}, {"what": "b", "share": 0.2}]


def test_merged_groups_convolve_as_the_groups_do():
    import torch
    from call1 import MergedConv2d

    convolution = torch.nn.Conv2d(16, 32, 3, padding=1, groups=8)
    images = torch.rand(2, 16, 5, 5)
    expected = convolution(images)
    convolution.__class__ = MergedConv2d
    torch.testing.assert_close(convolution(images), expected)


@pytest.mark.parametrize(("name", "values"), [("kfold_mix", "KFOLD_MIX"), ("digits", "DIGITS")])
def test_the_recipes_are_those_of_the_workflow(name, values):
    """Without PyYAML they cannot be read from the recipes' files."""
    import workload

    from kfold_ens.config import Recipe

    expected = load_recipe(find_recipe(name, REPOSITORY / "recipes"), REPOSITORY / "recipes").model_dump()
    own = Recipe.model_validate(getattr(workload, values)).model_dump()
    own["backbone"]["weights"] = expected["backbone"]["weights"]
    changed = {key for key in own if own[key] != expected[key]}
    assert changed <= {"kfold_mix": {"schedule"}, "digits": {"epochs"}}[name]
