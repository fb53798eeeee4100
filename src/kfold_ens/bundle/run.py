"""A run of ``kfold-predict``, from its options to the CSV. Imports torch only after the input was accepted."""

from __future__ import annotations

import logging
import os
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kfold_ens.bundle.about import About, EnsembleError, Member, read_about
from kfold_ens.bundle.answers import Columns
from kfold_ens.bundle.decoding import decode
from kfold_ens.bundle.listing import list_inputs
from kfold_ens.bundle.onnx_file import open_session, read_onnx
from kfold_ens.bundle.onnx_predictor import OnnxPredictor
from kfold_ens.bundle.partial import PartialCsv
from kfold_ens.config import NoTta
from kfold_ens.data.folders import file_size
from kfold_ens.errors import KfoldError, Together
from kfold_ens.files import fingerprint, require_space
from kfold_ens.jobs import keep_freed_memory, usable_threads
from kfold_ens.versions import versions

if TYPE_CHECKING:
    from kfold_ens.bundle.predictor import Predictor

log = logging.getLogger(__name__)

BYTES_OF_A_CELL = 12  # of a number with its comma


@dataclass(frozen=True)
class Request:
    """An accepted request: options, ensemble, members, columns and images."""

    options: Namespace
    about: About
    sha256: str
    members: tuple[Member, ...]
    columns: Columns
    names: list[str]

    @property
    def batch_size(self) -> int:
        """The batch size: that of training unless it is given."""
        return self.options.batch_size or max(member.recipe.batch_size for member in self.members)

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return self.columns.header(self.about.classes)

    def identity(self, computing: str) -> dict[str, Any]:
        """Return all that the CSV depends on, by names for people. ``computing`` is device and precision."""
        options = self.options
        given = ("probabilities", "top_k", "min_probability", "folds", "no_tta", "errors")
        return {
            "ensemble": self.sha256,
            "version of kfold_ens": versions()["kfold_ens"],
            "list of images": fingerprint([[name, file_size(name)] for name in self.names]),
            "batch size": self.batch_size,
            "device or precision": computing,
            **{f"--{name.replace('_', '-')}": getattr(options, name) for name in given},
        }


def predict_files(options: Namespace) -> dict[str, str]:
    """Predict all images into the CSV; return the reasons for unreadable files, by name.

    Raises:
        KfoldError: listing all errors in options, ensemble, images and output, before anything is written.
    """
    table = PartialCsv(options.out)
    request = accepted(options, table)
    with loaded(request) as (predictor, computing), logging_redirect_tqdm([logging.getLogger("kfold_ens")]):
        done = table.begin(
            request.identity(computing), request.header, request.names, request.batch_size, options.resume
        )
        failed = {name: reason or _reason(name) for name, reason in done.failed}
        failed |= _write(request, predictor, table, done.images)
    table.finish()
    log.info("%s: %d images", options.out, len(request.names) - len(failed))
    return failed


def accepted(options: Namespace, table: PartialCsv) -> Request:
    """Check the options and return the request."""
    together = Together(KfoldError)
    with together.gather():
        about, sha256 = _read_graph(options) if is_graph(options) else read_about(options.ensemble)
        members = chosen_members(about, options.folds)
        columns = _columns(options, about)
    with together.gather():
        names = list_inputs(options.images)
        _refuse_an_input(options.out, [options.ensemble, *options.images, *names])
    with together.gather():
        table.refuse_what_is_there(options.resume, options.force)
    together.raise_all()
    request = Request(options, about, sha256, members, columns, names)
    needed = sum(map(len, names)) + BYTES_OF_A_CELL * len(names) * len(request.header)
    require_space(options.out.absolute().parent, needed, f"writing {options.out}")
    return request


def is_graph(options: Namespace) -> bool:
    """Whether the ensemble is an exported graph."""
    return Path(options.ensemble).suffix == ".onnx"


def _read_graph(options: Namespace) -> tuple[About, str]:
    fixed = [option for option, is_given in IN_A_GRAPH.items() if is_given(options)]
    if fixed:
        raise EnsembleError(
            f"{', '.join(fixed)}: an exported graph cannot be changed; use the ensemble.safetensors, or export again"
        )
    return read_onnx(options.ensemble)


IN_A_GRAPH: dict[str, Callable[[Namespace], bool]] = {
    "--folds": lambda options: options.folds is not None,
    "--no-tta": lambda options: options.no_tta,
    "--precision bf16": lambda options: options.precision == "bf16",
    "--device mps": lambda options: options.device == "mps",
}


