"""Compare a fold under its true labels with the same fold under other labels, and name what differs.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kfold_ens.certificate.artefacts import ARTEFACTS, CONTROLS, Artefact
from kfold_ens.files import fingerprint

if TYPE_CHECKING:  # it imports torch
    from kfold_ens.certificate.rebuild import Rebuild


@dataclass(frozen=True)
class Compared:
    """The values of an artefact or a control under the true and under other labels."""

    name: str
    true: Any
    other: Any
    reads: str = ""  # the key by which it reads held-out labels on purpose

    @cached_property
    def hashes(self) -> dict[str, str]:
        return {"true": fingerprint(self.true), "other": fingerprint(self.other)}

    @property
    def is_same(self) -> bool:
        return self.hashes["true"] == self.hashes["other"]

    def as_json(self) -> dict[str, Any]:
        reads = {"reads": self.reads} if self.reads else {}
        return {"name": self.name, **self.hashes, "is_same": self.is_same, **reads}


def compare(true: Rebuild, other: Rebuild, again: Callable[[], Rebuild]) -> dict[str, Any]:
    """Compare all artefacts of a fold: the entry of ``certificate.json`` about it.

    ``again`` rebuilds the fold under its true labels once more, to tell a leak from training that is not reproducible.
    """
    bench = true.bench
    artefacts = [_compared(name, each, true, other) for name, each in ARTEFACTS.items() if each.applies(bench)]
    controls = [
        Compared(name, each.build(true), each.build(other)) for name, each in CONTROLS.items() if each.applies(bench)
    ]
    place = f"fold {true.member.number}"
    findings = [f"{place}: {words}" for words in _findings(artefacts, controls, true, again)]
    changed = sum(label != other.label_of[image] for image, label in true.label_of.items())
    return {
        "fold": true.member.number,
        "held_out": len(true.fold.validation),
        "labels_changed": changed,
        "artefacts": [each.as_json() for each in artefacts],
        "controls": [each.as_json() for each in controls],
        "findings": findings,
    }


def _compared(name: str, artefact: Artefact, true: Rebuild, other: Rebuild) -> Compared:
    return Compared(name, artefact.build(true), artefact.build(other), artefact.reads(true.bench.recipe))


def _findings(
    artefacts: list[Compared], controls: list[Compared], true: Rebuild, again: Callable[[], Rebuild]
) -> Iterator[str]:
    """Name every artefact that reads held-out labels on purpose, and the first that changed.

    Later changes follow from the first one, unless they are of an artefact that is computed from the other folds.
    """
    has_changed = False
    for place, compared in enumerate(artefacts):
        if has_changed and not ARTEFACTS[compared.name].is_of_others:
            continue
        if not compared.is_same and not compared.reads and not _is_reproducible(compared, again):
            device = true.bench.compute.device
            yield f"{compared.name} changed even with the same labels, so nothing is proven on {device}; {ON_CPU}"
            return
        if compared.reads or not compared.is_same:
            yield _leak(compared, after=artefacts[place + 1 :])
        has_changed |= not compared.is_same
    scores = controls[0]  # a temperature may be 1 under both labels
    if scores.is_same:
        yield (
            f"{scores.name} did not change with the labels, so the other labels did not reach the rebuild and nothing "
            "is proven; report this as a bug of kfold_ens"
        )


ON_CPU = "certify with --config device=cpu precision=fp32"


def _is_reproducible(compared: Compared, again: Callable[[], Rebuild]) -> bool:
    return fingerprint(ARTEFACTS[compared.name].build(again())) == compared.hashes["true"]


def _leak(compared: Compared, after: list[Compared]) -> str:
    artefact = ARTEFACTS[compared.name]
    path = f"{compared.reads} looks at held-out labels" if compared.reads else artefact.path
    return f"{_difference(compared, after)}: {path}; {artefact.advice}"


def _difference(compared: Compared, after: list[Compared]) -> str:
    """Say what differs, with the values if they are numbers, and whether the model differs with it."""
    if compared.is_same:
        return f"{compared.name} may depend on held-out labels, though it is the same here"
    values = (compared.true, compared.other)
    numbers = all(isinstance(value, int | float) for value in values)
    shown = " ({:.6g} with the true ones, {:.6g} with others)".format(*values) if numbers else ""
    changed = [each.name for each in after if each.name == MODEL and not each.is_same]
    return f"{compared.name} changed with the labels{shown}{f', and so did {MODEL}' if changed else ''}"


MODEL = "model.safetensors"
