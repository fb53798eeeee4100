import os
import pickle
import signal

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from stages import signals_kept

from kfold_ens.jobs import Preempted
from kfold_ens.training.state import Checkpoints, StateFile


def state_at(step):
    return {"position": {"step": step}, "network": {"weight": torch.full((3,), float(step))}, "history": [{"epoch": 1}]}


def saved(folder, *steps, owner="mine"):
    file = StateFile(folder, owner)
    for step in steps:
        file.save(state_at(step))
    return file


def step_of(state):
    return state and state["position"]["step"]


def test_the_newest_state_is_loaded(tmp_path):
    assert saved(tmp_path / "state").load() is None
    state = saved(tmp_path / "state", 1, 2, 3).load()
    assert torch.equal(state["network"]["weight"], torch.full((3,), 3.0))
    assert (state["position"], state["history"]) == ({"step": 3}, [{"epoch": 1}])
    assert sorted(os.listdir(tmp_path / "state")) == ["previous.pt", "state.pt"]


def test_a_finished_fold_leaves_no_state(tmp_path):
    file = saved(tmp_path / "state", 1, 2)
    for _ in range(2):
        file.remove()
        assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_state_falls_back_to_the_one_before(kept, tmp_path, caplog):
    file = saved(tmp_path, 1, 2)
    newest = tmp_path / "state.pt"
    newest.write_bytes(newest.read_bytes()[: int(kept * newest.stat().st_size)])
    assert step_of(file.load()) == 1
    assert f"{newest} is damaged" in caplog.text
    (tmp_path / "previous.pt").write_bytes(b"")
    assert file.load() is None


@given(content=st.binary(max_size=80) | st.binary(max_size=80).map(b"\x80\x02".__add__))
@example(content=b"\x80\x02}q.")
@example(content=b"\x80\x02]q.")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_falls_back_to_the_state_before(content, tmp_path):
    file = saved(tmp_path, 1, 2)
    (tmp_path / "state.pt").write_bytes(content)
    assert step_of(file.load()) == 1


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_payload_in_a_state_does_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    (tmp_path / "state.pt").write_bytes(pickle.dumps({"fingerprint": "mine", "network": Payload()}))
    assert StateFile(tmp_path, "mine").load() is None
    assert os.listdir(tmp_path) == ["state.pt"]


def test_a_state_of_another_run_is_ignored(tmp_path, caplog):
    saved(tmp_path, 1, 2, owner="other")
    mine = saved(tmp_path, owner="mine")
    assert mine.load() is None
    assert f"{tmp_path / 'state.pt'} belongs to another recipe, split, data or weights" in caplog.text
    mine.save(state_at(7))
    assert step_of(mine.load()) == 7


def test_a_kill_between_two_renames_leaves_the_state_before(tmp_path, monkeypatch):
    """Killed after the newest state was renamed to the previous one, before the new state is in place."""
    file = saved(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr("kfold_ens.files.sync", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            file.save(state_at(2))
    assert os.listdir(tmp_path) == ["previous.pt"]
    assert step_of(file.load()) == 1


def test_a_full_disk_keeps_the_last_state(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    file = saved(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="No space left"):
            file.save(state_at(2))
    assert os.listdir(tmp_path) == ["state.pt"]
    assert step_of(file.load()) == 1


@pytest.mark.parametrize(("minutes", "newest"), [(60, None), (0, 2)])
def test_a_state_is_saved_when_it_is_time(minutes, newest, tmp_path):
    with signals_kept():
        checkpoints = Checkpoints(StateFile(tmp_path, "mine"), minutes)
        for step in range(3):
            checkpoints.after_step(lambda step=step: state_at(step))
    assert step_of(StateFile(tmp_path, "mine").load()) == newest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_and_ends_the_job_after_the_step(number, tmp_path):
    with signals_kept():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # in case the tests run under nohup
        checkpoints = Checkpoints(StateFile(tmp_path, "mine"), 60)
        checkpoints.after_step(lambda: state_at(1))
        os.kill(os.getpid(), number)
        assert StateFile(tmp_path, "mine").load() is None
        with pytest.raises(Preempted, match="the state is saved"):
            checkpoints.after_step(lambda: state_at(2))
    assert step_of(StateFile(tmp_path, "mine").load()) == 2


def test_under_nohup_a_closed_terminal_does_not_stop_a_job(tmp_path):
    with signals_kept():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        checkpoints = Checkpoints(StateFile(tmp_path, "mine"), 60)
        os.kill(os.getpid(), signal.SIGHUP)
        checkpoints.after_step(lambda: state_at(1))
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert StateFile(tmp_path, "mine").load() is None
