"""Write the files of a project: a Snakefile that imports the workflow, config.yaml, a profile and .gitignore."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from kfold_ens.files import atomic
from kfold_ens.init.findings import Finding
from kfold_ens.workflow import workflow_folder

RECIPES = re.compile(r"(?m)^recipe: (?P<small>\w+).*\n# recipe: (?P<own>\w+)")  # in the template
ONLY_IN_A_CLONE = re.compile(r" \(docs/[^)]*\)|; examples: ablations/\S+")  # files that a project lacks
SNAKEFILE = """\
from kfold_ens.workflow import SNAKEFILE


configfile: "config.yaml"


module kfold:
    snakefile:
        SNAKEFILE
    config:
        config


use rule * from kfold
"""
HEADER = """\
# Written by kfold-init. The data, the training and the submission. Paths are relative to this file.
# Any value can also be set on the command line: snakemake ... --config ensemble=vote
"""
PROFILE = "profiles/default/config.yaml"
NOT_IN_GIT = ("/.snakemake/", "/results/", "/resources/", "/state/", "/trained/", "/logs/")


def files_of(findings: Sequence[Finding]) -> dict[str, str]:
    """Return the text of each file of a project, by path."""
    return {
        "Snakefile": SNAKEFILE,
        "config.yaml": filled(_of_workflow("config.yaml"), findings),
        PROFILE: _of_workflow(PROFILE),
        ".gitignore": "".join(f"{name}\n" for name in NOT_IN_GIT),
    }


def recipes() -> tuple[str, str]:
    """Return the names of the recipe for one's own images, and of the small one for a CPU."""
    found = RECIPES.search(_of_workflow("config.yaml"))
    assert found, "config.yaml names no recipe for one's own images"
    return found["own"], found["small"]


def _of_workflow(file: str) -> str:
    return (workflow_folder() / file).read_text(encoding="utf-8")


def write_new(files: dict[str, str]) -> list[str]:
    """Write the files that do not exist. Return the paths of the others, which stay as they are."""
    existing = [path for path in files if os.path.lexists(path)]
    for path, text in files.items():
        if path not in existing:
            with atomic(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return existing


def filled(template: str, findings: Sequence[Finding]) -> str:
    """Fill findings into the workflow's config.yaml, in place of its lines about the same keys and about sources."""
    _, *parts = re.split(r"(?m)^(?=\w+:)", template)
    sections = (_with(part, [each for each in findings if part.startswith(f"{each.section}:")]) for part in parts)
    text = RECIPES.sub(r"recipe: \g<own>", ONLY_IN_A_CLONE.sub("", "".join(sections)))
    return f"{HEADER}\n{text}"


def _with(part: str, findings: Sequence[Finding]) -> str:
    """One section of the template, with what was found about it in front."""
    first, *lines = part.splitlines()
    keys = {"source", *(key for finding in findings for key in finding.keys)}
    about = re.compile(rf"  (# )?({'|'.join(keys)}): ")
    found = [f"  {line}" for finding in findings for line in finding.written()]
    return "\n".join([first, *found, *(line for line in lines if not about.match(line))]) + "\n"
