import pytest
import torch

from kfold_ens.config import load_config
from kfold_ens.errors import KfoldError
from kfold_ens.training.evaluation import leased_compute


@pytest.fixture(autouse=True)
def settings_kept():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def compute(deterministic):
    run = load_config({"data": {"source": "digits"}, "device": "cpu", "deterministic": deterministic})
    return leased_compute(run, threads=torch.get_num_threads())


def draw_with_atomics():
    """Something that has no deterministic implementation on a CPU."""
    return torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))


def test_what_cannot_be_deterministic_is_refused():
    with pytest.raises(KfoldError, match=r"cannot be deterministic on cpu; .*\n  put_"), compute(True):
        draw_with_atomics()


def test_unless_asked_for_anything_goes_and_the_fastest_convolution_is_looked_for():
    with compute(True):
        assert not torch.backends.cudnn.benchmark
    with compute(False):
        assert torch.backends.cudnn.benchmark
        draw_with_atomics()


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="something else"), compute(True):
        raise RuntimeError("something else")


def test_a_process_knows_how_many_may_compute_at_once(monkeypatch):
    monkeypatch.setenv("KFOLD_PROCESSES_AT_ONCE", "3")
    with compute(False) as given:
        assert given.at_once == 3
