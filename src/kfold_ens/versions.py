"""The installed versions of Python and packages."""

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
    """Return the versions of Python and of packages that can affect results; empty if not installed."""
    return {"Python": platform.python_version()} | {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
