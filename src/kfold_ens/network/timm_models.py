"""timm's models, where the extra of that name is installed."""

from __future__ import annotations

from torch import nn

from kfold_ens.errors import KfoldError


def create_timm_model(name: str, pretrained: bool = False) -> nn.Module:
    """One of timm's models without its classifier.

    Raises:
        KfoldError: where timm is not installed, or does not know the model.
    """
    try:
        import timm
    except ModuleNotFoundError:
        raise KfoldError("backbone: timm is not installed: pip install 'kfold_ens[timm]'") from None
    if not timm.is_model(name.split(".")[0]):
        raise KfoldError(f"backbone.name: timm has no model {name!r}; timm.list_models() lists them")
    return timm.create_model(name, pretrained=pretrained, num_classes=0)
