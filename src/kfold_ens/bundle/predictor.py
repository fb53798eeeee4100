"""Predict with the members of an ensemble file. Each image is decoded once for all members and views."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from kfold_ens.bundle.about import Member
from kfold_ens.bundle.answers import Answers, answers_of
from kfold_ens.bundle.decoding import Batch, Stored, decoded_batches
from kfold_ens.bundle.ensemble_file import Ensemble
from kfold_ens.compute.compute import Compute
from kfold_ens.compute.inference import Most
from kfold_ens.config import EvaluationImage, Tta
from kfold_ens.loading.loader import EvaluationViews, stacked
from kfold_ens.logits import Logits
from kfold_ens.prediction.predict import logits_of_views, on_device
from kfold_ens.prediction.tta import build_views

Item = TypeVar("Item")
Views = dict[str, list[Tensor]]  # by ``_key``: a tensor (N, 3, size, size) uint8 per test-time view


@dataclass(frozen=True)
class Predictor:
    """Members of an ensemble on a device."""

    ensemble: Ensemble
    members: tuple[Member, ...]  # with the test-time views to use
    networks: tuple[nn.Module, ...]
    compute: Compute
    batch_size: int
    threads: int

    def answers(self, names: Sequence[str]) -> Iterator[tuple[Answers | None, dict[str, str]]]:
        """Yield the predictions of each batch (None if no image is readable) and the reasons for unreadable files."""
        for batch, logits in self.logits(names):
            yield answers_of(logits, self.ensemble.about) if logits else None, batch.failed

    def logits(self, names: Sequence[str]) -> Iterator[tuple[Batch, dict[str, Logits]]]:
        """Yield each batch with the logits of its images by member; empty if no image is readable."""
        short_sides = {member.recipe.image.short_side for member in self.members}
        intensity_range = self.ensemble.about.intensity_range
        batches = decoded_batches(names, self.batch_size, short_sides, intensity_range, self.threads)
        for batch, views in made_ahead((batch, self._views(batch)) for batch in batches):
            yield batch, self._logits_of(batch, views) if batch.images else {}

    def _views(self, batch: Batch) -> Views:
        return {key: _views_of(batch, *parts) for key, parts in self._kinds_of_views.items()} if batch.images else {}

    @cached_property
    def _kinds_of_views(self) -> dict[str, tuple[EvaluationImage, Tta]]:
        return {_key(member): (member.recipe.image, member.tta) for member in self.members}

    @cached_property
    def _most(self) -> dict[int, Most]:
        return defaultdict(Most)

    def _logits_of(self, batch: Batch, views: Views) -> dict[str, Logits]:
        logits, names = {}, np.array(list(batch.images), dtype=object)
        for place, (member, network) in enumerate(zip(self.members, self.networks, strict=True)):
            batches = [[view] for view in views[_key(member)]]
            image, most = member.recipe.image, self._most[place]
            values = logits_of_views(network, member.tta, batches, image, self.compute, most)
            logits[f"{member.recipe_name}/{member.name}"] = Logits(names, values, self.ensemble.about.classes)
        return logits


def build_predictor(
    ensemble: Ensemble,
    members: Sequence[Member],
    compute: Compute,
    batch_size: int,
    threads: int,
    tta: Tta | None = None,
) -> Predictor:
    """Load members of an ensemble onto the device. ``tta``, if given, replaces their test-time views."""
    networks = tuple(on_device(model, compute) for model in ensemble.models(members))
    used = tuple(member.model_copy(update={"tta": tta}) if tta else member for member in members)
    return Predictor(ensemble, used, networks, compute, batch_size, threads)


def _key(member: Member) -> str:
    return f"{member.recipe.image!r} {member.tta!r}"


def _views_of(batch: Batch, image: EvaluationImage, tta: Tta) -> list[Tensor]:
    """Make every test-time view of a batch's images."""
    store = Stored(list(batch.images.values()), image.short_side)
    sets = (EvaluationViews(store, list(batch.images), view, name) for name, view in build_views(tta, image).items())
    return [stacked([views[place] for place in range(len(views))]) for views in sets]


def made_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items, making the next one in a thread meanwhile. One thread keeps random views reproducible."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
