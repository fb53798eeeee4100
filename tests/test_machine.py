"""Folds share the machine they are on: its GPUs, its processors and its memory."""

from __future__ import annotations

import os
import platform
import re
import sys
import types
from itertools import accumulate
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY_RECIPE
from hypothesis import given
from hypothesis import strategies as st
from projects import RECIPE, Project, new_project

from kfold_ens import machine
from kfold_ens.config import Recipe, TorchvisionBackbone, load_recipe
from kfold_ens.machine import (
    GB,
    Gpus,
    Machine,
    Plan,
    count_gpus,
    estimated_memory,
    fold_memory,
    measured_memory,
    plan_folds,
)

# --- GPUs ------------------------------------------------------------------------------------------------

UUIDS = ["GPU-1a11", "GPU-1b22", "GPU-2c33", "GPU-3d44"]
PYNVML = """
class NVMLError(Exception): pass
class NVMLError_LibraryNotFound(NVMLError): pass
class NVMLError_DriverNotLoaded(NVMLError): pass
class NVMLError_NotSupported(NVMLError): pass
class NVMLError_Unknown(NVMLError): pass

UUIDS, IN_MIG_MODE, FAILS = {uuids}, {mig}, {fails!r}

def nvmlInit():
    if FAILS:
        raise globals()[FAILS]("Unknown Error")

def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return len(UUIDS)
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetUUID(handle): return UUIDS[handle]

def nvmlDeviceGetMigMode(handle):
    if IN_MIG_MODE is None:
        raise NVMLError_NotSupported
    return [int(handle in IN_MIG_MODE), 0]
"""


def faked_nvml(uuids=UUIDS, mig=None, fails=None):
    return PYNVML.format(uuids=uuids, mig=mig, fails=fails)


@pytest.fixture
def driver(monkeypatch):
    """Replace the driver of this process by a fake."""

    def meet(**faked):
        module = types.ModuleType("pynvml")
        exec(faked_nvml(**faked), module.__dict__)
        monkeypatch.setitem(sys.modules, "pynvml", module)

    monkeypatch.setattr(sys, "platform", "linux")
    return meet


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("0,1,2,3", 4),
        ("2", 1),
        (" 3 , 0 ", 2),
        ("GPU-1b22,GPU-3", 2),
        ("GPU-2c33,0", 2),
        ("0,7,1", 1),  # the list ends at the first invalid entry
        ("0,-1,1", 1),
        ("GPU-1,3", 0),  # the beginning of two
        ("0,0", 0),
        ("", 0),
        ("-1", 0),
        ("NoDevFiles", 0),
    ],
)
def test_gpus_are_counted_as_cuda_visible_devices_allows(driver, visible, count):
    driver()
    gpus = count_gpus("auto", visible)
    assert (gpus.count, gpus.warning) == (count, "")
    assert gpus.name == {0: "no GPU", 1: "1 GPU"}.get(count, f"{count} GPUs")


@pytest.mark.parametrize("fails", ["NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"])
def test_a_machine_without_a_driver_has_no_gpu_and_no_warning(driver, fails):
    driver(fails=fails)
    assert count_gpus("auto", None) == Gpus(0, "no GPU")


def test_gpus_that_are_not_nvidias_are_one_until_the_user_says_how_many(driver, monkeypatch, tmp_path):
    driver(fails="NVMLError_LibraryNotFound")
    monkeypatch.setattr(machine, "OTHER_GPUS", tmp_path)
    gpus = count_gpus("auto", None)
    assert (gpus.count, "not NVIDIA's; 1 is assumed" in gpus.warning) == (1, True)


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_a_broken_driver_whose_gpus_are_hidden_leaves_none(driver, visible):
    driver(fails="NVMLError_Unknown")
    assert count_gpus("auto", visible) == Gpus(0, "no GPU")


def test_with_a_broken_driver_one_gpu_is_assumed_with_a_warning(driver):
    driver(fails="NVMLError_Unknown")
    gpus = count_gpus("auto", None)
    assert gpus.count == 1
    assert gpus.warning.startswith("the driver cannot count the GPUs (NVML: Unknown Error); 1 is assumed")
    assert "--resources gpu=N" in planned(8, gpus).sentence


