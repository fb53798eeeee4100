"""Pretrained weights: fetched once, hash checked, kept as safetensors, and loaded only where they fit."""

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
  and write the new file at backbone.weights."""


class WeightsError(KfoldError):
    """Pretrained weights are missing or not what they should be."""


def prepare_weights(section: config.Backbone, path: Path) -> None:
    """Put a backbone's pretrained weights at ``path`` as safetensors.

    ``section.weights`` is a file, or the name of published weights. torchvision's are downloaded, unless the file is in
    the folder of ``path`` already; timm's are fetched by timm.

    Raises:
        WeightsError: saying what to download from where, and where to put it.
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
            f"backbone.weights: timm's are called pretrained, not {section.weights!r}; or name a file, or none"
        )
    try:
        return create_timm_model(section.name, pretrained=True).state_dict()
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The pretrained weights of timm's {section.name} could not be fetched ({error}).\n"
            f"  Fetch them on a machine that can, and name the file at backbone.weights in the recipe."
        ) from None


PUBLISHED: dict[str, Callable[..., dict[str, Tensor]]] = {"torchvision": _torchvision_weights, "timm": _timm_weights}


def weights_url(section: config.TorchvisionBackbone) -> str:
    """Where torchvision publishes the weights of a name.

    Raises:
        WeightsError: listing the names there are.
    """
    published = {weights.name: weights.url for weights in get_model_weights(section.name)}
    if section.weights not in published:
        raise WeightsError(
            f"backbone.weights: {section.name} has no weights {section.weights!r}; "
            f"there are {', '.join(published)}, a .pth or .safetensors file, or none"
        )
    return published[section.weights]


def _fetched(url: str, folder: Path) -> Path:
    """The published file, downloaded where it is not in the folder yet; its name holds the start of its SHA-256."""
    file = folder / os.path.basename(urlparse(url).path)
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=_hash_prefix(file))
        except (URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"The pretrained weights could not be fetched ({error}).\n"
                f"  Download {url}\n  on a machine that can, put the file at {file}, and run again;\n"
                f"  or write a file of your own, or none, at backbone.weights in the recipe."
            ) from None
    _check_hash(file)
    return file


def _hash_prefix(file: Path) -> str | None:
    found = HASH_IN_NAME.search(file.name)
    return found.group(1) if found else None


def _check_hash(file: Path) -> None:
    prefix = _hash_prefix(file)
    if prefix and not sha256_of(file).startswith(prefix):
        raise WeightsError(f"{file} is damaged: its SHA-256 does not start with {prefix}. Remove it and run again.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dictionary from safetensors, or from a .pth file that holds nothing but tensors.

    Raises:
        WeightsError: naming the file. A pickle that holds code is refused, and its code does not run.
    """
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else _read_pth(path)
    except OSError as error:
        raise WeightsError(f"backbone.weights: {path} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged pickle raises whatever its bytes lead to
        raise WeightsError(f"backbone.weights: {path} {_why_unreadable(path, error)}") from None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise WeightsError(f"backbone.weights: {path} holds no state dictionary")
    return weights


def _why_unreadable(path: Path, error: Exception) -> str:
    """What is wrong with a file of weights. torch's own words would advise to run whatever code it holds."""
    if path.suffix != ".safetensors" and (names := names_in_pickle(path)):
        return (
            f"holds more than tensors, and to read it would run code:\n{listing(names)}\n"
            f"  Nothing of it was run. If you trust whoever made it, save its tensors alone, where it was made:\n"
            f"{CONVERSION.format(source=str(path), target=str(path.with_suffix('.tensors.pth')))}"
        )
    return "is damaged, or no file of weights" + ("" if isinstance(error, pickle.UnpicklingError) else f": {error}")


def _read_pth(path: Path) -> dict[str, Tensor]:
    weights = torch.load(path, map_location="cpu", weights_only=True)
    return weights.get("state_dict", weights) if isinstance(weights, dict) else weights


def load_backbone(backbone: nn.Module, path: Path, classifier: str = "fc.") -> None:
    """Load pretrained weights into a backbone; the classifier they came with is left behind.

    Raises:
        WeightsError: naming the tensors that do not fit.
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
        raise WeightsError(f"{path} does not fit the backbone in {len(faults)} tensors:\n{listing(faults)}")
    backbone.load_state_dict(weights, strict=False)
