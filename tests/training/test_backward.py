"""Compiled training, for real on the CPU, and running out of memory."""

import logging
from unittest.mock import patch

import pytest
import torch
from stages import make_stage, training_recipe

from kfold_ens.compute.compute import Compute
from kfold_ens.training.trainer import Trainer

RECIPE = training_recipe(epochs=2, batch_size=8, backbone={"kind": "timm", "name": "resnet10t", "weights": "none"})
CPU = torch.device("cpu")


def step(training, size=8, generator=None):
    views = torch.randint(256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)
    training.step(views, torch.randint(2, (size,), generator=generator))


def steps(stage, compile):
    training = Trainer(RECIPE, stage.fold(), None, Compute(CPU, None, 0, compile))
    training.network.train()
    generator = torch.Generator().manual_seed(0)
    for size in [8, 8, 8, 5]:  # the last batch of an epoch can be smaller
        step(training, size, generator)
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
    assert seen["stats"]["unique_graphs"] == 1  # for full batches only
    assert float(fast.position.loss) == pytest.approx(float(plain.position.loss), rel=1e-3)
    assert fast.state()["network"].keys() == plain.state()["network"].keys()
    for name, tensor in plain.network.state_dict().items():
        torch.testing.assert_close(fast.network.state_dict()[name].float(), tensor.float(), rtol=0.02, atol=4e-3)


def broken_compiler():
    return torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})


def broken_backward():
    """Only compiling the backward pass fails, which happens outside the call of the network."""
    compile_fx_backward = torch._inductor.compile_fx.compile_fx_backward

    def fail(*arguments, **keywords):
        compile_fx_backward(*arguments, **keywords)
        raise torch._inductor.exc.InductorError(ValueError("no backward"), None)

    return patch("torch._inductor.compile_fx.compile_fx_backward", fail)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [broken_compiler, broken_backward])
def test_a_fold_that_cannot_be_compiled_trains_uncompiled(stage, monkeypatch, caplog, fault, tmp_path):
    torch.compiler.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # no cache of earlier runs
    with fault(), caplog.at_level(logging.WARNING, logger="kfold_ens"):
        training = steps(stage, True)
    assert caplog.text.count("cannot be compiled; continues uncompiled") == 1
    assert float(training.position.loss) == pytest.approx(float(steps(stage, False).position.loss), rel=1e-6)


@pytest.fixture
def memory(stage):
    """A trainer, the list of its passes, and a function that sets how many images fit in memory."""
    training, passes = Trainer(RECIPE, stage.fold(), None, Compute(CPU, None, 0)), []
    training.network.train()
    network = training.network

    def limited_to(images, kind):
        def forward(batch):
            passes.append((kind, len(batch)))
            logits = network(batch)
            if len(batch) > images:
                logits.register_hook(out_of_memory)
            return logits

        forward.zero_grad = network.zero_grad
        return forward

    def set_limit(compiled, eager):
        training.backward.compiled = limited_to(compiled, "compiled")
        training.backward.network = limited_to(eager, "eager")

    return training, passes, set_limit


def out_of_memory(gradient):
    raise torch.OutOfMemoryError("tried to allocate more than there is")


def test_a_compiled_step_out_of_memory_runs_uncompiled_before_it_is_split(memory, caplog):
    training, passes, set_limit = memory
    set_limit(compiled=4, eager=8)
    step(training)
    assert (passes, training.backward.micro_batch_size) == ([("compiled", 8), ("eager", 8)], 8)
    assert caplog.text.count("continues uncompiled") == 1
    set_limit(compiled=4, eager=4)
    passes.clear()
    step(training)
    assert (passes, training.backward.micro_batch_size) == (
        [("compiled", 8), ("eager", 8), ("eager", 4), ("eager", 4)],
        4,
    )


def test_an_uncompiled_step_out_of_memory_is_split_at_once(memory, caplog):
    training, passes, set_limit = memory
    set_limit(compiled=8, eager=4)
    step(training, size=6)
    assert passes == [("eager", 6), ("eager", 3), ("eager", 3)]
    assert (training.backward.micro_batch_size, "uncompiled" in caplog.text) == (4, False)
