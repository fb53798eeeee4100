import json

import pytest
import torch
from conftest import REPOSITORY
from safetensors import safe_open
from safetensors.torch import save_file
from stages import training_recipe

from kfold_ens.config import TorchvisionBackbone, load_recipe
from kfold_ens.errors import KfoldError
from kfold_ens.network.classifier import Classifier, TrainedModel, load_model, memory_format, save_model

CLASSES = ("1", "10", "2", "007", 'a, "b"\nc', "naïve ☃ 猫")


def backbone(name, **values):
    return {"kind": "torchvision", "name": name, "weights": "none"} | values


def test_the_main_recipe_has_the_expected_number_of_parameters():
    with torch.device("meta"):
        classifier = Classifier(load_recipe(REPOSITORY / "recipes" / "kfold_mix.yaml", REPOSITORY / "recipes"), 100)
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 81_611_172


def test_unsaved_buffers_are_computed_when_a_network_is_built():
    """timm stores relative positions in buffers that are not saved with its weights."""
    recipe = training_recipe(backbone={"kind": "timm", "name": "test_maxvit", "weights": "none"})
    network = Classifier(recipe, 2).eval()
    images = torch.rand(2, 3, 160, 160)
    again = TrainedModel(recipe, ("a", "b"), "", network.state_dict()).network()
    with torch.inference_mode():
        assert torch.equal(network(images), again(images))


@pytest.mark.parametrize("name", TorchvisionBackbone.model_fields["name"].annotation.__args__)
def test_every_backbone_gives_logits(name):
    with torch.device("meta"):
        classifier = Classifier(training_recipe(backbone=backbone(name)), 7)
        assert classifier(torch.zeros(2, 3, 16, 16)).shape == (2, 7)


@pytest.mark.parametrize("zero", [True, False])
def test_residual_branches_can_start_at_zero(zero):
    classifier = Classifier(training_recipe(backbone=backbone("resnet18", zero_init_residual=zero)), 2)
    assert bool((classifier.backbone.layer1[0].bn2.weight == 0).all()) is zero


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A new network, its recipe, and the file it was saved to."""
    recipe = training_recipe(optimizer={"kind": "adamw", "lr": 3e-4, "weight_decay": 0.1, "betas": [0.8, 0.99]})
    network = Classifier(recipe, len(CLASSES)).to(memory_format=torch.channels_last)
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(file, TrainedModel(recipe, CLASSES, "0123", network.state_dict()))
    return network, recipe, file


def test_a_model_is_read_back_from_its_file(saved):
    network, recipe, file = saved
    model = load_model(file)
    assert (model.recipe, model.classes, model.fingerprint) == (recipe, CLASSES, "0123")
    again = model.network()
    assert not again.training
    expected = network.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.state_dict().items())
    with safe_open(file, framework="pt") as content:  # the header is readable without our code
        assert json.loads(content.metadata()["classes"]) == list(CLASSES)


def test_equal_models_are_equal_files(saved, tmp_path):
    *_, file = saved
    model, contents = load_model(file), {file.read_bytes()}
    for number in range(5):
        save_model(tmp_path / f"{number}.safetensors", model)
        contents.add((tmp_path / f"{number}.safetensors").read_bytes())
    assert len(contents) == 1
    assert load_model(tmp_path / "0.safetensors").classes == model.classes


OTHER_FILES = {
    "empty": lambda whole: b"",
    "cut in the header": lambda whole: whole[:100],
    "cut in the weights": lambda whole: whole[:-1],
    "garbage": lambda whole: b"\xff" * 64,
    "a page of HTML": lambda whole: b"<!doctype html><title>404</title>",
}


@pytest.mark.parametrize("content", OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_broken_model_file_is_refused_and_named(content, saved, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content(saved[2].read_bytes()))
    with pytest.raises(KfoldError, match=f"^{path} is not a model of this workflow"):
        load_model(path)


@pytest.mark.parametrize("header", [None, {"classes": "[]", "fingerprint": ""}, {"recipe": "{}"}, {"recipe": "x"}])
def test_safetensors_of_something_else_are_refused(header, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=header)
    with pytest.raises(KfoldError, match=f"^{path} is not a model of this workflow"):
        load_model(path)


@pytest.mark.parametrize(("device", "layout"), [("cpu", torch.channels_last), ("cuda", torch.channels_last)])
def test_a_device_gets_its_fastest_memory_layout(device, layout):
    assert memory_format(torch.device(device)) == layout


def test_images_stay_contiguous_on_apple_gpus():
    assert memory_format(torch.device("mps")) == torch.contiguous_format
