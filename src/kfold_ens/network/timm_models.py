"""Create timm's models, if the extra ``timm`` is installed."""

from __future__ import annotations

from torch import nn

from kfold_ens.errors import KfoldError


def create_timm_model(name: str, pretrained: bool = False) -> nn.Module:
    """Create a timm model without its classifier.

    Raises:
        KfoldError: if timm is not installed, or has no such model.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise KfoldError("backbone.kind: timm is not installed; run pip install 'kfold_ens[timm]'") from None
    if not timm.is_model(name.split(".")[0]):
        raise KfoldError(f"backbone.name: timm has no model {name!r}; timm.list_models() lists them")
    return timm.create_model(name, pretrained=pretrained, num_classes=0)
