"""Training a fold in several processes gives the same result as in one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from stages import Stage, stage_of, training_recipe
from torch.nn.functional import cross_entropy

from kfold_ens.compute.collectives import wait_for_all
from kfold_ens.compute.compute import Compute
from kfold_ens.compute.processes import train_together
from kfold_ens.compute.ranks import Ranks
from kfold_ens.config import NoMixing
from kfold_ens.jobs import job
from kfold_ens.loading.loader import training_batches, training_views
from kfold_ens.training.loop import fit
from kfold_ens.training.record import NoRecord
from kfold_ens.training.scored import ScoredBy
from kfold_ens.training.trainer import Trainer

CPU = torch.device("cpu")
WHOLE = training_recipe(
    image={"kind": "squash", "size": 32, "short_side": 32, "normalize": False},
    augmentation=[{"kind": "random_resized_crop"}, {"kind": "horizontal_flip"}],
    mixing={"kind": "mixup_or_cutmix", "alpha": 1.0, "probability": 0.5},
    optimizer={"kind": "sgd", "lr": 1e-3},
    schedule={"kind": "constant"},
    ema={"kind": "ema", "decay": 0.9, "start_epoch": 2},
    batch_size=24,
    epochs=6,
)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_parts_of_all_ranks_add_up_to_the_batch(length, count):
    ranks = [Ranks(rank, count) for rank in range(count)]
    batch, loss = torch.randn(length, 5), torch.zeros(())
    labels = torch.randint(5, (length,))
    for each in ranks:
        own = each.own(length)
        assert len(batch[own]) >= 1
        loss = loss + cross_entropy(batch[own], labels[own]) * each.share(length)
    assert torch.allclose(loss, cross_entropy(batch, labels))
    assert sum(each.share(length) for each in ranks) == pytest.approx(1)
    if length >= count:
        assert torch.equal(torch.cat([batch[each.own(length)] for each in ranks]), batch)


class Losses(NoRecord):
    """Records the loss of each step."""

    def __init__(self) -> None:
        self.of_steps, self._before = [], 0.0

    def after_step(self, training: Trainer) -> None:
        total = float(training.position.loss)
        self.of_steps.append(total - self._before)
        self._before = total

    def after_epoch(self, training: Trainer, row: dict, logits: torch.Tensor) -> None:
        self._before = 0.0


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Stage:
    return stage_of({"source": "digits", "limit_per_class": 16}, tmp_path_factory.mktemp("digits"), 32)


class InFloat64(Compute):
    def input(self, *arguments) -> torch.Tensor:
        return super().input(*arguments).double()


def write_gradients(compute: Compute, digits: Stage, folder: Path) -> None:
    """Write gradients of the first batch: mixed in float64, unmixed in float32, and unmixed with a little noise."""
    unmixed = WHOLE.model_copy(update={"mixing": NoMixing(kind="none")})
    with in_float64():
        found = {"float64": gradient(Trainer(WHOLE, digits.fold(), None, InFloat64(**vars(compute))))}
    found["float32"] = gradient(Trainer(unmixed, digits.fold(), None, compute))
    found["noisy"] = gradient(Trainer(unmixed, digits.fold(), None, compute), noise=1e-5)
    if compute.ranks.is_main:
        np.savez(
            folder / "result.npz", **{f"{kind} {name}": each for kind in found for name, each in found[kind].items()}
        )


def gradient(training: Trainer, noise: float = 0.0) -> dict[str, np.ndarray]:
    """Gradients of the parameters, and batch statistics, after the first step."""
    views = training_views(training.recipe, training.fold)
    indices = (batch[training.compute.ranks.own(len(batch))] for batch in training.order.remaining(0, 0, 1))
    images, *labels = next(training_batches(views, indices))
    if noise:
        images = images * (1 + noise * torch.randn(images.shape, generator=torch.Generator().manual_seed(0)))
    training.optimizer.step = lambda: None
    training.optimizer.zero_grad = lambda set_to_none: None
    training.step(images, *labels)
    gradients = {f"gradient of {name}": each.grad.numpy() for name, each in training.network.named_parameters()}
    return gradients | {name: each.numpy() for name, each in training.network.named_buffers()}


def write_curve(compute: Compute, digits: Stage, folder: Path) -> None:
    """Write the loss of each step, in float64: from random weights, this network amplifies float32 rounding."""
    torch._dynamo.utils.counters.clear()  # counts of other tests
    with in_float64():
        training, losses = Trainer(WHOLE, digits.fold(), None, InFloat64(**vars(compute))), Losses()
        fit(training, ScoredBy(("accuracy",), None), losses)
    graphs, ours = torch._dynamo.utils.counters["stats"]["unique_graphs"], training.backward
    assert (graphs > 0, ours.compiled is not ours.network) == (compute.compile,) * 2
    if compute.ranks.is_main:
        history = {name: [row[name] for row in training.history] for name in ("val_loss", "val_accuracy")}
        np.savez(folder / "result.npz", steps=losses.of_steps, **history)


@contextmanager
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def of_ranks(count: int, work, digits: Stage, folder: Path, compile: bool = False) -> dict[str, np.ndarray]:
    """Run ``count`` ranks and read what rank 0 wrote; it gets its own process, since it exits if another rank dies."""
    folder.mkdir()
    computes = [Compute(CPU, None, 1, compile, Ranks(rank, count)) for rank in range(count)]
    arguments = (partial(work, digits=digits, folder=folder), computes)
    if count == 1:
        train_together(*arguments)
    else:
        first = get_context("spawn").Process(target=train_together, args=arguments)
        first.start()
        first.join()
        assert first.exitcode == 0
    return dict(np.load(folder / "result.npz"))


@pytest.mark.slow
def test_gradients_and_batch_statistics_match_those_of_one_process(digits, tmp_path):
    """Equal in float64. In float32, rounding can flip a ReLU or the maximum of a pool, and so can a little noise."""
    alone, together = (of_ranks(count, write_gradients, digits, tmp_path / str(count)) for count in (1, 3))
    assert alone.keys() == together.keys()
    names = [name.removeprefix("float64 ") for name in alone if name.startswith("float64 ")]
    by_noise = max(distance(alone[f"noisy {name}"], alone[f"float32 {name}"]) for name in names)
    assert 0 < by_noise < 0.1
    for name in names:
        assert distance(together[f"float64 {name}"], alone[f"float64 {name}"]) < 1e-6, name
        assert distance(together[f"float32 {name}"], alone[f"float32 {name}"]) < 3 * by_noise, name


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance relative to the norm of ``other``."""
    length = np.linalg.norm(other.astype(float))
    return float(np.linalg.norm(one.astype(float) - other) / length) if length else float(np.abs(one).max())


