import argparse
import functools
import http.server
import os
import pathlib
import pickle
import socket
import threading

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from kfold_ens.config import TorchvisionBackbone
from kfold_ens.files import sha256_of
from kfold_ens.network import weights
from kfold_ens.network.pickles import names_in_pickle
from kfold_ens.network.weights import WeightsError, load_backbone, prepare_weights, read_weights, weights_url


def section(name):
    return TorchvisionBackbone(kind="torchvision", name="resnet18", weights=str(name))


def network(features=3):
    return nn.Sequential(nn.Linear(2, features), nn.BatchNorm1d(features))


def equal(some, others):
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)


STATE = network().state_dict()
PUBLISHED = section("IMAGENET1K_V1")


# --- the user's files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("own.safetensors", lambda state, path: save_file(state, path)),
        ("own.pth", torch.save),
        ("own.pt", lambda state, path: torch.save({"state_dict": state, "epoch": 3}, path)),
        ("old.pth", lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False)),
        (
            "transposed.pth",
            lambda state, path: torch.save(state | {"0.weight": state["0.weight"].T.contiguous().T}, path),
        ),
    ],
)
def test_a_file_becomes_safetensors(name, save, tmp_path):
    save(STATE, tmp_path / name)
    prepare_weights(section(tmp_path / name), tmp_path / "resources" / "weights.safetensors")
    assert equal(load_file(tmp_path / "resources" / "weights.safetensors"), STATE)


class Payload:
    """Creates a folder when unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "save",
    [
        lambda content, path: torch.save({"weight": content}, path),
        lambda content, path: torch.save({"weight": content}, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content)),
    ],
)
def test_a_pickle_with_a_payload_is_refused_without_running_it(save, tmp_path):
    save(Payload(tmp_path / "run"), tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=rf"{tmp_path}/evil.pth holds more than tensors(.|\n)*  \w+\.mkdir\n"):
        prepare_weights(section(tmp_path / "evil.pth"), tmp_path / "weights.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pth"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("content", "holds"),
    [
        (nn.Sequential(nn.Linear(2, 3)), "torch.nn.modules.linear.Linear"),
        ({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"state_dict": STATE, "seen": [pathlib.PurePosixPath("a")]}, "pathlib.PurePosixPath"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_refused_pickle_is_described_with_how_to_convert_it(content, holds, zipped, tmp_path):
    path = tmp_path / "it's mine.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as refused:
        read_weights(path)
    message = str(refused.value)
    assert f"\n  {holds}\n" in message
    assert "add_safe_globals" not in message
    code = [line.removeprefix("    ") for line in message.splitlines() if line.startswith("    ")]
    exec("\n".join(code), {})
    converted = read_weights(tmp_path / "it's mine.tensors.pth")
    assert converted
    assert all(isinstance(value, torch.Tensor) for value in converted.values())


def test_names_are_found_however_a_pickle_writes_them(tmp_path):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "file.pth").write_bytes(pickle.dumps([argparse.Namespace, argparse.Action], protocol))
        assert names_in_pickle(tmp_path / "file.pth") == ["argparse.Namespace", "argparse.Action"]
    torch.save(STATE, tmp_path / "file.pth")
    assert names_in_pickle(tmp_path / "file.pth") == []
    (tmp_path / "file.pth").write_bytes(b"<html>")
    assert names_in_pickle(tmp_path / "file.pth") == []


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_torchs_advice_to_run_a_pickle_is_not_shown(tmp_path):
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(WeightsError) as refused:
        read_weights(tmp_path / "page.pth")
    assert str(refused.value) == f"backbone.weights: {tmp_path}/page.pth is damaged, or not a file of weights"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@given(content=st.binary(max_size=80) | st.binary(max_size=80).map(b"\x80\x02".__add__))
@example(content=b"")
@example(content=b"\x80\x02}q.")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_garbage_is_refused_naming_the_file(suffix, content, tmp_path):
    path = tmp_path / f"garbage{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=f"backbone.weights: {path} "):
        read_weights(path)


@pytest.mark.parametrize("name", ["own.pth", "own.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(name, kept, tmp_path):
    (save_file if name.endswith("safetensors") else torch.save)(STATE, tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [[torch.zeros(2)], torch.zeros(2), {"a": 1}, {"state_dict": torch.zeros(2)}])
def test_weights_that_are_not_a_state_dictionary_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="other.pth is not a state dictionary"):
        read_weights(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors", "."])
def test_a_missing_file_is_refused(name, tmp_path):
    with pytest.raises(WeightsError, match=f"backbone.weights: {tmp_path / name} cannot be read"):
        read_weights(tmp_path / name)


# --- loading into a network ------------------------------------------------------------------------------


def test_weights_load_without_their_classifier_and_without_batch_counts(tmp_path):
    own, extra = network(), {"fc.weight": torch.zeros(1000, 3), "fc.bias": torch.zeros(1000)}
    older = {name: tensor for name, tensor in STATE.items() if not name.endswith("num_batches_tracked")}
    save_file(older | extra, tmp_path / "weights.safetensors")
    load_backbone(own, tmp_path / "weights.safetensors")
    assert equal(own.state_dict(), STATE)


def test_every_tensor_that_does_not_fit_is_listed(tmp_path):
    own = network()
    before = {name: tensor.clone() for name, tensor in own.state_dict().items()}
    others = network(features=4).state_dict() | {"layer4.weight": torch.zeros(1)}
    del others["1.running_var"]
    save_file(others, tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError) as refused:
        load_backbone(own, tmp_path / "weights.safetensors")
    assert str(refused.value).splitlines() == [
        f"backbone.weights: {tmp_path / 'weights.safetensors'} does not fit the backbone; 7 tensors differ:",
        "  1.running_var: missing",
        "  layer4.weight: not part of the network",
        "  0.bias: shape (4,) instead of (3,)",
        "  0.weight: shape (4, 2) instead of (3, 2)",
        "  1.bias: shape (4,) instead of (3,)",
        "  1.running_mean: shape (4,) instead of (3,)",
        "  1.weight: shape (4,) instead of (3,)",
    ]
    assert equal(own.state_dict(), before)


# --- published files -------------------------------------------------------------------------------------


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Serve weights locally under a name, and point torchvision's names there."""
    folder = tmp_path / "published"
    folder.mkdir()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:

        def publish(name="tiny-{hash}.pth"):
            torch.save(STATE, folder / "new")
            file = folder / name.format(hash=sha256_of(folder / "new")[:8])
            (folder / "new").rename(file)
            monkeypatch.setattr(
                weights, "weights_url", lambda section: f"http://127.0.0.1:{server.server_port}/{file.name}"
            )
            return file

        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        yield publish
        server.shutdown()


