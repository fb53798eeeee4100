"""Predict with an exported ensemble, by onnxruntime alone. Imports no torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfold_ens.bundle.about import About, EnsembleError
from kfold_ens.bundle.answers import Answers, graph_answers
from kfold_ens.bundle.decoding import Batch, decoded_batches
from kfold_ens.errors import counted

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

log = logging.getLogger(__name__)

OUT_OF_MEMORY = ("failed to allocate", "out of memory", "bad_alloc", "bad allocation")


@dataclass(frozen=True)
class OnnxPredictor:
    """A graph, with the settings to read files for it."""

    session: InferenceSession
    about: About
    batch_size: int
    threads: int

    def answers(self, names: Sequence[str]) -> Iterator[tuple[Answers | None, dict[str, str]]]:
        """Yield the predictions of each batch (None if no image is readable) and the reasons for unreadable files."""
        short_sides = {self.about.short_side}
        for batch in decoded_batches(names, self.batch_size, short_sides, self.about.intensity_range, self.threads):
            yield self._answers(batch) if batch.images else None, batch.failed

    def _answers(self, batch: Batch) -> Answers:
        pixels = [image.pixels[self.about.short_side] for image in batch.images.values()]
        return self.answer(list(batch.images), pixels)

    def answer(self, names: Sequence[str], pixels: Sequence[np.ndarray]) -> Answers:
        """Predict images (height, width, 3) uint8 of any sizes, with one call of the graph per size."""
        shapes = [image.shape for image in pixels]
        probabilities = np.empty((len(pixels), len(self.about.classes)), dtype=np.float32)
        votes = np.empty(probabilities.shape, dtype=np.int64)
        for shape in dict.fromkeys(shapes):
            places = [place for place, other in enumerate(shapes) if other == shape]
            probabilities[places], votes[places] = self._run(np.stack([pixels[place] for place in places]))
        return graph_answers(np.array(names, dtype=object), probabilities, votes, self.about)

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities and votes (N, K) of images of one size; halves the batch if memory is too small.

        Raises:
            EnsembleError: if onnxruntime fails with a single image.
        """
        try:
            return tuple(self.session.run(["probabilities", "votes"], {"pixels": pixels}))
        except Exception as error:  # the errors of onnxruntime have no common base
            if len(pixels) == 1 or not any(words in str(error).lower() for words in OUT_OF_MEMORY):
                raise EnsembleError(f"onnxruntime failed with {counted(len(pixels), 'image')}: {error}") from None
        log.warning("out of memory: predicts %d images at a time", len(pixels) // 2)
        halves = [self._run(half) for half in np.array_split(pixels, 2)]
        probabilities, votes = (np.concatenate(parts) for parts in zip(*halves, strict=True))
        return probabilities, votes
