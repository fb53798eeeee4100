"""``kfold-init``: start a project in a folder of images. Writes nothing over existing files."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

from kfold_ens.data.folders import folder_fault
from kfold_ens.errors import KfoldError
from kfold_ens.init.findings import Finding
from kfold_ens.init.guesses import guesses
from kfold_ens.init.project import files_of, recipes, write_new

KEPT, REFUSED = 1, 2  # exit codes
NEEDED = ("Snakefile", "config.yaml")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the project. Exit with 0, with 1 if a Snakefile or config.yaml was there already, or with 2 if refused."""
    options = _parser().parse_args(arguments)
    logging.getLogger("kfold_ens").setLevel(logging.ERROR)  # this prints its own reasons
    try:
        kept = _start(options.folder)
    except (KfoldError, OSError) as error:
        sys.exit(_refused(f"{options.folder}: {error}"))
    sys.exit(KEPT if set(NEEDED) & set(kept) else 0)


def _parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(
        prog="kfold-init",
        description="Write a Snakefile and a config.yaml into a folder of images, filled in from what lies there.",
    )
    parse.add_argument("folder", metavar="FOLDER", help="the folder that holds your images and tables")
    return parse


def _refused(message: str) -> int:
    print(f"ERROR: {message}", file=sys.stderr)
    return REFUSED


def _start(folder: str) -> list[str]:
    """Write the project's files; return the paths of those that were there already."""
    fault = folder_fault(folder)
    if fault and not fault.endswith("is empty"):
        raise KfoldError(f"{fault}. Create it and put your images and tables into it")
    with chdir(folder):
        summary, findings, skipped = guesses()
        files = files_of(findings)
        print(f"{Path.cwd()} holds {summary}.\n")
        _show(findings, skipped)
        kept = write_new(files)
    _show_files(files, kept)
    _show_next(folder, findings, "config.yaml" in kept)
    return kept


def _show(findings: Sequence[Finding], skipped: dict[str, str]) -> None:
    for finding in findings:
        print(finding.line())
    for path, reason in skipped.items():
        print(f"{path}: not used ({reason})")
    own, small = recipes()
    print(f"recipe: {own} (the default; needs a GPU. On a CPU, write recipe: {small} for a quick try)")


def _show_files(files: dict[str, str], kept: Sequence[str]) -> None:
    written = [path for path in files if path not in kept]
    print(f"\nWrote {', '.join(written)}." if written else "\nWrote nothing.")
    if kept:
        print(f"{', '.join(kept)} existed already and {'is' if len(kept) == 1 else 'are'} unchanged.")


def _show_next(folder: str, findings: Sequence[Finding], kept_config: bool) -> None:
    open_ones = [finding for finding in findings if not (finding.is_sure or finding.is_optional)]
    undecided = [f"{finding.section}.{key}" for finding in open_ones for key in finding.keys]
    if kept_config:
        print("The guesses above are not in your config.yaml. Copy what you need.")
    elif undecided:
        print(f"First decide in config.yaml: {', '.join(dict.fromkeys(undecided))}.")
    go = "" if Path(folder).samefile(".") else f"cd {shlex.quote(folder)} && "
    print(f"\nNext: {go}snakemake check\nThen: snakemake --cores 4 submission")


if __name__ == "__main__":
    main()
