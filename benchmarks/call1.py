"""Call 1 of gpu.py: limits of the card, training steps, and variants of them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from throughput import (
    CLASSES,
    Arm,
    Ours,
    largest_kernels,
    limits,
    model_alone,
    peak_memory,
    rates,
    seconds,
    training_arms,
)
from torch import Tensor, nn
from workload import kfold_mix, noise, scaled

from kfold_ens.compute.compute import configure_torch
from kfold_ens.config import Recipe
from kfold_ens.network.classifier import Classifier
from kfold_ens.network.convolution import MatrixConv2d

REPOSITORY = Path(__file__).resolve().parents[1]
MERGED = 32  # least channels per group after merging: what a tensor core multiplies at once
GROUPED = "resnext50_32x4d"  # backbone with grouped convolutions for rehearsals
SHORT = {"warmup": 5, "steps": 15}
LIMIT = 8e9  # bytes; a step of batch 64 needs more


def sizes(how: argparse.Namespace, **changes: Any) -> argparse.Namespace:
    return scaled(how, **({} if how.tiny else changes))


def ours(how: argparse.Namespace, scale: argparse.Namespace, tiny: str = "resnet18", **sections: Any) -> Ours:
    with noise(scale, train=64_000) as fold:
        return Ours(kfold_mix(how, tiny, **sections), scale, fold)


# --- steps -----------------------------------------------------------------------------------------------


def of_arms(how: argparse.Namespace, names: list[str]) -> dict[str, Any]:
    """Images per second, peak memory and seconds of the first step. The arms take turns."""
    scale, recipe = scaled(how), kfold_mix(how)
    scale.compile = True
    with noise(scale, train=64_000) as fold:
        arms = training_arms(recipe, fold, scale)
        return model_alone({name: arms[name] for name in names}, recipe.batch_size, scale)


def steps(how: argparse.Namespace) -> dict[str, Any]:
    return of_arms(how, ["B0", "B1", "B2", "ours"])


def compiled(how: argparse.Namespace) -> dict[str, Any]:
    """Compare compiled arms. Ours compiles first, so B3 may find the same kernels in torch's cache."""
    return of_arms(how, ["B2", "ours, compiled", "B3"])


def kernels(how: argparse.Namespace) -> dict[str, Any]:
    scale = scaled(how)
    return largest_kernels(ours(how, scale), scale)


# --- checks of tests/training/test_gpu.py, on the real network -------------------------------------------


def determinism(how: argparse.Namespace) -> dict[str, Any]:
    """Whether two runs give the same bits, and how much speed that costs."""
    scale, threads = sizes(how, **SHORT), torch.get_num_threads()
    configure_torch(threads, True)  # before anything else: cuBLAS reads its setting only once
    some, others = (weights_after(ours(how, scale), 5) for _ in range(2))
    step = ours(how, scale)

    def arm(deterministic: bool) -> Arm:
        return lambda: (configure_torch(threads, deterministic), step.step())

    arms = {"any algorithm": arm(False), "deterministic": arm(True)}
    return {
        "same bits": all(torch.equal(tensor, others[name]) for name, tensor in some.items()),
        "images/s": rates(arms, len(step.views), scale),
    }


def weights_after(step: Ours, times: int) -> dict[str, Tensor]:
    for _ in range(times):
        step.step()
    return {name: tensor.cpu() for name, tensor in step.training.network.state_dict().items()}


def out_of_memory(how: argparse.Namespace) -> dict[str, Any]:
    """Train a batch on too little memory: how many images fit at a time, and the seconds per step."""
    scale = scaled(how)
    if scale.device.type == "cuda":
        total = torch.cuda.get_device_properties(scale.device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1, LIMIT / total), scale.device)
    with peak_memory(scale.device) as peak:
        step = ours(how, scale)
        first = seconds(step, 1, scale.device)
        later = seconds(step, 2, scale.device) / 2
    return {
        "batch": len(step.views),
        "images at a time": step.training.backward.micro_batch_size,
        "limit, GB": LIMIT / 1e9,
        "peak memory, GiB": [each / 2**30 for each in peak],
        "first step, s": first,
        "later steps, s": later,
    }


def tests(how: argparse.Namespace) -> dict[str, Any]:
    """Run tests/training/test_gpu.py, if pytest is installed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["-rs", "tests/training/test_gpu.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return {"exit code": done.returncode, "last lines": lines[-5:]}


# --- variants --------------------------------------------------------------------------------------------


def grouped(how: argparse.Namespace) -> dict[str, Any]:
    """Images/s of ours with other layouts and kernels for the grouped convolutions."""
    scale = sizes(how, **SHORT)
    arms = {
        "channels_last": ours(how, scale, GROUPED),
        "grouped contiguous": changed(ours(how, scale, GROUPED), contiguous),
        f"groups merged to {MERGED} channels": changed(ours(how, scale, GROUPED), merge),
    }
    return {"images/s": rates(arms, len(arms["channels_last"].views), scale)}


def changed(step: Ours, change: Callable[[nn.Conv2d], None]) -> Ours:
    for module in step.training.network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            change(module)
    return step


def contiguous(convolution: nn.Conv2d) -> None:
    """Compute this convolution in NCHW, while its neighbours stay in channels_last."""
    convolution.weight.data = convolution.weight.data.contiguous()
    convolution.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    convolution.register_forward_hook(lambda _, __, output: output.contiguous(memory_format=torch.channels_last))


class MergedConv2d(nn.Conv2d):
    """A grouped convolution with fewer, larger groups: weights between the old groups are zero."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        together = merging(self)
        wide = merged_weights(weight, self.groups, together)
        return nn.functional.conv2d(
            input, wide, bias, self.stride, self.padding, self.dilation, self.groups // together
        )


