"""``kfold-export``: an ensemble file to one ONNX graph, which needs neither torch nor this package to run."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from argparse import Namespace
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kfold_ens.bundle.about import read_about
from kfold_ens.bundle.answers import Columns
from kfold_ens.bundle.command import REFUSED, count, end, log_to_terminal
from kfold_ens.bundle.exportable import refuse_what_no_graph_holds
from kfold_ens.bundle.listing import list_inputs
from kfold_ens.bundle.onnx_file import weights_beside
from kfold_ens.bundle.output import refuse_existing, refuse_place
from kfold_ens.bundle.run import Request, chosen_members, loaded
from kfold_ens.data.manifest import read_manifest
from kfold_ens.errors import KfoldError, Together
from kfold_ens.files import require_space
from kfold_ens.jobs import ASKING_TO_END, wait_briefly

log = logging.getLogger("kfold_ens.bundle")  # its own name is __main__ if it is run as a program

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `export`


def parser() -> argparse.ArgumentParser:
    """The options."""
    parse = argparse.ArgumentParser(prog="kfold-export", description="Export an ensemble file as one ONNX graph.")
    add = parse.add_argument
    add("ensemble", metavar="ENSEMBLE", help="the ensemble.safetensors of a run")
    add("--out", required=True, type=Path, help="the ONNX file to write")
    add("--images", nargs="+", metavar="IMAGES", help="images to check the graph with; default: the run's test images")
    add("--check", type=count, default=64, metavar="N", help="how many of them; default: 64, spread evenly")
    add("--folds", nargs="+", metavar="N", help="export only the models of these folds")
    add("--no-tta", action="store_true", help="export the evaluation view alone")
    add("--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="default: all processors")
    add("--force", action="store_true", help="replace what is there")
    parse.set_defaults(device="cpu", precision="fp32", batch_size=None)
    return parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, and exit with 0; with 2 if something was refused, and then nothing is written."""
    options = parser().parse_args(arguments)
    log_to_terminal()
    wait_briefly()
    for name in ASKING_TO_END:  # as an exception, so that what was written is removed
        signal.signal(name, lambda number, _: end("Interrupted. Nothing was written.", 128 + number))
    try:
        _export(options)
    except KfoldError as error:
        end(f"ERROR: {error}", REFUSED)
    except OSError as error:  # a full disk
        end(f"ERROR: --out: {error}. Nothing was written", REFUSED)


def _export(options: Namespace) -> None:
    request = accepted(options)
    with loaded(request) as (predictor, _):
        from kfold_ens.bundle.export import export_ensemble

        comparison = export_ensemble(predictor, request.names, options.out)
    log.info("%s: checked with onnxruntime on %d images: %s", options.out, comparison.images, comparison)


def accepted(options: Namespace) -> Request:
    """The request that options make, if there is nothing wrong with it.

    Raises:
        KfoldError: with all that is wrong with packages, ensemble, images and output.
    """
    together = Together(KfoldError)
    with together.gather():
        _require_packages()
    with together.gather():
        about, sha256 = read_about(options.ensemble)
        members = chosen_members(about, options.folds)
        if not options.no_tta:
            refuse_what_no_graph_holds(members)
    with together.gather():
        names = spread(list_inputs(options.images or _images_of_the_run(Path(options.ensemble))), options.check)
    with together.gather():
        _refuse_what_is_there(options.out, options.force)
    together.raise_all()
    require_space(options.out.absolute().parent, 2 * Path(options.ensemble).stat().st_size, f"writing {options.out}")
    return Request(options, about, sha256, members, Columns(), names)


def _require_packages() -> None:
    missing = [package for package in PACKAGES if find_spec(package) is None]
    if missing:
        raise KfoldError(
            f"kfold-export needs {', '.join(missing)}: pip install 'kfold_ens[export]' (in a clone: -e '.[export]')"
        )


def _images_of_the_run(ensemble: Path) -> list[str]:
    """The test images of the run in whose results an ensemble file lies.

    Raises:
        KfoldError: if it lies elsewhere.
    """
    results = ensemble.absolute().parent.parent
    manifest = results / "data" / "test.csv"
    names = [str(results.parent / path) for path in read_manifest(str(manifest))["path"]] if manifest.exists() else []
    if not names:
        raise KfoldError(f"--images: give test images to check the graph with, as there are none in {manifest}")
    return names


def spread(names: Sequence[str], count: int) -> list[str]:
    """At most ``count`` of the names, from the first to the last."""
    places = [round(place * (len(names) - 1) / max(1, count - 1)) for place in range(count)]
    return [names[place] for place in dict.fromkeys(places)]


def _refuse_what_is_there(out: Path, force: bool) -> None:
    if out.suffix != ".onnx":
        raise KfoldError(f"--out {out}: the name must end in .onnx")
    refuse_place(out)
    for file in (out, weights_beside(out)):
        refuse_existing(file, force)


if __name__ == "__main__":
    main()
