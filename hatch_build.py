"""Put the workflow into the wheel, where src/kfold_ens/workflow.py finds it. An editable install uses the clone's."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WORKFLOW = (
    *("Snakefile", "workflow", "recipes", "ablations", "profiles", "schemas"),
    *("config.yaml", "environment.yml", "environment.post-deploy.sh"),
)


class WorkflowFiles(BuildHookInterface):
    """Adds the files of the workflow to a wheel that is not editable."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before it builds the wheel."""
        if version == "standard":
            build_data["force_include"] |= {name: f"kfold_ens/workflow_files/{name}" for name in WORKFLOW}