def merging(convolution: nn.Conv2d) -> int:
    """Number of groups to merge into one."""
    own = convolution.in_channels // convolution.groups
    return min(max(1, MERGED // own), convolution.groups)


def merged_weights(weight: Tensor, groups: int, together: int) -> Tensor:
    """Weights (out, channels per group, height, width) for a convolution with groups / together groups."""
    out, own, height, width = weight.shape
    blocks = weight.view(groups // together, together, out // groups, 1, own, height, width)
    apart = torch.eye(together, device=weight.device, dtype=weight.dtype).view(1, together, 1, together, 1, 1, 1)
    return (blocks * apart).reshape(out, together * own, height, width)


def merge(convolution: nn.Conv2d) -> None:
    convolution.__class__ = MergedConv2d


def convolutions(how: argparse.Namespace) -> list[dict[str, Any]]:
    """Time each convolution of the network, forward and backward: both layouts, and with merged groups."""
    scale, recipe = scaled(how), kfold_mix(how, GROUPED)
    torch.backends.cudnn.benchmark = True
    return [of_convolution(layer, shape, times, scale) for layer, shape, times in distinct(recipe, scale)]


def distinct(recipe: Recipe, scale: argparse.Namespace) -> list[tuple[nn.Conv2d, tuple[int, ...], int]]:
    """Find the distinct convolutions, with the shape of their input and how often each occurs."""
    seen: dict[str, list] = {}
    network = Classifier(recipe, CLASSES).eval().to(scale.device)

    def see(layer: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        seen.setdefault(f"{layer} {inputs[0].shape}", [layer, tuple(inputs[0].shape), 0])[2] += 1

    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(see)
    with torch.inference_mode():
        network(torch.zeros(recipe.batch_size, 3, recipe.image.size, recipe.image.size, device=scale.device))
    return [tuple(each) for each in seen.values()]


def of_convolution(layer: nn.Conv2d, shape: tuple[int, ...], times: int, scale: argparse.Namespace) -> dict[str, Any]:
    layouts = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    kinds = {name: (MatrixConv2d, layout) for name, layout in layouts.items()}
    if merging(layer) > 1 and layer.groups > 1:
        kinds["groups merged"] = (MergedConv2d, torch.channels_last)
    kernel, size = "x".join(map(str, layer.kernel_size)), shape[-1]
    name = f"{kernel}, {layer.in_channels} to {layer.out_channels}, stride {layer.stride[0]}, {size} pixels"
    groups = {"groups": layer.groups, "times": times}
    milliseconds = {kind: 1e3 * convolving(layer, shape, *how, scale) for kind, how in kinds.items()}
    return {"convolution": name, **groups, "milliseconds": milliseconds}


def convolving(
    layer: nn.Conv2d, shape: tuple[int, ...], kind: type, layout: torch.memory_format, scale: argparse.Namespace
) -> float:
    """Seconds per forward and backward pass."""
    layer.__class__ = kind
    layer._forward_hooks.clear()
    layer.to(dtype=scale.dtype or torch.float32, memory_format=layout)
    options = {"device": scale.device, "dtype": scale.dtype or torch.float32}
    images = torch.rand(shape, **options).to(memory_format=layout).requires_grad_()
    gradient = torch.rand_like(layer(images))
    times = 10 if scale.device.type == "cuda" else 1
    run = lambda: torch.autograd.grad(layer(images), [images, layer.weight], gradient)  # noqa: E731
    seconds(run, 3, scale.device)
    return seconds(run, times, scale.device) / times


def batches(how: argparse.Namespace) -> dict[str, Any]:
    """Compare two batches with one of twice the size. The names are for the full size, even in a rehearsal."""
    scale, batch = sizes(how, **SHORT), kfold_mix(how).batch_size
    once, twice = ours(how, scale), ours(how, scale, batch_size=2 * batch)
    arms = {"batch of 64": lambda: (once(), once()), "batch of 128": twice}
    return {"images/s": rates(arms, 2 * batch, scale)}


def cuda_graphs(how: argparse.Namespace) -> dict[str, Any]:
    """Compare the compiled step with and without CUDA graphs, and list its largest kernels."""
    scale = sizes(how, **SHORT)
    arms = {
        "compiled": compiled_by(ours(how, scale)),
        "compiled, CUDA graphs": compiled_by(ours(how, scale), mode="reduce-overhead"),
    }
    first = {name: seconds(arm, 1, scale.device) for name, arm in arms.items()}
    found = {"first step, s": first, "images/s": rates(arms, len(arms["compiled"].views), scale)}
    return found | {"kernels, compiled": largest_kernels(arms["compiled"], scale)}


def compiled_by(step: Ours, **options: Any) -> Ours:
    backward = step.training.backward
    backward.compiled = torch.compile(backward.network, dynamic=False, **options)
    return step


PARTS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "limits": lambda how: limits(scaled(how), (2**20, 64) if how.tiny else None),
    "steps": steps,
    "compiled": compiled,
    "determinism": determinism,
    "kernels": kernels,
    "grouped": grouped,
    "convolutions": convolutions,
    "out_of_memory": out_of_memory,
    "batches": batches,
    "cuda_graphs": cuda_graphs,
    "tests": tests,
}
