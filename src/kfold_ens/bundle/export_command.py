"""``kfold-export``: export an ensemble file as one ONNX graph, which runs without torch and this package."""

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

log = logging.getLogger("kfold_ens.bundle")  # __name__ may be __main__

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # of the extra `export`


def parser() -> argparse.ArgumentParser:
    """Build the parser of the options."""
    parse = argparse.ArgumentParser(prog="kfold-export", description="Export an ensemble file as one ONNX graph.")
    add = parse.add_argument
    add("ensemble", metavar="ENSEMBLE", help="the ensemble.safetensors of a run")
    add("--out", required=True, type=Path, help="the ONNX file to write")
    add("--images", nargs="+", metavar="IMAGES", help="images to check the graph; default: the run's test images")
    add("--check", type=count, default=64, metavar="N", help="number of images to check, spread evenly; default: 64")
    add("--folds", nargs="+", metavar="N", help="export only the models of these folds")
    add("--no-tta", action="store_true", help="export the evaluation view alone")
    add("--threads", type=count, default=os.cpu_count() or 1, metavar="N", help="default: all processors")
    add("--force", action="store_true", help="replace an existing file")
    parse.set_defaults(device="cpu", precision="fp32", batch_size=None)
    return parse


def main(arguments: Sequence[str] | None = None) -> None:
    """Export and exit with 0, or with 2 if something was refused. Then nothing is written."""
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
        from kfold_ens.bundle.predictor import Predictor

        assert isinstance(predictor, Predictor)  # an ensemble file, not a graph
        comparison = export_ensemble(predictor, request.names, options.out)
    log.info("%s: checked with onnxruntime on %d images: %s", options.out, comparison.images, comparison)


def accepted(options: Namespace) -> Request:
    """Check the options and return the request.

    Raises:
        KfoldError: listing all errors in packages, ensemble, images and output.
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
    """List the test images of the run whose results contain the ensemble file.

    Raises:
        KfoldError: if the file is elsewhere.
    """
    results = ensemble.absolute().parent.parent
    manifest = results / "data" / "test.csv"
    names = [str(results.parent / path) for path in read_manifest(str(manifest))["path"]] if manifest.exists() else []
    if not names:
        raise KfoldError(f"--images: give test images to check the graph, since there are none in {manifest}")
    return names


def spread(names: Sequence[str], count: int) -> list[str]:
    """Select at most ``count`` names, spread evenly from the first to the last."""
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
