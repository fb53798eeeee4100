import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from stages import training_recipe

from kfold_ens.compute.compute import Compute, leased_compute, workers_with_room
from kfold_ens.compute.inference import predict_logits
from kfold_ens.config import load_config
from kfold_ens.errors import KfoldError
from kfold_ens.network.classifier import Classifier


@pytest.fixture(autouse=True)
def settings_kept():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def compute(deterministic):
    run = load_config({"data": {"source": "digits"}, "device": "cpu", "deterministic": deterministic})
    return leased_compute(run, threads=torch.get_num_threads())


def draw_with_atomics():
    """An operation without a deterministic implementation on a CPU."""
    return torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))


def test_nondeterministic_operations_are_refused():
    with pytest.raises(KfoldError, match=r"cannot be deterministic on cpu; .*\n  put_"), compute(True):
        draw_with_atomics()


def test_without_deterministic_any_operation_runs_and_cudnn_benchmarks():
    with compute(True):
        assert not torch.backends.cudnn.benchmark
    with compute(False):
        assert torch.backends.cudnn.benchmark
        draw_with_atomics()


def test_other_errors_are_not_changed():
    with pytest.raises(RuntimeError, match="something else"), compute(True):
        raise RuntimeError("something else")


def test_a_process_knows_how_many_may_compute_at_once(monkeypatch):
    monkeypatch.setenv("KFOLD_PROCESSES_AT_ONCE", "3")
    with compute(False) as given:
        assert given.at_once == 3


# --- loader workers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free_mb", "processes", "workers"),
    [(10_000, 1, 4), (200, 1, 4), (140, 1, 3), (64, 1, 1), (50, 1, 0), (800, 4, 4), (400, 4, 2), (64, 2, 0)],
)
@pytest.mark.parametrize("used_mb", [0, 80])
def test_shared_memory_limits_the_number_of_workers(monkeypatch, tmp_path, free_mb, used_mb, processes, workers):
    """Memory that another process already uses is not divided a second time."""
    memory = SimpleNamespace(free=(free_mb - used_mb * (processes > 1)) * 10**6, total=free_mb * 10**6)
    monkeypatch.setattr("kfold_ens.compute.compute.SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: memory)
    assert workers_with_room(4, 64 * 3 * 224**2, processes) == workers


# --- out of memory ---------------------------------------------------------------------------------------

RECIPE = training_recipe()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Classifier(RECIPE, 3).eval()


def limit_memory(network, most, monkeypatch):
    """Make the network run out of memory with more than ``most`` images; list the sizes of the passes."""
    forward, passes = network.forward, []

    def refusing(images):
        if len(images) > most:
            raise torch.OutOfMemoryError("CUDA out of memory (faked)")
        passes.append(len(images))
        return forward(images)

    monkeypatch.setattr(network, "forward", refusing)
    return passes


def logits_of(network, sizes):
    views = torch.randint(256, (sum(sizes), 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return predict_logits(network, views.split(sizes), RECIPE.image, Compute(torch.device("cpu"), None, 0))


@pytest.mark.parametrize(
    ("most", "passes", "warnings"),
    [(8, [8, 8, 3], 0), (7, [4, 4, 4, 4, 3], 1), (3, [2] * 8 + [2, 1], 2), (1, [1] * 19, 3)],
)
def test_out_of_memory_predicts_smaller_batches_with_the_same_logits(
    network, most, passes, warnings, monkeypatch, caplog
):
    expected = logits_of(network, [8, 8, 3])
    done = limit_memory(network, most, monkeypatch)
    with caplog.at_level(logging.WARNING):
        logits = logits_of(network, [8, 8, 3])
    assert done == passes
    assert caplog.text.count("out of memory; predicting") == warnings
    assert np.ptp(expected, axis=0).min() > 0.01  # far more than the tolerance below
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_an_image_too_large_for_memory_is_a_clear_error(network, monkeypatch):
    limit_memory(network, 0, monkeypatch)
    with pytest.raises(KfoldError, match="^out of memory with a single image; use a GPU with more memory"):
        logits_of(network, [8])
