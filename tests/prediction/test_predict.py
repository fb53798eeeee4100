import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import softmax
from stages import make_stage, training_recipe

from kfold_ens.config import NoTta, Views
from kfold_ens.exchange import read_logits
from kfold_ens.files import read_table
from kfold_ens.network.classifier import Classifier, TrainedModel, save_model
from kfold_ens.prediction.predict import on_device, predict, predict_fold
from kfold_ens.training.evaluation import Compute

COUNTS = {"dark": 7, "grey": 6, "light": 6}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), COUNTS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    recipe = training_recipe(image={"kind": "squash", "size": 16, "short_side": 16, "normalize": True})
    return TrainedModel(recipe, tuple(COUNTS), "", Classifier(recipe, len(COUNTS)).state_dict())


def predicted(model, stage, image_ids, batch_size=8, workers=0, tta=NoTta(kind="none")):  # noqa: B008
    compute = Compute(torch.device("cpu"), None, workers)
    model = dataclasses.replace(model, recipe=model.recipe.model_copy(update={"batch_size": batch_size}))
    return predict(model, on_device(model, compute), tta, stage.store, image_ids, compute)


def test_logits_belong_to_their_images_whatever_the_batches(stage, model):
    ids = stage.store.image_id[:9].tolist()
    expected = predicted(model, stage, ids)
    assert expected.values.dtype == np.float32
    assert np.ptp(expected.values, axis=0).min() > 0.01  # far more than the tolerance below
    for batch_size, workers, order in (
        (8, 0, ids),
        (2, 0, ids),
        (4, 2, ids),
        (9, 0, ids[::-1]),
        (5, 0, ids[4:] + ids[:4]),
    ):
        logits = predicted(model, stage, order, batch_size, workers)
        assert logits.image_id.tolist() == order
        assert logits.classes == tuple(COUNTS)
        rows = [order.index(image_id) for image_id in ids]
        np.testing.assert_allclose(logits.values[rows], expected.values, rtol=1e-4, atol=1e-5)


def test_a_last_batch_of_one_is_kept_and_is_what_the_network_says_of_it(stage, model):
    ids = stage.store.image_id[:5].tolist()
    logits = predicted(model, stage, ids, batch_size=4)
    assert logits.values.shape == (5, 3)
    alone = predicted(model, stage, ids[-1:], batch_size=4)
    np.testing.assert_allclose(logits.values[-1:], alone.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_writes_its_held_out_images_and_the_test_images(fold, stage, model, tmp_path):
    save_model(tmp_path / "model.safetensors", model)
    files = [str(tmp_path / name) for name in ("model.safetensors", "oof.npz", "test.npz")]
    compute = Compute(torch.device("cpu"), None, 0)
    predict_fold(
        fold,
        NoTta(kind="none"),
        files[0],
        stage.file("manifest"),
        stage.file("folds"),
        stage.store,
        compute,
        *files[1:],
    )
    oof, test = map(read_logits, files[1:])
    folds = read_table(stage.file("folds"))
    assert oof.image_id.tolist() == folds.loc[folds["fold"] == str(fold), "image_id"].tolist()
    assert test.image_id.tolist() == [f"test/{index}.png" for index in range(9)]
    assert oof.classes == test.classes == tuple(COUNTS)
    np.testing.assert_array_equal(test.values, predicted(model, stage, test.image_id).values)


FLIP = {"kind": "horizontal_flip", "probability": 1}
JITTER = {"kind": "color_jitter", "brightness": 0.9}
PLAIN, FLIPPED = {"name": "plain", "steps": []}, {"name": "flipped", "steps": [FLIP]}
JITTERED, AGAIN = {"name": "jittered", "steps": [JITTER]}, {"name": "again", "steps": [JITTER]}


def views(*those, average="logits"):
    return Views.model_validate({"kind": "views", "average": average, "views": those})


def test_views_are_averaged(model, stage):
    ids = predicted(model, stage, [f"test/{index}.png" for index in range(9)]).image_id
    plain, flipped = (predicted(model, stage, ids, tta=views(view)).values for view in (PLAIN, FLIPPED))
    assert not np.allclose(plain, flipped)
    np.testing.assert_allclose(
        predicted(model, stage, ids, tta=views(PLAIN, FLIPPED)).values, (plain + flipped) / 2, 1e-5
    )
    mean = softmax(predicted(model, stage, ids, tta=views(PLAIN, FLIPPED, average="softmax")).values, axis=1)
    np.testing.assert_allclose(mean, (softmax(plain, axis=1) + softmax(flipped, axis=1)) / 2, 1e-5)


def test_random_views_follow_from_name_and_image(model, stage):
    ids = [f"test/{index}.png" for index in range(9)]
    some = predicted(model, stage, ids, tta=views(JITTERED)).values
    np.testing.assert_array_equal(some, predicted(model, stage, ids, tta=views(JITTERED), workers=2).values)
    backwards = predicted(model, stage, ids[::-1], tta=views(JITTERED)).values[::-1]
    np.testing.assert_allclose(some, backwards, atol=1e-5)
    assert not np.allclose(some, predicted(model, stage, ids, tta=views(AGAIN)).values)
