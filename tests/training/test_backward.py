"""Compiling, for real, on the CPU."""

import logging
from contextlib import nullcontext
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from stages import make_stage, training_recipe
from torch import nn

from kfold_ens.training import compilation
from kfold_ens.training.compilation import Compilation
from kfold_ens.training.evaluation import Compute
from kfold_ens.training.fold import Position, Training
from kfold_ens.training.ranks import ALONE, Ranks

RECIPE = training_recipe(epochs=2, batch_size=8, backbone={"kind": "timm", "name": "resnet10t", "weights": "none"})
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def step(training, size=8, generator=None):
    views = torch.randint(256, (size, 3, 16, 16), dtype=torch.uint8, generator=generator)
    training.step(views, torch.randint(2, (size,), generator=generator))


def steps(stage, compile):
    training = Training(RECIPE, stage.fold(), None, Compute(CPU, None, 0, compile))
    training.network.train()
    generator = torch.Generator().manual_seed(0)
    for size in [8, 8, 8, 5]:  # an epoch's last batch may be smaller
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


@pytest.fixture
def memory(stage):
    """A training whose passes fail on more images than there is memory for, and which passes there were."""
    training, passes = Training(RECIPE, stage.fold(), None, Compute(CPU, None, 0)), []
    training.network.train()
    network = training.network

    def with_room_for(images, kind):
        def forward(batch):
            passes.append((kind, len(batch)))
            logits = network(batch)
            if len(batch) > images:
                logits.register_hook(out_of_memory)
            return logits

        return forward

    def set_room(compiled, eager):
        training.compilation.forward = with_room_for(compiled, "compiled")
        training.compilation.eager = with_room_for(eager, "eager")

    return training, passes, set_room


def out_of_memory(gradient):
    raise torch.OutOfMemoryError("tried to allocate more than there is")


def test_a_compiled_step_out_of_memory_is_taken_as_the_network_is_and_only_then_in_halves(memory, caplog):
    training, passes, set_room = memory
    set_room(compiled=4, eager=8)
    step(training)
    assert (passes, training.at_a_time) == ([("compiled", 8), ("eager", 8)], 8)
    assert caplog.text.count("goes on without compiling") == 1
    set_room(compiled=4, eager=4)
    passes.clear()
    step(training)
    assert (passes, training.at_a_time) == ([("compiled", 8), ("eager", 8), ("eager", 4), ("eager", 4)], 4)


def test_where_an_eager_pass_is_out_of_memory_that_is_not_laid_to_compiling(memory, caplog):
    training, passes, set_room = memory
    set_room(compiled=8, eager=4)
    step(training, size=6)
    assert passes == [("eager", 6), ("eager", 3), ("eager", 3)]
    assert (training.at_a_time, "without compiling" in caplog.text) == (4, False)


STEPS = 10_000
NEEDED = compilation.PAYS_FROM / (STEPS - compilation.WARMUP - compilation.WATCHED)  # seconds a step, for auto to pay


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only a test lets go by."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(Compilation, "_now", lambda self: clock.now)
    return clock


def on_a_gpu(network=None, device=GPU, ranks=ALONE):
    return Compilation(network or nn.Linear(1, 1), Compute(device, None, 0, "auto", ranks), fold=0)


def watch(compilation, clock, seconds):
    """Steps of so many seconds each, between which other things take longer; how many until it compiles."""
    for number, each in enumerate(seconds):
        with compilation.step(STEPS - number):
            clock.now += each
        clock.now += 1000  # validation, or waiting for data
        if compilation.forward is not compilation.eager:
            return number + 1
    return None


def test_auto_compiles_where_the_steps_left_take_as_long_as_pays(clock):
    watched = compilation.WARMUP + compilation.WATCHED
    assert watch(on_a_gpu(), clock, [NEEDED * 1.01] * STEPS) == watched
    assert watch(on_a_gpu(), clock, [NEEDED * 0.99] * STEPS) is None
    assert watch(on_a_gpu(), clock, [60] * compilation.WARMUP + [NEEDED * 0.99] * STEPS) is None
    assert watch(on_a_gpu(), clock, [0] * compilation.WARMUP + [60, *[NEEDED * 0.99] * STEPS]) is None
    assert watch(on_a_gpu(), clock, [60] * compilation.WARMUP + [0, *[NEEDED * 1.01] * STEPS]) == watched


@pytest.mark.parametrize("where", [{"device": CPU}, {"ranks": Ranks(0, 2)}])
def test_auto_leaves_a_cpu_and_processes_that_train_together_as_they_are(clock, where):
    assert watch(on_a_gpu(**where), clock, [60] * 100) is None


@pytest.mark.parametrize("steps_before", [0, 30, compilation.WARMUP + compilation.WATCHED - 1])
@pytest.mark.parametrize("inside", [False, True])
def test_what_gave_up_stays_as_it_is(clock, steps_before, inside):
    given_up = on_a_gpu()
    watch(given_up, clock, [60] * steps_before)
    with given_up.step(STEPS - steps_before) if inside else nullcontext():
        clock.now += 60
        given_up.give_up()
    assert watch(given_up, clock, [60] * 100) is None


def test_the_steps_left_are_those_of_all_epochs(stage):
    training = Training(RECIPE, stage.fold(), None, Compute(CPU, None, 0))
    whole = training.order.steps_per_epoch
    assert training.steps_left == 2 * whole > 2
    training.network.train()
    step(training)
    assert training.steps_left == 2 * whole - 1
    again = Training(RECIPE, stage.fold(), None, Compute(CPU, None, 0))
    again.restore(training.state())
    assert again.steps_left == 2 * whole - 1
    again.position = Position(epoch=1)
    assert again.steps_left == whole


@pytest.mark.slow
def test_auto_compiles_in_the_middle_of_training(stage, clock, monkeypatch, caplog):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(compilation, "PAYS_FROM", 0)
    longer = RECIPE.model_copy(update={"epochs": 100})
    training = Training(longer, stage.fold(), None, Compute(CPU, None, 0))
    training.network.train()
    training.compilation = on_a_gpu(network=training.network)
    with caplog.at_level(logging.INFO, logger="kfold_ens"):
        for _ in range(compilation.WARMUP + compilation.WATCHED):
            assert not torch._dynamo.utils.counters["stats"]
            step(training)
        step(training)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert caplog.text.count("compiles the network") == 1
