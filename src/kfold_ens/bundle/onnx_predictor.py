"""Predict with an exported ensemble, by onnxruntime alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfold_ens.bundle.about import About
from kfold_ens.bundle.answers import Answers, graph_answers
from kfold_ens.bundle.decoding import Batch, decoded_batches

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


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
        """Predict a batch, one shape of images at a time."""
        pixels = [image.pixels[self.about.short_side] for image in batch.images.values()]
        probabilities = np.empty((len(pixels), len(self.about.classes)), dtype=np.float32)
        votes = np.empty(probabilities.shape, dtype=np.int64)
        shapes = [image.shape for image in pixels]
        for shape in dict.fromkeys(shapes):
            places = [place for place, other in enumerate(shapes) if other == shape]
            inputs = {"pixels": np.stack([pixels[place] for place in places])}
            probabilities[places], votes[places] = self.session.run(["probabilities", "votes"], inputs)
        return graph_answers(np.array(list(batch.images), dtype=object), probabilities, votes, self.about)
