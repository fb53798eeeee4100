"""Export an ensemble file as one ONNX graph, and check the graph on images before it gets its final name."""

from __future__ import annotations

import glob
import logging
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from kfold_ens.bundle.about import FORMAT_VERSION, NO_HASH, About
from kfold_ens.bundle.answers import Answers
from kfold_ens.bundle.decoding import decode
from kfold_ens.bundle.graph import EnsembleGraph
from kfold_ens.bundle.onnx_file import FORMAT, open_session, put_hash, weights_beside
from kfold_ens.bundle.onnx_predictor import OnnxPredictor
from kfold_ens.bundle.predictor import Predictor
from kfold_ens.config import IntensityRange
from kfold_ens.data.pixels import stored_shape
from kfold_ens.errors import KfoldError, counted, listing
from kfold_ens.files import canonical, sha256_of, sync

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

log = logging.getLogger(__name__)

OPSET = 20  # supported by onnxruntime 1.17 and later
LARGEST_FILE = 1_500_000_000  # bytes of weights in the file of the graph; protobuf is limited to 2 GiB
TOLERANCE = 1e-3  # of a probability
SHRUNK = 8  # images that the graph also shrinks itself
LARGEST_SIDE = sys.maxsize  # a short side that no image is shrunk to


@dataclass(frozen=True)
class Comparison:
    """The difference between the predictions of a graph and those of its models."""

    images: int
    largest_difference: float
    relabelled: tuple[str, ...]  # images that get another label

    def refuse_difference(self) -> None:
        """Refuse a graph with other predictions.

        Raises:
            KfoldError: if a label differs or a probability differs too much; it lists images with another label.
        """
        if self.relabelled or not self.largest_difference < TOLERANCE:
            names = f". Images with another label:\n{listing(self.relabelled)}" if self.relabelled else ""
            raise KfoldError(
                f"the graph differs from the ensemble on {counted(self.images, 'image')}: {self}. "
                f"The largest difference must be below {TOLERANCE:g}, and no label may differ. "
                f"Nothing was written{names}"
            )

    def __str__(self) -> str:
        return f"{len(self.relabelled)} other labels, probabilities within {self.largest_difference:.2g}"


