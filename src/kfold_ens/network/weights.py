"""Pretrained weights: downloaded once, checked by hash, stored as safetensors, and loaded only if they fit."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from kfold_ens import config
from kfold_ens.errors import KfoldError, listing
from kfold_ens.files import atomic, sha256_of
from kfold_ens.network.pickles import names_in_pickle
from kfold_ens.network.tensor_files import save_tensors
from kfold_ens.network.timm_models import create_timm_model

HASH_IN_NAME = re.compile(r"-([a-f0-9]{8,})\.")


CONVERSION = """\
    import torch
    made = torch.load({source!r}, map_location="cpu", weights_only=False)
    made = made.state_dict() if hasattr(made, "state_dict") else made.get("state_dict", made)
    torch.save(dict(made), {target!r})
  and set backbone.weights to the new file."""


class WeightsError(KfoldError):
    """Pretrained weights are missing or wrong."""


def prepare_weights(section: config.Backbone, path: Path) -> None:
    """Write a backbone's pretrained weights to ``path`` as safetensors.

    ``section.weights`` is a file, or the name of published weights. torchvision's are downloaded, unless the file is
    already in the folder of ``path``; timm downloads its own.

    Raises:
        WeightsError: saying what to download, from where, and where to put it.
    """
    local = Path(section.weights)
    weights = read_weights(local) if local.suffix else PUBLISHED[section.kind](section, path.parent)
    with atomic(path) as temporary:
        save_tensors(temporary, weights)


def _torchvision_weights(section: config.TorchvisionBackbone, folder: Path) -> dict[str, Tensor]:
    return read_weights(_fetched(weights_url(section), folder))


def _timm_weights(section: config.TimmBackbone, folder: Path) -> dict[str, Tensor]:
    if section.weights != "pretrained":
        raise WeightsError(
            f"backbone.weights: a timm backbone has no weights {section.weights!r}; write pretrained, a .pth or "
            ".safetensors file, or none"
        )
    try:
        return create_timm_model(section.name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"backbone.weights: could not download timm's weights of {section.name} ({error}).\n"
            "  Download them on a machine with internet access, and set backbone.weights in the recipe to the file."
        ) from None


PUBLISHED: dict[str, Callable[..., dict[str, Tensor]]] = {"torchvision": _torchvision_weights, "timm": _timm_weights}


def weights_url(section: config.TorchvisionBackbone) -> str:
    """The URL of torchvision's weights by their name.

    Raises:
        WeightsError: listing the published names, if there is no such name.
    """
    published = {weights.name: weights.url for weights in get_model_weights(section.name)}
    if section.weights not in published:
        raise WeightsError(
            f"backbone.weights: {section.name} has no weights {section.weights!r}; "
            f"write {', '.join(published)}, a .pth or .safetensors file, or none"
        )
    return published[section.weights]


def _fetched(url: str, folder: Path) -> Path:
    """Download the published file if the folder lacks it, and check it by the start of the SHA-256 in its name."""
    file = folder / os.path.basename(urlparse(url).path)
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=_hash_prefix(file))
        except (URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"backbone.weights: could not download the pretrained weights ({error}).\n"
                f"  Download {url}\n  on a machine with internet access, copy the file to {file}, and rerun;\n"
                f"  or set backbone.weights in the recipe to a file of yours, or to none."
            ) from None
    _check_hash(file)
    return file


def _hash_prefix(file: Path) -> str | None:
    found = HASH_IN_NAME.search(file.name)
    return found.group(1) if found else None


def _check_hash(file: Path) -> None:
    prefix = _hash_prefix(file)
    if prefix and not sha256_of(file).startswith(prefix):
        raise WeightsError(
            f"backbone.weights: {file} is damaged: its SHA-256 does not start with {prefix}; remove it and rerun"
        )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from safetensors, or from a .pth file that holds only tensors.

    Raises:
        WeightsError: naming the file. A pickle that holds code is refused without running the code.
    """
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else _read_pth(path)
    except OSError as error:
        raise WeightsError(f"backbone.weights: {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle may raise anything
        raise WeightsError(f"backbone.weights: {path} {_why_unreadable(path, error)}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"backbone.weights: {path} is not a state dictionary; save model.state_dict() instead")
    return weights


def _why_unreadable(path: Path, error: Exception) -> str:
    """Say what is wrong with a weights file. torch's message would advise running the code in it."""
    if path.suffix != ".safetensors" and (names := names_in_pickle(path)):
        return (
            f"holds more than tensors; loading it would run this code:\n{listing(names)}\n"
            f"  Nothing was run. If you trust its author, save only its tensors, on the machine where it was made:\n"
            f"{CONVERSION.format(source=str(path), target=str(path.with_suffix('.tensors.pth')))}"
        )
    return "is damaged, or not a file of weights" + ("" if isinstance(error, pickle.UnpicklingError) else f": {error}")


def _read_pth(path: Path) -> dict[str, Tensor]:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return weights.get("state_dict", weights) if isinstance(weights, dict) else weights


def load_backbone(backbone: nn.Module, path: Path, classifier: str = "fc.") -> None:
    """Load pretrained weights into a backbone, without the classifier that they came with.

    Raises:
        WeightsError: listing the tensors that do not fit.
    """
    weights = {name: tensor for name, tensor in read_weights(path).items() if not name.startswith(classifier)}
    own = backbone.state_dict()
    own_required = {name for name in own if not name.endswith("num_batches_tracked")}
    faults = [f"{name}: missing" for name in sorted(own_required - set(weights))]
    faults += [f"{name}: not part of the network" for name in sorted(set(weights) - set(own))]
    faults += [
        f"{name}: shape {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(set(own) & set(weights))
        if own[name].shape != weights[name].shape
    ]
    if faults:
        raise WeightsError(
            f"backbone.weights: {path} does not fit the backbone; {len(faults)} tensors differ:\n{listing(faults)}"
        )
    backbone.load_state_dict(weights, strict=False)
