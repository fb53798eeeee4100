import multiprocessing
import os
import random
import signal
import stat
import time
from contextlib import ExitStack

import pytest
import torch
from leases import assert_never_shared_never_idle, logged_lease, read_log

from kfold_ens.compute import devices
from kfold_ens.compute.devices import autocast_dtype, lease, leased_devices
from kfold_ens.errors import KfoldError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
processes = multiprocessing.get_context("fork")


def use_in_turn(leases, names, held):
    for _ in range(25):
        with lease(names, leases) as [index]:
            (held / names[index]).touch(exist_ok=False)  # fails if another process holds the device
            time.sleep(0.002)
            (held / names[index]).unlink()


def test_two_processes_never_hold_one_device(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.001)
    users = [processes.Process(target=use_in_turn, args=(tmp_path / "leases", "ab", tmp_path)) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert [user.exitcode for user in users] == [0, 0, 0, 0]


def hold(leases, names, got):
    with lease(names, leases) as [index]:
        got.send(index)
        time.sleep(60)


def test_a_killed_job_frees_its_device(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.01)
    pipes = [processes.Pipe() for _ in range(3)]
    holders = [processes.Process(target=hold, args=(tmp_path, "ab", pipe[1]), daemon=True) for pipe in pipes]
    got = []
    for holder, (ours, _) in zip(holders[:2], pipes, strict=False):
        holder.start()
        got.append(ours.recv())
    holders[2].start()
    waiting = not pipes[2][0].poll(0.3)
    holders[1].kill()
    got.append(pipes[2][0].recv())
    for holder in holders:
        holder.kill()
    assert waiting
    assert got == [0, 1, 1]


def hold_with_a_worker(leases, got):
    """Like training: its loader workers are forks and can outlive it for a while."""
    with lease(["gpu"], leases):
        worker = os.fork()
        if worker == 0:
            time.sleep(60)
        got.send(worker)
        time.sleep(60)


def test_the_workers_of_a_killed_job_do_not_keep_its_device(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.01)
    ours, theirs = processes.Pipe()
    holder = processes.Process(target=hold_with_a_worker, args=(tmp_path, theirs), daemon=True)
    holder.start()
    worker = ours.recv()
    try:
        holder.kill()
        holder.join()
        ours, theirs = processes.Pipe()
        waiting = processes.Process(target=hold, args=(tmp_path, ["gpu"], theirs), daemon=True)
        waiting.start()
        assert ours.poll(10)
        waiting.kill()
    finally:
        os.kill(worker, signal.SIGKILL)


IDLE = 0.5  # seconds that a device may be free while a job waits: a poll, on a busy machine


def logged_job(leases, seconds):
    with logged_lease(leases):
        time.sleep(seconds)


def run_jobs(folder, chance, jobs, kills):
    """Run jobs, eight at a time, and kill some of them at random; return their log and the times of the kills."""
    to_kill, killed, running = set(chance.sample(range(jobs), kills)), {}, {}
    for number in range(jobs):
        while len(running) == 8:
            for process, until in list(running.items()):
                if time.monotonic() > until:
                    killed.setdefault(str(process.pid), time.monotonic())
                    process.kill()
                process.join(0.01)
                if not process.is_alive():
                    del running[process]
        process = processes.Process(target=logged_job, args=(folder, chance.uniform(0.5, 1.5)))
        process.start()
        running[process] = time.monotonic() + (chance.uniform(0, 2.5) if number in to_kill else 60)
    for process in running:
        process.join()
    return read_log(folder), killed


@pytest.mark.slow
def test_four_devices_are_never_shared_and_never_idle_while_a_job_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.01)
    log, killed = run_jobs(tmp_path, random.Random(0), jobs=80, kills=30)
    holders = [line[0] for line in log if line[1] == "has"]
    assert len(holders) >= 50
    assert sum(job in killed for job in holders) >= 5
    assert_never_shared_never_idle(log, killed, IDLE)


def held_at_once(folder, names, *wanted):
    """Devices that jobs with (count, slots) get and keep, one job after the other; None for a job that waits."""
    got = []
    with ExitStack() as jobs:
        for count, slots in wanted:
            held = jobs.enter_context(ExitStack())
            got.append(devices._hold_some(names, folder, count, slots, held) or held.close())
    return got


def test_jobs_with_gpu_shares_use_free_devices_first(tmp_path):
    shared = (1, 2)
    assert held_at_once(tmp_path, "ab", *[shared] * 5) == [[0], [1], [0], [1], None]