def export_ensemble(predictor: Predictor, images: Sequence[str], out: Path) -> Comparison:
    """Write the members of a predictor as one graph, if it predicts these images as they do.

    Raises:
        EnsembleError: if test-time views are random.
        KfoldError: if the graph predicts differently, or no image can be read. Then nothing is written.
    """
    about = predictor.ensemble.about.model_copy(update={"members": predictor.members})
    said = said_by_models(predictor, images)
    program = traced(about, predictor)
    with _folder_beside(out) as folder:
        comparison = _checked(program, about, predictor, images, said, folder / out.name)
        _write(program, _metadata(about, predictor.ensemble.sha256, comparison), folder / out.name)
        _put_in_place(folder, out)
    return comparison


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename the files, the graph last, so that a graph never has the weights of another one."""
    for old in (out, weights_beside(out)):
        old.unlink(missing_ok=True)
    for file in sorted(folder.iterdir(), key=lambda file: file.name == out.name):
        sync(file)
        file.replace(out.with_name(file.name))
    sync(out.parent)


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # of a killed process
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".tmp") as folder:
        yield Path(folder)


def traced(about: About, predictor: Predictor) -> ONNXProgram:
    """Trace the members as a graph from ``pixels`` (any number and size) to ``probabilities``, ``label``, ``votes``."""
    side = about.short_side
    pixels = torch.zeros((2, side + 3, side + 7, 3), dtype=torch.uint8)  # sizes that differ from all constants
    dynamic = {place: torch.export.Dim(name) for place, name in enumerate("NHW")}
    log.info("tracing %d models", len(predictor.networks))
    with warnings.catch_warnings(action="ignore"):  # torch warns about its own code
        program = torch.onnx.export(
            EnsembleGraph(about, predictor.networks).eval(),
            (pixels,),
            input_names=["pixels"],
            output_names=["probabilities", "label", "votes"],
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # None only from the exporter of TorchScript
    return program


def said_by_models(predictor: Predictor, images: Sequence[str]) -> list[Answers | None]:
    """Return the predictions of the models for each batch of these images.

    Raises:
        KfoldError: if no image can be read.
    """
    said = [answers for answers, _ in predictor.answers(images)]
    if not any(said):
        raise KfoldError(f"--images: no image to check the graph can be read (of {len(images)}); give others")
    return said


def _checked(
    program: ONNXProgram,
    about: About,
    predictor: Predictor,
    images: Sequence[str],
    said: Sequence[Answers | None],
    path: Path,
) -> Comparison:
    """Save the graph, and compare its predictions with those of the models for these images."""
    _save(program, path)
    session = open_session(path, "cpu", predictor.threads)
    graph = OnnxPredictor(session, about, predictor.batch_size, predictor.threads)
    comparison = compared(said, [answers for answers, _ in graph.answers(images)])
    comparison.refuse_difference()
    _compared_shrinking(graph, images).refuse_difference()
    return comparison


def _compared_shrinking(graph: OnnxPredictor, images: Sequence[str]) -> Comparison:
    """Compare a graph's predictions for images shrunk by Pillow and for the same images as decoded."""
    shrunk, whole = [], []
    for name in images[:: max(1, len(images) // SHRUNK)][:SHRUNK]:
        if (pixels := _whole(name, graph.about.intensity_range)) is not None:
            shrunk.append(graph.answer([name], [_by_pillow(pixels, graph.about.short_side)]))
            whole.append(graph.answer([name], [pixels]))
    return compared(shrunk, whole)


def _whole(name: str, intensity_range: IntensityRange) -> np.ndarray | None:
    """Decode an image (height, width, 3) uint8 at full size; None if it is unreadable."""
    decoded = decode(name, [LARGEST_SIDE], intensity_range)
    return None if isinstance(decoded, str) else decoded.pixels[LARGEST_SIDE]


def _by_pillow(pixels: np.ndarray, short_side: int) -> np.ndarray:
    height, width = stored_shape(pixels.shape[0], pixels.shape[1], short_side)
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def compared(said: Sequence[Answers | None], by_graph: Sequence[Answers | None]) -> Comparison:
    """Compare the predictions of models and graph for the same batches of images."""
    answered = [(models, graph) for models, graph in zip(said, by_graph, strict=True) if models and graph]
    differences = [np.abs(models.probabilities - graph.probabilities).max() for models, graph in answered]
    relabelled = tuple(name for models, graph in answered for name in _relabelled(models, graph))
    return Comparison(
        sum(len(models.image_id) for models, _ in answered), float(np.max(differences, initial=0)), relabelled
    )


def _relabelled(model: Answers, other: Answers) -> list[str]:
    return model.image_id[model.scores.argmax(axis=1) != other.scores.argmax(axis=1)].tolist()


def _metadata(about: About, ensemble: str, comparison: Comparison) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "about": canonical(about.written()),
        "ensemble_sha256": ensemble,
        "checked": f"{counted(comparison.images, 'image')}: {comparison}",
    }


def _write(program: ONNXProgram, metadata: dict[str, str], path: Path) -> None:
    """Write the checked graph again, with its metadata, the hash of its weights file, if any, and its own hash."""
    weights = {file.name: sha256_of(file) for file in path.parent.iterdir() if file != path}
    program.model.metadata_props.update(metadata | {"weights": canonical(weights), "sha256": NO_HASH})
    _save(program, path)
    put_hash(path)


def _save(program: ONNXProgram, path: Path) -> None:
    weights = [value.const_value for value in program.model.graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    program.save(path, external_data=size > LARGEST_FILE)
