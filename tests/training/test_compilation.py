"""Compiling, for real, on the CPU."""

import logging
from unittest.mock import patch

import pytest
import torch
from stages import make_stage, training_recipe

from kfold_ens.config import load_config
from kfold_ens.training import compilation
from kfold_ens.training.evaluation import Compute, leased_compute
from kfold_ens.training.fold import Training

RECIPE = training_recipe(epochs=2, batch_size=8)
CPU = torch.device("cpu")


def steps(stage, compile, count=3, recipe=RECIPE):
    training = Training(recipe, stage.fold(), None, Compute(CPU, None, 0, compile))
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


def broken_compiler():
    return torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})


def broken_backward():
    """Only what backward() compiles fails, which is outside of the network's call."""
    compile_fx_backward = torch._inductor.compile_fx.compile_fx_backward

    def fail(*arguments, **keywords):
        compile_fx_backward(*arguments, **keywords)
        raise torch._inductor.exc.InductorError(ValueError("no backward"), None)

    return patch("torch._inductor.compile_fx.compile_fx_backward", fail)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [broken_compiler, broken_backward])
def test_where_compiling_fails_the_fold_trains_without_it(stage, monkeypatch, caplog, fault, tmp_path):
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing that an earlier run compiled
    with fault(), caplog.at_level(logging.WARNING, logger="kfold_ens"):
        training = steps(stage, True)
    assert caplog.text.count("not compiled, which costs speed only") == 1
    assert float(training.position.loss) == pytest.approx(float(steps(stage, False).position.loss), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("left", ["long", "short"])
def test_auto_compiles_once_the_steps_left_promise_to_pay_for_it(stage, monkeypatch, caplog, left):
    longer = RECIPE.model_copy(update={"epochs": 3})
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compilation, "WARMUP", 1)
    monkeypatch.setattr(compilation, "WATCHED", 2)
    monkeypatch.setattr(compilation, "PAYS_FROM", 0 if left == "long" else 3600)
    with caplog.at_level(logging.INFO, logger="kfold_ens"):
        steps(stage, "auto", 2, longer)
        assert not torch._dynamo.utils.counters["stats"]  # still watched
        steps(stage, "auto", 4, longer)
    compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert (compiled, caplog.text.count("compiles the network")) == ((1, 1) if left == "long" else (0, 0))


@pytest.mark.parametrize(("asked", "compiles"), [("auto", False), (True, True), (False, False)])
def test_on_a_cpu_nothing_is_compiled_unless_asked_for(asked, compiles):
    run = load_config({"data": {"source": "digits"}, "device": "cpu", "compile": asked})
    with leased_compute(run, 1) as compute:
        assert compute.compile is compiles