def test_published_weights_are_downloaded_once(publish, tmp_path):
    file, resources = publish(), tmp_path / "resources"
    prepare_weights(PUBLISHED, resources / "first.safetensors")
    file.unlink()
    prepare_weights(PUBLISHED, resources / "again.safetensors")
    assert {path.name for path in resources.iterdir()} == {"first.safetensors", "again.safetensors", file.name}
    assert equal(load_file(resources / "first.safetensors"), STATE)
    assert equal(load_file(resources / "again.safetensors"), STATE)


def test_a_download_with_a_wrong_hash_is_refused(publish, tmp_path):
    publish("tiny-0badc0de.pth")
    with pytest.raises(WeightsError, match="could not download the pretrained weights .*0badc0de"):
        prepare_weights(PUBLISHED, tmp_path / "resources" / "weights.safetensors")
    assert list((tmp_path / "resources").iterdir()) == []


def test_a_missing_download_is_refused(publish, tmp_path):
    publish().unlink()
    with pytest.raises(WeightsError, match="could not download the pretrained weights .*404"):
        prepare_weights(PUBLISHED, tmp_path / "weights.safetensors")


def test_a_manually_copied_file_is_checked_too(publish, tmp_path):
    file = publish()
    (tmp_path / file.name).write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match=f"{tmp_path / file.name} is damaged: .* remove it"):
        prepare_weights(PUBLISHED, tmp_path / "weights.safetensors")
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_offline_machine_is_told_which_file_to_copy_where(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/models/tiny-0badc0de.pth"
    monkeypatch.setattr(weights, "weights_url", lambda section: url)
    with pytest.raises(WeightsError) as refused:
        prepare_weights(PUBLISHED, tmp_path / "weights.safetensors")
    assert f"Download {url}\n" in str(refused.value)
    assert f"copy the file to {tmp_path / 'tiny-0badc0de.pth'}, and rerun" in str(refused.value)


def test_torchvisions_weight_names_give_its_urls():
    assert weights_url(PUBLISHED) == "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    with pytest.raises(WeightsError, match="resnet18 has no weights 'IMAGENET1K_V9'; write IMAGENET1K_V1, a .pth"):
        weights_url(section("IMAGENET1K_V9"))
