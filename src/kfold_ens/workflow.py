"""Where the workflow lies. A project's Snakefile imports it: ``from kfold_ens.workflow import SNAKEFILE``."""

from __future__ import annotations

from pathlib import Path


def workflow_folder() -> Path:
    """Return the folder of Snakefile, recipes and profiles: inside the installed package, or else its clone."""
    package = Path(__file__).resolve().parent
    installed = package / "workflow_files"  # from hatch_build.py
    return installed if installed.is_dir() else package.parents[1]


SNAKEFILE = str(workflow_folder() / "workflow" / "Snakefile")