@pytest.mark.parametrize(
    ("mig", "visible", "assumed"),
    [
        ([1], None, True),
        ([1], "1", True),
        ([1], "0,2", False),
        ([], None, False),
        ([1], "MIG-5d2a", True),
    ],
)
def test_in_mig_mode_one_gpu_is_assumed_with_a_warning(driver, mig, visible, assumed):
    driver(mig=mig)
    gpus = count_gpus("auto", visible)
    assert (gpus.count == 1, "MIG" in gpus.warning) == (assumed, assumed)


@pytest.mark.parametrize(
    ("preference", "gpus"),
    [
        ("auto", Gpus(4, "4 GPUs")),
        ("cuda", Gpus(4, "4 GPUs")),
        ("cpu", Gpus(0, "device: cpu")),
        ("mps", Gpus(0, "no GPU")),
    ],
)
def test_the_configured_device_decides_what_is_counted(driver, preference, gpus):
    driver()
    assert count_gpus(preference, None) == gpus


@pytest.mark.parametrize(("preference", "count"), [("auto", 1), ("mps", 1), ("cpu", 0), ("cuda", 0)])
def test_apple_silicon_has_one_gpu(driver, monkeypatch, preference, count):
    driver(fails="NVMLError_LibraryNotFound")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert count_gpus(preference, None).count == count


# --- plans -----------------------------------------------------------------------------------------------

NONE, FOUR = Gpus(0, "no GPU"), Gpus(4, "4 GPUs")


def planned(
    cores: int,
    gpus: Gpus = NONE,
    memory: float = 1000 * GB,
    folds: int = 5,
    fold_memory: float = 3.5 * GB,
    **options: int | None,
) -> Plan:
    return plan_folds(Machine(gpus, cores, cores, memory), folds, fold_memory, **options)


@pytest.mark.parametrize(
    ("cores", "options", "expected"),
    [
        (4, {}, (4, 4, 1)),
        (8, {}, (4, 4, 2)),
        (16, {}, (4, 4, 4)),
        (64, {}, (4, 4, 4)),
        (16, {"gpu_slots": 2}, (8, 8, 2)),
        (16, {"gpus_per_fold": 2}, (4, 2, 8)),
        (8, {"gpus_per_fold": 2}, (4, 2, 4)),
        (8, {"gpus_per_fold": 8}, (8, 1, 8)),  # jobs then say that there are too few
        (2, {}, (4, 2, 1)),
    ],
)
def test_all_gpus_train_whatever_the_cores(cores, options, expected):
    plan = planned(cores, FOUR, **options)
    assert (plan.gpu, plan.at_once, plan.threads) == expected


@pytest.mark.parametrize(
    ("cores", "memory", "at_once", "threads"),
    [
        (1, 1000, 1, 1),
        (2, 1000, 2, 1),
        (2, 6, 1, 2),
        (4, 1000, 3, 1),
        (4, 8, 2, 2),
        (8, 1000, 5, 1),
        (8, 15, 3, 2),
        (32, 1000, 5, 6),
        (32, 8, 2, 16),
        (32, 2, 1, 32),
    ],
)
def test_without_a_gpu_folds_share_processors_and_memory(cores, memory, at_once, threads):
    plan = planned(cores, memory=memory * GB)
    assert (plan.gpu, plan.at_once, plan.threads) == (at_once, at_once, threads)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        (planned(8, FOUR), "4 GPUs: up to 4 folds at once, 2 threads each"),
        (planned(2, FOUR), "4 GPUs, --cores 2: up to 2 folds at once, 1 thread each"),
        (planned(2), "no GPU: 2 folds at once, 1 thread each"),
        (planned(1), "no GPU: 1 fold at once, 1 thread"),
        (planned(2, memory=6 * GB), "no GPU, 6.0 GB of memory, 3.5 GB per fold: 1 fold at once, 2 threads"),
        (planned(8, FOUR, given=2), "--resources gpu=2: up to 2 folds at once, 4 threads each"),
    ],
)
def test_a_plan_says_how_many_folds_train_at_once_and_why(plan, sentence):
    assert plan.sentence == sentence


def test_resources_on_the_command_line_decide():
    assert planned(8, FOUR, given=2).at_once == 2
    plan = planned(32, given=4)
    assert (plan.at_once, plan.threads) == (4, 8)
    assert planned(4, FOUR, given=3, gpu_slots=2).gpu == 6


