"""Which versions of what computes are installed."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "kfold_ens",
    "snakemake",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "scikit-learn",
    "cleanlab",
    "pillow",
    "safetensors",
)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result can depend on; empty for one that is not installed."""
    return {"Python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
