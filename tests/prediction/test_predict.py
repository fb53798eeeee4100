import numpy as np
import pytest
import torch
from scipy.special import softmax
from stages import make_stage, renamed_stage, training_recipe

from kfold_ens.compute.compute import Compute
from kfold_ens.config import NoTta, Views
from kfold_ens.data.folds import listed_images
from kfold_ens.files import read_table
from kfold_ens.logits import read_logits
from kfold_ens.network.classifier import Classifier, TrainedModel, save_model
from kfold_ens.prediction.predict import on_device, predict, predict_images

COUNTS = {"dark": 7, "grey": 6, "light": 6}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), COUNTS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    recipe = training_recipe(image={"kind": "squash", "size": 16, "short_side": 16, "normalize": True})
    return TrainedModel(recipe, tuple(COUNTS), "", Classifier(recipe, len(COUNTS)).state_dict())


def predicted(model, store, image_ids, batch_size=8, workers=0, tta=NoTta(kind="none")):  # noqa: B008
    compute = Compute(torch.device("cpu"), None, workers)
    return predict(model, on_device(model, compute), tta, store, image_ids, compute, batch_size)


def test_logits_belong_to_their_images_for_any_batching(stage, model):
    ids = stage.store.image_id[:9].tolist()
    expected = predicted(model, stage.store, ids)
    assert expected.values.dtype == np.float32
    assert np.ptp(expected.values, axis=0).min() > 0.01  # far more than the tolerance below
    for batch_size, workers, order in (
        (8, 0, ids),
        (2, 0, ids),
        (4, 2, ids),
        (9, 0, ids[::-1]),
        (5, 0, ids[4:] + ids[:4]),
    ):
        logits = predicted(model, stage.store, order, batch_size, workers)
        assert logits.image_id.tolist() == order
        assert logits.classes == tuple(COUNTS)
        rows = [order.index(image_id) for image_id in ids]
        np.testing.assert_allclose(logits.values[rows], expected.values, rtol=1e-4, atol=1e-5)


def test_a_last_batch_of_one_image_is_predicted(stage, model):
    ids = stage.store.image_id[:5].tolist()
    logits = predicted(model, stage.store, ids, batch_size=4)
    assert logits.values.shape == (5, 3)
    alone = predicted(model, stage.store, ids[-1:], batch_size=4)
    np.testing.assert_allclose(logits.values[-1:], alone.values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold", [0, 2, None])
def test_logits_are_written_for_held_out_or_test_images(fold, stage, model, tmp_path):
    save_model(tmp_path / "model.safetensors", model)
    store = stage.test_store if fold is None else stage.store
    images = stage.file("test.csv" if fold is None else "folds")
    predict_images(
        listed_images(images, fold),
        NoTta(kind="none"),
        str(tmp_path / "model.safetensors"),
        store,
        Compute(torch.device("cpu"), None, 0),
        None,
        str(tmp_path / "logits.npz"),
    )
    logits = read_logits(tmp_path / "logits.npz")
    table = read_table(images)
    expected = table if fold is None else table[table["fold"] == str(fold)]
    assert logits.image_id.tolist() == expected["image_id"].tolist() != []
    assert logits.classes == tuple(COUNTS)
    np.testing.assert_array_equal(logits.values, predicted(model, store, logits.image_id).values)


@pytest.mark.parametrize(("given", "batches"), [(None, [8, 1]), (4, [4, 4, 1]), (100, [9])])
def test_the_batch_size_defaults_to_that_of_training(given, batches, stage, model, tmp_path, monkeypatch):
    seen = []
    network = on_device(model, Compute(torch.device("cpu"), None, 0))
    network.register_forward_pre_hook(lambda _, arguments: seen.append(len(arguments[0])))
    monkeypatch.setattr("kfold_ens.prediction.predict.on_device", lambda *_: network)
    save_model(tmp_path / "model.safetensors", model)
    images, compute = listed_images(stage.file("test.csv")), Compute(torch.device("cpu"), None, 0)
    files = [str(tmp_path / name) for name in ("model.safetensors", "logits.npz")]
    predict_images(images, NoTta(kind="none"), files[0], stage.test_store, compute, given, files[1])
    assert seen == batches


TEST_IMAGES = [f"test/{index}.png" for index in range(9)]
FLIP = {"kind": "horizontal_flip", "probability": 1}
JITTER = {"kind": "color_jitter", "brightness": 0.9}
PLAIN, FLIPPED = {"name": "plain", "steps": []}, {"name": "flipped", "steps": [FLIP]}
JITTERED, AGAIN = {"name": "jittered", "steps": [JITTER]}, {"name": "again", "steps": [JITTER]}


def views(*those, average="logits"):
    return Views.model_validate({"kind": "views", "average": average, "views": those})


def test_views_are_averaged(model, stage):
    ids, store = TEST_IMAGES, stage.test_store
    plain, flipped = (predicted(model, store, ids, tta=views(view)).values for view in (PLAIN, FLIPPED))
    assert not np.allclose(plain, flipped)
    np.testing.assert_allclose(
        predicted(model, store, ids, tta=views(PLAIN, FLIPPED)).values, (plain + flipped) / 2, 1e-5
    )
    mean = softmax(predicted(model, store, ids, tta=views(PLAIN, FLIPPED, average="softmax")).values, axis=1)
    np.testing.assert_allclose(mean, (softmax(plain, axis=1) + softmax(flipped, axis=1)) / 2, 1e-5)


def test_random_views_depend_on_their_name_and_the_image_only(model, stage):
    ids, store = TEST_IMAGES, stage.test_store
    some = predicted(model, store, ids, tta=views(JITTERED)).values
    np.testing.assert_array_equal(some, predicted(model, store, ids, tta=views(JITTERED), workers=2).values)
    backwards = predicted(model, store, ids[::-1], tta=views(JITTERED)).values[::-1]
    np.testing.assert_allclose(some, backwards, atol=1e-5)
    assert not np.allclose(some, predicted(model, store, ids, tta=views(AGAIN)).values)


def test_renamed_images_have_the_same_logits_even_in_random_views(model, stage, tmp_path):
    def by_content(store):
        ids = sorted(store.image_id, key=lambda image_id: store.sha256([image_id])[0])
        return ids, predicted(model, store, ids, tta=views(JITTERED)).values

    names, before = by_content(stage.test_store)
    others, after = by_content(renamed_stage(stage, tmp_path).test_store)
    assert not set(names) & set(others)
    np.testing.assert_array_equal(after, before)
