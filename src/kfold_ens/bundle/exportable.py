"""Check whether an ensemble can be exported as one graph. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from kfold_ens.bundle.about import EnsembleError, Member
from kfold_ens.config import Augmentation, HorizontalFlip, Tta, VerticalFlip, View
from kfold_ens.errors import Together, listing

FLIPS = (HorizontalFlip, VerticalFlip)  # the only steps of a test-time view that a graph can hold


def refuse_what_no_graph_holds(members: Sequence[Member]) -> None:
    """Refuse members with random test-time views or different short sides of stored images.

    Raises:
        EnsembleError: if there are such members; it lists the views and the short sides.
    """
    together = Together(EnsembleError)
    with together.gather():
        _refuse_random_views(members)
    with together.gather():
        _refuse_different_short_sides(members)
    together.raise_all()


def _refuse_random_views(members: Sequence[Member]) -> None:
    random = {view.name for member in members for view in _views(member.tta) if not all(map(_is_fixed, view.steps))}
    if random:
        raise EnsembleError(
            "these test-time views are random, but a graph can hold only flips with probability 1; add --no-tta to "
            f"export the evaluation view alone:\n{listing(sorted(random))}"
        )


def _refuse_different_short_sides(members: Sequence[Member]) -> None:
    short_sides = sorted({member.recipe.image.short_side for member in members})
    if len(short_sides) > 1:
        raise EnsembleError(
            f"the models store images with the short sides {short_sides}, but a graph can hold only one; export the "
            "models of one recipe with --folds"
        )


def _views(tta: Tta) -> Sequence[View]:
    return getattr(tta, "views", ())


def _is_fixed(step: Augmentation) -> bool:
    return isinstance(step, FLIPS) and step.probability == 1