@pytest.fixture(scope="module")
def alone(digits, tmp_path_factory) -> dict[str, np.ndarray]:
    return of_ranks(1, write_curve, digits, tmp_path_factory.mktemp("alone") / "1")


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
def test_the_loss_curve_matches_that_of_one_process(digits, alone, tmp_path, compile):
    together = of_ranks(2, write_curve, digits, tmp_path / "2", compile)
    assert len(alone["steps"]) >= 30
    assert alone["val_loss"][-1] < alone["val_loss"][0]
    np.testing.assert_allclose(together["steps"], alone["steps"], rtol=1e-5)
    np.testing.assert_allclose(together["val_loss"], alone["val_loss"], rtol=1e-5)
    assert together["val_accuracy"].tolist() == alone["val_accuracy"].tolist()


def fail(compute: Compute, rank: int) -> None:
    """Fail on one rank with a full disk, while the others wait for it."""
    if compute.ranks.rank == rank:
        raise OSError(28, "No space left on device")
    wait_for_all(compute.ranks)


def fail_as_a_job(log: Path, rank: int) -> None:
    computes = [Compute(CPU, None, 0, ranks=Ranks(each, 2)) for each in range(2)]
    with job(str(log)):
        train_together(partial(fail, rank=rank), computes)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_any_process_is_logged(rank, tmp_path):
    first = get_context("spawn").Process(target=fail_as_a_job, args=(tmp_path / "log", rank))
    first.start()
    first.join()
    assert first.exitcode == 1
    assert "No space left on device" in (tmp_path / "log").read_text()