def test_without_a_gpu_each_process_of_a_fold_has_a_thread():
    plan = planned(4, gpus_per_fold=2)
    assert (plan.gpu, plan.at_once, plan.threads) == (4, 2, 2)


def test_more_cores_than_processors_start_no_more_folds():
    plan = plan_folds(Machine(NONE, 32, 2, 1000 * GB), 5, GB)
    assert (plan.at_once, plan.threads) == (2, 1)


@given(
    cores=st.integers(1, 256),
    processors=st.integers(1, 256),
    memory=st.floats(-1, 500),
    fold_memory=st.floats(0.1, 50),
    folds=st.integers(2, 100),
    gpus=st.integers(0, 16),
    options=st.fixed_dictionaries({"gpus_per_fold": st.integers(1, 8), "given": st.none() | st.integers(0, 40)}),
)
def test_no_plan_exceeds_the_machine(cores, processors, memory, fold_memory, folds, gpus, options):
    plan = plan_folds(Machine(Gpus(gpus, ""), cores, processors, memory), folds, fold_memory, **options)
    assert plan.at_once >= 1
    assert plan.threads >= 1
    assert plan.at_once * plan.threads <= cores
    assert plan.gpu >= plan.at_once * options["gpus_per_fold"]
    if not gpus and options["given"] is None and plan.at_once > 1:
        assert plan.at_once * options["gpus_per_fold"] * fold_memory <= memory
        assert plan.at_once * plan.threads <= processors


# --- memory ----------------------------------------------------------------------------------------------


def test_the_estimated_memory_of_the_default_recipe_is_slightly_above_the_measured():
    digits = load_recipe(REPOSITORY / "recipes/digits.yaml", REPOSITORY / "recipes")
    assert 2.75 * GB <= estimated_memory(digits) <= 4 * GB


def test_larger_networks_batches_and_images_have_larger_estimates():
    def estimate(size=16, **values):
        image = TINY_RECIPE["image"] | {"size": size, "short_side": size}
        return estimated_memory(Recipe.model_validate(TINY_RECIPE | {"image": image} | values))

    crop = {"kind": "random_resized_crop", "size": 224}
    assert estimate() < estimate(batch_size=256) < estimate(224, batch_size=256)
    assert estimate(augmentation=[crop]) == estimate(224)
    assert estimate() < estimate(backbone=TINY_RECIPE["backbone"] | {"name": "resnet50"})


def test_a_network_of_unknown_size_trains_alone_until_a_fold_was_measured(tmp_path):
    timm = {"kind": "timm", "name": "vit_large_patch16_224", "weights": "none"}
    recipe = Recipe.model_validate(TINY_RECIPE | {"backbone": timm})
    plan = planned(8, fold_memory=fold_memory(recipe, tmp_path))
    assert (plan.at_once, "an unknown part per fold" in plan.sentence) == (1, True)
    (tmp_path / "fold0").mkdir()
    (tmp_path / "fold0/history.csv").write_text('epoch,peak_memory_mb,device\n1,3000,"CPU, 8 threads"\n')
    assert planned(8, fold_memory=fold_memory(recipe, tmp_path)).at_once == 5


def test_the_memory_of_every_torchvision_backbone_is_known():
    names = TorchvisionBackbone.model_fields["name"].annotation.__args__
    assert set(names) == set(machine.BACKBONES)