def _refuse_an_input(out: Path, inputs: Iterable[str]) -> None:
    if out.exists() and any(os.path.exists(given) and os.path.samefile(out, given) for given in inputs):
        raise KfoldError(f"--out {out} is one of the files to read; name another file")


def chosen_members(about: About, folds: Sequence[str] | None) -> tuple[Member, ...]:
    """Select the members of these folds, each by number or name; all if ``folds`` is None.

    Raises:
        EnsembleError: if there is no such fold; it lists the missing and the existing ones.
    """
    if folds is None:
        return about.members
    wanted = {f"fold{fold}" if fold.isdecimal() else fold for fold in folds}
    missing = wanted - {member.name for member in about.members}
    if missing:
        there = ", ".join(dict.fromkeys(member.name for member in about.members))
        raise EnsembleError(f"--folds: the ensemble has no {', '.join(sorted(missing)) or repr('')}; it has {there}")
    return tuple(member for member in about.members if member.name in wanted)


def _columns(options: Namespace, about: About) -> Columns:
    if options.top_k > len(about.classes):
        raise EnsembleError(f"--top-k {options.top_k}: the ensemble has only {len(about.classes)} classes")
    return Columns(options.top_k, options.probabilities, options.min_probability, options.errors == "column")


@contextmanager
def loaded(request: Request) -> Iterator[tuple[Predictor | OnnxPredictor, str]]:
    """Yield the predictor on the requested device, which is leased until the end, and the device and precision."""
    load = _loaded_graph if is_graph(request.options) else _loaded_models
    with load(request) as loaded:
        yield loaded


@contextmanager
def _loaded_graph(request: Request) -> Iterator[tuple[OnnxPredictor, str]]:
    options, threads = request.options, usable_threads(request.options.threads)
    session = open_session(options.ensemble, options.device, threads)
    provider = session.get_providers()[0]
    log.info("computing with onnxruntime's %s", provider)
    yield OnnxPredictor(session, request.about, request.batch_size, threads), provider


@contextmanager
def _loaded_models(request: Request) -> Iterator[tuple[Predictor, str]]:
    _require_torch(request.options)
    from kfold_ens.bundle.ensemble_file import Ensemble
    from kfold_ens.bundle.predictor import build_predictor
    from kfold_ens.compute.compute import Compute, configure_torch
    from kfold_ens.compute.devices import autocast_dtype, leased_devices

    options, threads = request.options, usable_threads(request.options.threads)
    configure_torch(threads, deterministic=False)
    with leased_devices(options.device) as (device,):
        if device.type == "cpu":
            keep_freed_memory()
        compute = Compute(device, autocast_dtype(device, options.precision), workers=0)
        ensemble = Ensemble(Path(options.ensemble), request.about, request.sha256)
        tta = NoTta(kind="none") if options.no_tta else None
        predictor = build_predictor(ensemble, request.members, compute, request.batch_size, threads, tta)
        yield predictor, f"{device.type}, {compute.dtype}"


def _require_torch(options: Namespace) -> None:
    missing = [package for package in ("torch", "torchvision") if find_spec(package) is None]
    if missing:
        raise EnsembleError(
            f"{options.ensemble} needs {' and '.join(missing)}: pip install {' '.join(missing)}. To predict without "
            "them, export the ensemble with kfold-export on a machine that has them"
        )


def _write(request: Request, predictor: Predictor | OnnxPredictor, table: PartialCsv, done: int) -> dict[str, str]:
    """Append the rows of all images that are not done; return the reasons for unreadable files, by name."""
    names, classes, columns = request.names[done:], request.about.classes, request.columns
    unreadable: dict[str, str] = {}
    with tqdm(total=len(request.names), initial=done, unit="img", disable=None, smoothing=0.05) as bar:
        for start, (answers, failed) in enumerate(predictor.answers(names)):
            rows = columns.rows(answers) if answers else {}
            if columns.errors:
                rows |= {name: columns.failed_row(name, reason, classes) for name, reason in failed.items()}
            batch = names[start * request.batch_size : (start + 1) * request.batch_size]
            table.append(rows[name] for name in batch if name in rows)
            unreadable |= failed
            bar.update(len(batch))
    return unreadable


def _reason(name: str) -> str:
    """Find the reason for a file without a row in an interrupted run."""
    again = decode(name, [1], "full")
    return again if isinstance(again, str) else "could not be read before the interruption"