def test_exclusive_jobs_share_no_device(tmp_path):
    whole, shared = (1, 1), (1, 2)
    assert held_at_once(tmp_path, "ab", whole, shared, shared, shared, whole) == [[0], [1], [1], None, None]
    assert held_at_once(tmp_path, "ab", shared, whole, whole, shared) == [[0], [1], None, [0]]


def test_a_job_gets_all_its_devices_or_none(tmp_path, monkeypatch):
    assert held_at_once(tmp_path, "abc", (2, 1), (2, 1), (1, 1)) == [[0, 1], None, [2]]
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.001)
    users = [processes.Process(target=use_two_in_turn, args=(tmp_path / "leases",)) for _ in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join(60)
    assert [user.exitcode for user in users] == [0, 0, 0]


def use_two_in_turn(leases):
    """Without all-or-none, a job could hold one device and wait forever for another job's."""
    for _ in range(20):
        with lease("abc", leases, count=2) as indices:
            for index in indices:
                (leases / f"held{index}").touch(exist_ok=False)  # fails if another job holds it
            time.sleep(0.002)
            for index in indices:
                (leases / f"held{index}").unlink()


def test_too_many_devices_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_kind", lambda preference: "mps")
    with (
        pytest.raises(KfoldError, match=r"gpus_per_fold is 2, but only 1 can be used by this job \(device: mps\)"),
        leased_devices("mps", 2),
    ):
        pass
    with leased_devices("mps", 1) as [device]:
        assert device.type == "mps"


def test_released_locks_are_forgotten(tmp_path):
    with lease("ab", tmp_path, slots=2), lease("ab", tmp_path):
        assert not held_at_once(tmp_path, "ab", (2, 1))[0]
        before = len(devices._LOCKED)
        held_at_once(tmp_path, "ab", (1, 1), (2, 1), (1, 2))
        assert len(devices._LOCKED) == before


def test_a_lease_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), lease(["gpu"], tmp_path):
            raise ZeroDivisionError


def test_all_users_of_a_machine_share_its_leases(tmp_path):
    before = os.umask(0o077)
    try:
        with lease(["gpu"], tmp_path / "leases"):
            pass
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "leases", tmp_path / "leases" / "gpu.lock")]
    assert modes == [0o777, 0o644]


@pytest.mark.parametrize("visible", ["", " ", "-1", None])
@without_gpu
def test_without_a_gpu_a_job_uses_mps_or_the_cpu(visible, monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with leased_devices("auto", leases=tmp_path) as [device]:
        assert device.type == ("mps" if torch.backends.mps.is_available() else "cpu")


@pytest.mark.parametrize("visible", ["0", "7", "0,1", "GPU-5c8bd6f1"])
@pytest.mark.parametrize("preference", ["auto", "cuda"])
@without_gpu
def test_missing_visible_devices_are_refused(preference, visible, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with (
        pytest.raises(KfoldError, match=f"CUDA_VISIBLE_DEVICES={visible} names"),
        leased_devices(preference, leases=tmp_path),
    ):
        pass
    with leased_devices("cpu", leases=tmp_path) as [device]:
        assert device.type == "cpu"


@without_gpu
def test_cuda_without_a_gpu_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with (
        pytest.raises(KfoldError, match="device is cuda, but this machine has no cuda device"),
        leased_devices("cuda", leases=tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("precision", "dtypes"),
    [("fp32", {None}), ("bf16", {torch.bfloat16}), ("auto", {None, torch.bfloat16})],
)
def test_autocast_uses_the_configured_precision(precision, dtypes):
    assert autocast_dtype(torch.device("cpu"), precision) in dtypes


def test_gpu_utilization_is_the_mean_of_its_samples(monkeypatch):
    seen = iter([20, 40, RuntimeError("the driver does not say"), 90])

    def utilization(device):
        value = next(seen)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(torch.cuda, "utilization", utilization)
    monkeypatch.setattr(devices, "LOOK_SECONDS", 0)
    gpu = devices.Utilization(torch.device("cuda"))
    assert gpu.mean() is None
    for _ in range(3):
        gpu.look()
    assert gpu.mean() == 0.3
    monkeypatch.setattr(devices, "LOOK_SECONDS", 60)
    gpu.look()
    assert gpu.mean() is None
    cpu = devices.Utilization(torch.device("cpu"))
    cpu.look()
    assert cpu.mean() is None
