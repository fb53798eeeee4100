"""The ensemble file: the weights of all members, without pickle."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open

from kfold_ens.bundle.about import FORMAT, FORMAT_VERSION, NO_HASH, About, Member, put_hash, read_about
from kfold_ens.bundle.rounding import as_float32
from kfold_ens.files import atomic, canonical, require_space
from kfold_ens.network.classifier import TrainedModel
from kfold_ens.network.tensor_files import save_tensors


@dataclass(frozen=True)
class Ensemble:
    """A checked ensemble file: its metadata, the hash of its content, and its models."""

    path: Path
    about: About
    sha256: str

    def models(self, members: Collection[Member] | None = None) -> Iterator[TrainedModel]:
        """Yield all or some members in order, with weights in float32.

        Weights stored in float32 are read from the file only when used.
        """
        with safe_open(self.path, framework="pt") as file:
            names = list(file.keys())
            for place, member in enumerate(self.about.members):
                if members is not None and member not in members:
                    continue
                start = _prefix(place)
                weights = {name.removeprefix(start): file.get_tensor(name) for name in names if name.startswith(start)}
                yield as_float32(TrainedModel(member.recipe, self.about.classes, member.fingerprint, weights))


def read_ensemble(path: str | Path) -> Ensemble:
    """Read and check an ensemble file.

    Raises:
        EnsembleError: if it is not an ensemble file, has a newer format, or is damaged.
    """
    return Ensemble(Path(path), *read_about(path))


def write_ensemble(path: str | Path, about: About, models: Sequence[TrainedModel]) -> None:
    """Write an ensemble atomically. Equal models and metadata give equal bytes.

    ``models`` are those of ``about.members``, in that order.

    Raises:
        KfoldError: if there is not enough disk space.
    """
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "about": canonical(about.written()),
        "sha256": NO_HASH,
    }
    tensors = {
        f"{_prefix(place)}{name}": tensor
        for place, model in enumerate(models)
        for name, tensor in model.weights.items()
    }
    require_space(Path(path).absolute().parent, sum(tensor.nbytes for tensor in tensors.values()), f"writing {path}")
    with atomic(path) as temporary:
        save_tensors(temporary, tensors, metadata)
        put_hash(temporary)


def _prefix(place: int) -> str:
    return f"members.{place}."
