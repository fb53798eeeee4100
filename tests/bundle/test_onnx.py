"""An ensemble as an ONNX file: export, check, and prediction without torch."""

import csv
import shutil
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from bundles import CLASSES, tiny_ensemble
from conftest import REPOSITORY, log_restored, write_image
from PIL import Image
from test_graph import FLIPPED

from kfold_ens.bundle import command, export, export_command, onnx_file
from kfold_ens.bundle.about import EnsembleError
from kfold_ens.bundle.answers import Answers
from kfold_ens.bundle.graph import EnsembleGraph
from kfold_ens.bundle.onnx_file import read_onnx
from kfold_ens.bundle.onnx_predictor import OnnxPredictor
from kfold_ens.errors import KfoldError

pytestmark = pytest.mark.slow

SIZES = [(16, 16), (20, 16), (16, 31), (70, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An ensemble, new images of several shapes, one of them damaged, and the exported graph."""
    folder = tmp_path_factory.mktemp("onnx")
    tiny_ensemble(folder / "ensemble.safetensors", count=2, tta=FLIPPED, temperature=0.3)
    for number in range(12):
        write_image(folder / f"new/{number:02d}.png", 20 * number, number, SIZES[number % len(SIZES)])
    (folder / "new/05.png").write_bytes((folder / "new/05.png").read_bytes()[:60])
    assert exported(folder, folder / "ensemble.onnx") == 0
    return folder


@pytest.fixture(autouse=True, scope="module")
def _log_as_before():
    with log_restored():
        yield


def exit_code(main, *arguments):
    try:
        main([str(each) for each in arguments])
    except SystemExit as end:
        return end.code
    return 0


def exported(folder, out, *options):
    images = ("--images", folder / "new")
    return exit_code(export_command.main, folder / "ensemble.safetensors", "--out", out, *images, *options)


def predicted(folder, ensemble, out, *options):
    """The exit code and the rows."""
    arguments = (ensemble, folder / "new", "--out", out, "--batch-size", 5, "--top-k", 3, "--probabilities", *options)
    code = exit_code(command.main, *arguments)
    return code, list(csv.DictReader(out.open(encoding="utf-8"))) if out.exists() else []


def assert_same_answers(rows, others):
    assert len(rows) == len(others) == 11
    for row, other in zip(rows, others, strict=True):
        for column, value in row.items():
            if column.startswith(("p", "entropy")):
                assert float(value) == pytest.approx(float(other[column]), abs=1e-4)
            else:
                assert value == other[column]


def test_the_graph_predicts_what_the_models_predict(folder, tmp_path):
    code, models = predicted(folder, folder / "ensemble.safetensors", tmp_path / "models.csv", "--precision", "fp32")
    assert code == 3
    code, graph = predicted(folder, folder / "ensemble.onnx", tmp_path / "graph.csv")
    assert code == 3
    assert_same_answers(models, graph)


WITHOUT = """
import sys
for name in ("torch", "torchvision", "safetensors", "snakemake", "sklearn", "matplotlib", "onnx", "onnxscript"):
    sys.modules[name] = None
from kfold_ens.bundle.command import main
main(sys.argv[1:])
"""


def test_the_graph_predicts_without_torch(folder, tmp_path):
    out = tmp_path / "out.csv"
    arguments = [folder / "ensemble.onnx", folder / "new/00.png", folder / "new/03.png", "--out", out]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text(encoding="utf-8").splitlines()) == 3


def test_models_ask_for_torch(folder, tmp_path):
    arguments = [folder / "ensemble.safetensors", folder / "new/00.png", "--out", tmp_path / "out.csv"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "needs torch and torchvision: pip install torch torchvision" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_alone_runs_the_graph_on_pixels_of_any_size(folder):
    session = onnxruntime.InferenceSession(folder / "ensemble.onnx", providers=["CPUExecutionProvider"])
    for shape in [(1, 16, 16, 3), (5, 40, 90, 3), (2, 9, 30, 3)]:
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        probabilities, label, votes = session.run(None, {"pixels": pixels})
        assert probabilities.shape == votes.shape == (shape[0], len(CLASSES))
        assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-5
        assert (label == probabilities.argmax(axis=1)).all()
        assert (votes.sum(axis=1) == 2).all()
    assert session.get_modelmeta().custom_metadata_map["checked"].startswith("11 images: 0 other labels")


def test_the_export_is_a_valid_model(folder):
    onnx.checker.check_model(str(folder / "ensemble.onnx"), full_check=True)


def test_any_changed_byte_is_detected(folder, tmp_path):
    whole = (folder / "ensemble.onnx").read_bytes()
    path, random = tmp_path / "ensemble.onnx", np.random.default_rng(0)
    content = bytearray(whole)
    at = whole.rfind(b"sha256\x12\x40")
    for place in [0, 1, at, at + 8, at + 40, len(whole) - 1, *random.integers(len(whole), size=20)]:
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(EnsembleError, match=f"^{path} (is damaged|is not an ensemble)"):
            read_onnx(path)
        content[place] = whole[place]


OTHER_FILES = {
    "empty": lambda whole: b"",
    "cut": lambda whole: whole[:-1],
    "half": lambda whole: whole[: len(whole) // 2],
    "longer": lambda whole: whole + b"\0",
    "a page of HTML": lambda whole: b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_files_that_are_not_intact_graphs_are_refused_by_name(content, folder, tmp_path):
    path = tmp_path / "ensemble.onnx"
    path.write_bytes(content((folder / "ensemble.onnx").read_bytes()))
    with pytest.raises(EnsembleError, match=f"^{path} is (damaged|not an ensemble)"):
        read_onnx(path)


def changed_metadata(folder, path, **values):
    """The exported graph with other metadata and a valid hash."""
    model = onnx.load(folder / "ensemble.onnx")
    for entry in model.metadata_props:
        entry.value = values.get(entry.key, entry.value)
    onnx.save(model, path)
    onnx_file.put_hash(path)
    return path


def test_another_tools_graph_and_a_newer_format_are_refused_as_such(folder, tmp_path):
    other = changed_metadata(folder, tmp_path / "other.onnx", format="of another tool")
    with pytest.raises(EnsembleError, match="is not an ensemble of kfold_ens"):
        read_onnx(other)
    newer = changed_metadata(folder, tmp_path / "newer.onnx", format_version="2")
    with pytest.raises(EnsembleError, match="has format 2.*install a newer kfold_ens"):
        read_onnx(newer)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(EnsembleError, match="there is no file"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(EnsembleError, match="cannot be read: Is a directory"):
        read_onnx(tmp_path / "folder.onnx")


def test_large_weights_are_a_second_file_that_is_checked_too(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "LARGEST_FILE", 0)
    (tmp_path / "large.onnx.data").write_text("the user's")
    assert exported(folder, tmp_path / "large.onnx") == 2
    assert "large.onnx.data exists; --force replaces it" in capsys.readouterr().err
    assert exported(folder, tmp_path / "large.onnx", "--force") == 0
    weights = tmp_path / "large.onnx.data"
    assert {path.name for path in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    assert weights.stat().st_size > 50 * (tmp_path / "large.onnx").stat().st_size
    _, models = predicted(folder, folder / "ensemble.safetensors", tmp_path / "models.csv", "--precision", "fp32")
    _, graph = predicted(folder, tmp_path / "large.onnx", tmp_path / "graph.csv")
    assert_same_answers(models, graph)
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EnsembleError, match=f"^{weights} is damaged"):
        read_onnx(tmp_path / "large.onnx")
    weights.write_bytes(b"<!doctype html>")
    with pytest.raises(EnsembleError, match=f"^{weights} is damaged"):
        read_onnx(tmp_path / "large.onnx")
    weights.unlink()
    with pytest.raises(EnsembleError, match="large.onnx needs large.onnx.data beside it"):
        read_onnx(tmp_path / "large.onnx")


def other_probabilities(forward, graph, pixels):
    probabilities, label, votes = forward(graph, pixels)
    return (probabilities + 0.002) / (1 + 0.002 * len(CLASSES)), label, votes


def large_images_as_black(forward, graph, pixels):
    is_small = torch.sym_min(1, 17 // torch.sym_min(*pixels.shape[1:3]))
    return forward(graph, (pixels.to(torch.float32) * is_small).to(torch.uint8))


@pytest.mark.parametrize("wrong", [other_probabilities, large_images_as_black])
def test_a_graph_with_other_answers_is_not_written(wrong, folder, tmp_path, monkeypatch, capsys):
    forward = EnsembleGraph.forward
    monkeypatch.setattr(EnsembleGraph, "forward", lambda graph, pixels: wrong(forward, graph, pixels))
    left = tmp_path / ".wrong.onnx.killed.tmp"
    left.mkdir()
    assert exported(folder, tmp_path / "wrong.onnx") == 2
    told = capsys.readouterr().err
    assert "the graph differs from the ensemble on" in told
    assert "Nothing was written" in told
    assert list(tmp_path.iterdir()) == []


def answers(probabilities):
    values = np.array(probabilities)
    names = np.array([str(row) for row in range(len(values))], dtype=object)
    return Answers(names, values, values, np.zeros(values.shape, dtype=int), ("a", "b"))


def test_a_graph_with_nan_is_refused():
    right, wrong = answers([[0.6, 0.4]]), answers([[np.nan, np.nan]])
    with pytest.raises(KfoldError, match="the graph differs"):
        export.compared([right, right], [right, wrong]).refuse_difference()


class FullMemory:
    """A session that can hold two images."""

    def run(self, names, inputs):
        if len(inputs["pixels"]) > 2:
            raise RuntimeError("Failed to allocate memory for requested buffer")
        return [np.full((len(inputs["pixels"]), len(CLASSES)), 1 / 3, dtype=np.float32)] * 2


def test_a_batch_is_halved_if_memory_is_too_small(folder, caplog):
    about, _ = read_onnx(folder / "ensemble.onnx")
    graph = OnnxPredictor(FullMemory(), about, 8, 1)
    said = graph.answer(list("abcdefg"), [np.zeros((4, 4, 3), dtype=np.uint8)] * 7)
    assert said.image_id.tolist() == list("abcdefg")
    assert said.probabilities.shape == (7, 3)


def test_the_lines_in_the_docs_print_what_kfold_predict_says(folder, tmp_path):
    page = (REPOSITORY / "docs/predict.md").read_text(encoding="utf-8")
    lines = page.split("```python\n")[1].split("```")[0]
    shutil.copy(folder / "ensemble.onnx", tmp_path)
    shutil.copy(folder / "new/03.png", tmp_path / "new.png")
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=tmp_path)
    label, probability, votes = done.stdout.rsplit(maxsplit=2)
    _, rows = predicted(folder, folder / "ensemble.onnx", tmp_path / "out.csv")
    row = next(row for row in rows if row["image"].endswith("03.png"))
    assert (label, votes) == (row["label"], row["agreement"])
    assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-5)


def test_all_that_prevents_an_export_is_reported_at_once(folder, tmp_path, capsys):
    (tmp_path / "there.onnx").touch()
    (tmp_path / "ensemble.safetensors").write_bytes((folder / "ensemble.safetensors").read_bytes())
    arguments = (tmp_path / "ensemble.safetensors", "--out", tmp_path / "there.onnx", "--folds", 7)
    assert exit_code(export_command.main, *arguments) == 2
    told = capsys.readouterr().err
    assert "--images: give test images" in told
    assert "there.onnx exists; --force replaces it" in told
    assert "--folds: the ensemble has no fold7" in told
    assert exit_code(export_command.main, *arguments[:2], tmp_path / "there.bin") == 2
    assert "must end in .onnx" in capsys.readouterr().err


def test_an_export_without_readable_images_is_refused(folder, tmp_path, capsys):
    assert exported(folder, tmp_path / "e.onnx", "--images", folder / "new/05.png") == 2
    assert "no image to check the graph can be read (of 1)" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--folds", "0"], ["--no-tta"], ["--precision", "bf16"]], ids=lambda o: o[0])
def test_options_that_are_fixed_in_a_graph_are_refused(options, folder, tmp_path, capsys):
    code, rows = predicted(folder, folder / "ensemble.onnx", tmp_path / "out.csv", *options)
    assert (code, rows) == (2, [])
    option = " ".join(options) if options[0] == "--precision" else options[0]
    assert f"{option}: an exported graph cannot be changed" in capsys.readouterr().err


def test_the_test_images_of_the_run_check_the_graph(folder, tmp_path):
    results = tmp_path / "results"
    (results / "tiny").mkdir(parents=True)
    (results / "data").mkdir()
    ensemble = results / "tiny/ensemble.safetensors"
    ensemble.write_bytes((folder / "ensemble.safetensors").read_bytes())
    Image.new("RGB", (16, 16)).save(tmp_path / "test.png")
    (results / "data/test.csv").write_text("path,width,height\ntest.png,16,16\n", encoding="utf-8")
    assert exit_code(export_command.main, ensemble, "--out", tmp_path / "e.onnx", "--no-tta") == 0


def test_images_to_check_are_spread_evenly():
    assert export_command.spread(list("abcdefghi"), 3) == ["a", "e", "i"]
    assert export_command.spread(list("ab"), 64) == ["a", "b"]
    assert export_command.spread(list("abc"), 1) == ["a"]
