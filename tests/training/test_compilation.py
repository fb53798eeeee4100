"""Compiling, for real, on the CPU."""

import logging

import pytest
import torch
from stages import make_stage, training_recipe

from kfold_ens.training.compilation import PAYS_FROM, compiled
from kfold_ens.training.evaluation import Compute
from kfold_ens.training.fold import Training

RECIPE = training_recipe(epochs=2, batch_size=8)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("wanted", "device", "images", "compiles"),
    [
        (True, CPU, 1, True),
        (False, CUDA, PAYS_FROM, False),
        ("auto", CUDA, PAYS_FROM, True),
        ("auto", CUDA, PAYS_FROM - 1, False),
        ("auto", CPU, PAYS_FROM, False),
    ],
)
def test_auto_compiles_long_runs_on_a_gpu(wanted, device, images, compiles):
    network = torch.nn.Linear(1, 1)
    assert (compiled(network, wanted, device, images) is not network) is compiles


def test_a_run_that_must_be_deterministic_is_not_compiled_unasked():
    network = torch.nn.Linear(1, 1)
    torch.use_deterministic_algorithms(True)
    try:
        assert compiled(network, "auto", CUDA, PAYS_FROM) is network
    finally:
        torch.use_deterministic_algorithms(False)


def steps(stage, compile, count=3):
    training = Training(RECIPE, stage.fold(), None, Compute(CPU, None, 0, compile))
    training.network.train()
    generator = torch.Generator().manual_seed(0)
    for size in [8] * count + [5]:  # an epoch's last batch may be smaller
        views = torch.randint(256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)
        training.step(views, torch.randint(2, (size,), generator=generator))
    return training


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 12, "light": 12})


@pytest.mark.slow
def test_a_compiled_fold_trains_the_same_network(stage, monkeypatch):
    torch.compiler.reset()
    seen = torch._dynamo.utils.counters
    seen.clear()
    plain, fast = steps(stage, False), steps(stage, True)
    assert seen["stats"]["unique_graphs"] == 1  # of the one size
    assert float(fast.position.loss) == pytest.approx(float(plain.position.loss), rel=1e-3)
    assert fast.state()["network"].keys() == plain.state()["network"].keys()
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(fast.network.state_dict()[name].float(), tensor.float(), rtol=0.02, atol=4e-3)


@pytest.mark.slow
def test_where_the_compiler_fails_the_fold_trains_without_it(stage, monkeypatch, caplog):
    torch.compiler.reset()
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with caplog.at_level(logging.WARNING, logger="kfold_ens"):
        training = steps(stage, True)
    assert "not compiled, which costs speed only" in caplog.text
    assert float(training.position.loss) == float(steps(stage, False).position.loss)
