import hashlib
import json
import os
import re
import sys

import numpy as np
import pytest
import torch
from bundles import CLASSES, about_of, tiny_ensemble, tiny_models
from disks import run_on_a_disk
from safetensors import safe_open
from safetensors.torch import save_file

from kfold_ens.bundle.about import EnsembleError, read_about
from kfold_ens.bundle.ensemble_file import read_ensemble


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tiny_ensemble(tmp_path_factory.mktemp("ensemble") / "ensemble.safetensors", scores={"metric": "ümläut"})


def test_a_written_ensemble_is_read_unchanged(file):
    ensemble = read_ensemble(file)
    models = tiny_models()
    assert ensemble.about == about_of(models, scores={"metric": "ümläut"})
    for model, again in zip(models, ensemble.models(), strict=True):
        assert (again.recipe, again.classes, again.fingerprint) == (model.recipe, CLASSES, model.fingerprint)
        assert again.weights.keys() == model.weights.keys()
        assert all(torch.equal(tensor, model.weights[name]) for name, tensor in again.weights.items())


def test_safetensors_reads_an_ensemble_and_sha256_checks_it(file):
    with safe_open(file, framework="np") as content:
        assert content.get_tensor("members.2.head.bias").shape == (3,)
        own = content.metadata()["sha256"]
    assert hashlib.sha256(file.read_bytes().replace(own.encode(), b"0" * 64)).hexdigest() == own


def test_equal_ensembles_are_equal_files(file, tmp_path):
    contents = {tiny_ensemble(tmp_path / f"{number}", scores={"metric": "ümläut"}).read_bytes() for number in range(4)}
    assert contents == {file.read_bytes()}


def test_other_weights_or_metadata_give_another_hash(file, tmp_path):
    hashes = {read_about(file)[1]}
    for number, values in enumerate([{}, {"method": "vote"}, {"temperature": 1.5}]):
        hashes.add(read_about(tiny_ensemble(tmp_path / f"{number}", **values))[1])
    hashes.add(read_about(tiny_ensemble(tmp_path / "fewer", count=2))[1])
    assert len(hashes) == 5


def test_any_changed_byte_is_detected(file, tmp_path):
    whole, path = file.read_bytes(), tmp_path / "ensemble.safetensors"
    start = 8 + int.from_bytes(whole[:8], "little")
    random = np.random.default_rng(0)
    places = [*range(12), whole.index(b'"sha256"') + 20, start - 1, start, len(whole) - 1]
    content = bytearray(whole)
    for place in [*places, *random.integers(start, size=80), *random.integers(len(whole), size=5)]:
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(EnsembleError, match=f"^{path} (is damaged|is not an ensemble|has format)"):
            read_about(path)
        content[place] = whole[place]


OTHER_FILES = {
    "empty": lambda whole: b"",
    "cut in the length": lambda whole: whole[:5],
    "cut in the header": lambda whole: whole[:100],
    "cut in the weights": lambda whole: whole[:-1],
    "longer": lambda whole: whole + b"\0",
    "garbage": lambda whole: b"\xff" * 64,
    "a list": lambda whole: (2).to_bytes(8, "little") + b"[]",
    "a page of HTML": lambda whole: b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_files_that_are_not_intact_ensembles_are_refused_by_name(content, file, tmp_path):
    path = tmp_path / "ensemble.safetensors"
    path.write_bytes(content(file.read_bytes()))
    with pytest.raises(EnsembleError, match=f"^{path} is (damaged|not an ensemble)"):
        read_about(path)


def test_a_single_model_is_not_an_ensemble(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors", metadata={"classes": "[]"})
    with pytest.raises(EnsembleError, match="is not an ensemble of kfold_ens"):
        read_about(tmp_path / "model.safetensors")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(EnsembleError, match="there is no file .*missing"):
        read_about(tmp_path / "missing")
    with pytest.raises(EnsembleError, match="cannot be read: Is a directory"):
        read_about(tmp_path)


def test_a_newer_format_is_refused_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr("kfold_ens.bundle.ensemble_file.FORMAT_VERSION", 2)
    path = tiny_ensemble(tmp_path / "newer")
    with pytest.raises(EnsembleError, match="has format 2, but this kfold_ens reads up to 1; install a newer"):
        read_about(path)


def test_keys_of_another_version_are_refused_with_both_versions(tmp_path, monkeypatch):
    newer = json.dumps(about_of(tiny_models(1)).model_dump(mode="json") | {"newest_key": 1})
    monkeypatch.setattr("kfold_ens.bundle.ensemble_file.canonical", lambda _: newer)
    path = tiny_ensemble(tmp_path / "newer", count=1)
    with pytest.raises(
        EnsembleError, match=r"(?s)written by kfold_ens 0.*, which 0.* cannot read; install 0.*newest_key"
    ):
        read_about(path)


def test_a_failed_write_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("kfold_ens.bundle.ensemble_file.put_hash", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tiny_ensemble(tmp_path / "ensemble.safetensors")
    assert list(tmp_path.iterdir()) == []


WITHOUT_ROOM = """
import os
from pathlib import Path
from bundles import tiny_ensemble
from kfold_ens.bundle import ensemble_file
ensemble_file.require_space = ensemble_file.require_space if {looks} else lambda *arguments: None
try:
    tiny_ensemble(Path("ensemble.safetensors"))
finally:
    print(os.listdir())
"""


@pytest.mark.parametrize(
    ("looks", "words"),
    [
        (
            True,
            r"KfoldError: writing ensemble.safetensors needs 0.13 GB below /\S+, but only 0.00 GB are free",
        ),
        (False, r"OSError: \S+\.ensemble.safetensors.\w+.tmp cannot be written: .*No space left on device"),
    ],
    ids=["full at the start", "filled in between"],
)
def test_a_full_disk_is_reported_and_leaves_no_file(looks, words, tmp_path):
    tests = os.pathsep.join(sys.path)
    done = run_on_a_disk(tmp_path / "small", "4m", WITHOUT_ROOM.format(looks=looks), PYTHONPATH=tests)
    assert re.search(words, done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (1, "[]\n")