def test_measured_memory_above_the_estimate_counts(tmp_path):
    header = "epoch,peak_memory_mb,device\n"
    for fold, rows in enumerate(['1,1000,"CPU, 2 threads"\n2,3000,"CPU, 2 threads"\n', "1,9000,NVIDIA H100\n", ""]):
        (tmp_path / f"fold{fold}").mkdir()
        (tmp_path / f"fold{fold}/history.csv").write_text(header + rows)
    (tmp_path / "fold3").mkdir()
    (tmp_path / "fold3/history.csv").write_text("half of a")
    assert measured_memory(tmp_path) == pytest.approx(1.1 * 3000 * 2**20)
    assert measured_memory(tmp_path / "nothing") == 0


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        ("0::/", {"memory.max": "8000"}, [8000]),
        ("0::/user/job", {"memory.max": "max", "user/memory.max": "9000"}, [9000]),
        ("4:memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "7000"}, [7000]),
        ("0::/", {}, []),
    ],
)
def test_a_control_groups_limit_is_the_machines_memory(tmp_path, groups, files, limits):
    (tmp_path / "groups").write_text(f"{groups}\n")
    for name, text in files.items():
        (tmp_path / "mounted" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mounted" / name).write_text(f"{text}\n")
    assert list(machine._group_limits(tmp_path / "groups", tmp_path / "mounted")) == limits


# --- Snakemake itself ------------------------------------------------------------------------------------

MAKE_EMPTY_FILES = """
from pathlib import Path

for file in map(Path, snakemake.output):
    file.touch() if file.suffix else file.mkdir(exist_ok=True)
"""
WAIT_FOR_OTHERS = """
import os
import time

log, others = Path("trainings"), int(os.environ["FOLDS_AT_ONCE"])
write = lambda line: log.open("a").write(f"{line} {snakemake.threads}\\n")
write("+1")
until = time.monotonic() + 30
while log.read_text().count("+1") < others and time.monotonic() < until:
    time.sleep(0.05)
time.sleep(1)  # so that one too many would be seen
write("-1")
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose jobs write empty files; trainings wait for each other."""
    project = new_project(tmp_path, RECIPE, data={"source": "digits"}, num_folds=5, device="auto")
    for script in ("manifest", "folds", "pixels", "train"):
        text = MAKE_EMPTY_FILES + (WAIT_FOR_OTHERS if script == "train" else "")
        (tmp_path / f"workflow/scripts/{script}.py").write_text(text)
    return project


def run(project: Project, *arguments: str, at_once: int = 1, processors: int = 8, **faked: str) -> str:
    """What Snakemake prints on a machine with a faked driver and so many processors."""
    folder = project.folder / "faked"
    folder.mkdir(exist_ok=True)
    (folder / "pynvml.py").write_text(faked_nvml(**faked))
    (folder / "sitecustomize.py").write_text(f"import os\nos.sched_getaffinity = lambda _: set(range({processors}))\n")
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {"PYTHONPATH": paths, "FOLDS_AT_ONCE": str(at_once)}
    folds = [f"train_fold{fold}" for fold in range(5)]
    with project.started(*arguments, "--", *folds, env=environment) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    return output


def trainings(project: Project) -> tuple[int, set[str]]:
    """How many ran at once, at most, and how many threads they had."""
    lines = [line.split() for line in (project.folder / "trainings").read_text().splitlines()]
    return max(accumulate(int(change) for change, _ in lines)), {threads for _, threads in lines}


def test_four_gpus_train_four_folds_at_once_without_options(project):
    assert "4 GPUs: up to 4 folds at once" in run(project, "--cores", "8", "--dry-run")
    output = run(project, "--cores", "8", at_once=4)
    assert output.count("4 GPUs: up to 4 folds at once, 2 threads each") == 1
    assert re.search(r'gpu=(4\b|Resource\("gpu", 4\))', output), output
    assert trainings(project) == (4, {"2"})
    assert "at once" not in run(project, "--cores", "8")  # as nothing is trained any more


def test_without_a_gpu_two_cores_train_two_folds_at_once(project):
    project.configure(device="cpu")
    run(project, "--cores", "2", at_once=2)
    assert trainings(project) == (2, {"1"})


@pytest.mark.parametrize(
    ("cores", "sentence"),
    [
        (4, "no GPU: 3 folds at once, 1 thread each"),
        (8, "no GPU: 5 folds at once, 1 thread each"),
        (32, "no GPU: 5 folds at once, 6 threads each"),
    ],
)
def test_without_a_gpu_a_dry_run_says_how_folds_share_the_cores(project, cores, sentence):
    options = ["--cores", str(cores), "--dry-run"]
    assert sentence in run(project, *options, processors=cores, fails="NVMLError_LibraryNotFound")


def test_on_a_cluster_the_machine_that_snakemake_runs_on_is_not_planned(project):
    options = ["--workflow-profile", "profiles/slurm", "--dry-run"]
    assert "at once" not in run(project, *options)
    project.configure(gpu_slots=2)
    with pytest.raises(AssertionError, match="gpu_slots must be 1 on a cluster"):
        run(project, *options)
