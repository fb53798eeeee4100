"""An exported ensemble computes what the workflow computes."""

import numpy as np
import pytest
import torch
from bundles import about_of, tiny_ensemble, tiny_models
from conftest import write_image
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kfold_ens import config
from kfold_ens.bundle.about import EnsembleError
from kfold_ens.bundle.answers import graph_answers
from kfold_ens.bundle.decoding import decode
from kfold_ens.bundle.ensemble_file import read_ensemble
from kfold_ens.bundle.exportable import refuse_what_no_graph_holds
from kfold_ens.bundle.graph import EVALUATION_VIEWS, EnsembleGraph, shrunk, stored
from kfold_ens.bundle.predictor import build_predictor
from kfold_ens.compute.compute import Compute
from kfold_ens.data.pixels import stored_shape
from kfold_ens.loading.augmentation import EVALUATION_VIEWS as OF_THE_WORKFLOW
from kfold_ens.loading.augmentation import build_evaluation_view

VIEWS = [
    {"kind": "squash", "size": 24, "short_side": 32, "normalize": False},
    {"kind": "squash", "size": 40, "short_side": 40, "normalize": False},
    {"kind": "center_crop", "size": 24, "resize": 30, "short_side": 32, "normalize": False},
    {"kind": "center_crop", "size": 31, "resize": 32, "short_side": 32, "normalize": False},
]
SHAPES = [(32, 32), (32, 45), (61, 32), (47, 33), (32, 200), (300, 33)]  # height, width
FLIPPED = {
    "kind": "views",
    "average": "softmax",
    "views": [
        {"name": "plain", "steps": []},
        {"name": "mirrored", "steps": [{"kind": "horizontal_flip", "probability": 1}]},
        {
            "name": "turned",
            "steps": [{"kind": "vertical_flip", "probability": 1}, {"kind": "horizontal_flip", "probability": 1}],
        },
    ],
}


def noise(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: f"{view['kind']} {view['size']}")
def test_resizing_gives_the_bits_of_the_workflow(view, shape):
    image = TypeAdapter(config.Squash | config.CenterCrop).validate_python(view)
    pixels = noise(*shape)
    ours = EVALUATION_VIEWS[image.kind](pixels[None].double(), image)[0]
    assert torch.equal(ours, build_evaluation_view(image)(pixels).float())


def test_every_evaluation_view_can_be_exported():
    assert EVALUATION_VIEWS.keys() == OF_THE_WORKFLOW.keys()


LARGER = [(200, 150), (64, 90), (33, 32), (32, 32), (20, 50), (65, 64), (64, 67), (1370, 1024), (5, 700)]


@pytest.mark.parametrize("size", LARGER, ids=str)
def test_larger_images_are_shrunk_to_the_bits_of_the_workflow(size, tmp_path):
    path = write_image(tmp_path / "image.png", 100, size=size)
    for short_side in (32, 256):
        whole, stored = (decode(str(path), [side], "full").pixels[side] for side in (10_000, short_side))
        ours = shrunk(torch.from_numpy(whole.copy()).permute(2, 0, 1)[None], short_side)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(ours, stored)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 500))
def test_the_stored_size_is_that_of_the_workflow(height, width, short_side):
    assert tuple(stored(side, height, width, short_side) for side in (height, width)) == stored_shape(
        height, width, short_side
    )


@pytest.mark.parametrize("method", ["average", "softmax", "vote"])
@pytest.mark.parametrize("tta", [{"kind": "none"}, FLIPPED, FLIPPED | {"average": "logits"}], ids=["none", "p", "l"])
def test_the_graph_answers_as_the_models(tta, method, tmp_path):
    temperature = None if method == "vote" else 0.25
    ensemble = read_ensemble(tiny_ensemble(tmp_path / "e", tta=tta, method=method, temperature=temperature))
    names = [str(write_image(tmp_path / f"{shade}.png", shade, shade, (16, 16))) for shade in range(0, 240, 20)]
    members = ensemble.about.members
    predictor = build_predictor(ensemble, members, Compute(torch.device("cpu"), None, 0), len(names), 1)
    ((models, _),) = predictor.answers(names)
    pixels = np.stack([decode(name, [16], "full").pixels[16] for name in names])
    with torch.inference_mode():
        p, label, votes = EnsembleGraph(ensemble.about, predictor.networks)(torch.from_numpy(pixels))
    graph = graph_answers(np.array(names, dtype=object), p.numpy(), votes.numpy(), ensemble.about)
    assert np.abs(models.probabilities - graph.probabilities).max() < 1e-5
    assert (models.votes == graph.votes).all()
    assert (models.scores.argsort(axis=1) == graph.scores.argsort(axis=1)).all()
    assert (label.numpy() == models.scores.argmax(axis=1)).all()


@pytest.mark.parametrize(
    "step",
    [{"kind": "horizontal_flip", "probability": 0.5}, {"kind": "rotation", "degrees": 10}, {"kind": "grayscale"}],
    ids=lambda step: step["kind"],
)
def test_random_views_are_refused_by_name(step):
    tta = FLIPPED | {"views": [*FLIPPED["views"], {"name": "other", "steps": [step]}]}
    with pytest.raises(EnsembleError, match=r"random.*--no-tta.*\n.*other"):
        refuse_what_no_graph_holds(about_of(tiny_models(1), tta).members)


def test_models_that_store_images_differently_are_refused():
    models = tiny_models(1) + tiny_models(1, image={"kind": "squash", "size": 16, "short_side": 20, "normalize": False})
    with pytest.raises(EnsembleError, match=r"short sides \[16, 20\]"):
        refuse_what_no_graph_holds(about_of(models).members)
