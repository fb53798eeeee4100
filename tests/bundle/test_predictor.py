"""An ensemble file predicts the same bits as the workflow."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch
from bundles import CLASSES, NORMALIZED, about_of, tiny_models
from PIL import Image
from stages import make_stage, of_folders, stage_of

from kfold_ens.bundle.decoding import Batch, decode, decoded_batches
from kfold_ens.bundle.ensemble_file import read_ensemble, write_ensemble
from kfold_ens.bundle.predictor import build_predictor, made_ahead
from kfold_ens.compute.compute import Compute
from kfold_ens.config import NoTta, Views
from kfold_ens.data.folds import listed_images
from kfold_ens.data.images import inspect
from kfold_ens.data.pixels import PixelStore, write_pixels
from kfold_ens.prediction.predict import on_device, predict

CPU = Compute(torch.device("cpu"), None, 0)
NO_TTA = {"kind": "none"}
JITTERED = {
    "kind": "views",
    "average": "softmax",
    "views": [
        {"name": "plain", "steps": []},
        {"name": "jittered", "steps": [{"kind": "color_jitter", "brightness": 0.9}]},
    ],
}
CROPPED = {"kind": "center_crop", "size": 16, "resize": 20, "short_side": 24, "normalize": False}


def save_photographs(folder):
    """Images for every way of decoding."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (130, 260, 3), dtype=np.uint8)
    photograph, exif = Image.fromarray(pixels).resize((260, 130)), Image.Exif()
    exif[0x0112] = 6
    photograph.save(folder / "large.jpg", quality=90)
    photograph.save(folder / "turned.jpg", exif=exif)
    photograph.save(folder / "photograph.webp")
    photograph.convert("P").save(folder / "palette.gif")
    photograph.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.dstack([pixels, pixels[:, :, 0]])).save(folder / "transparent.png")
    Image.fromarray(random.integers(0, 4000, (40, 50)).astype(np.uint16)).save(folder / "grey16.png")
    photograph.resize((7, 90)).save(folder / "small.bmp")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage")
    make_stage(folder, {"dark": 4, "grey": 4, "light": 4})
    save_photographs(folder / "test")
    return folder


@pytest.mark.parametrize(
    ("image", "tta", "batch_size"),
    [(NORMALIZED, NO_TTA, 8), (NORMALIZED, NO_TTA, 5), (NORMALIZED, JITTERED, 8), (CROPPED, JITTERED, 17)],
)
def test_logits_equal_those_of_the_workflow_bit_for_bit(image, tta, batch_size, folder, tmp_path):
    stage = stage_of(of_folders(folder), folder, image["short_side"])
    models = tiny_models(2, image=image)
    write_ensemble(tmp_path / "ensemble", about_of(models, tta), models)
    ensemble = read_ensemble(tmp_path / "ensemble")
    paths = [str(folder / image_id) for image_id in listed_images(stage.file("test.csv"))]
    found = list(build_predictor(ensemble, ensemble.about.members, CPU, batch_size, 3).logits(paths))
    assert [name for batch, _ in found for name in batch.images] == paths
    section = (Views if tta["kind"] == "views" else NoTta).model_validate(tta)
    ids = listed_images(stage.file("test.csv"))
    for number, model in enumerate(models):
        expected = predict(model, on_device(model, CPU), section, stage.test_store, ids, CPU, batch_size)
        own = np.concatenate([logits[f"tiny/fold{number}"].values for _, logits in found])
        np.testing.assert_array_equal(own, expected.values)
    assert own.shape == (17, len(CLASSES))


@pytest.mark.parametrize("intensity_range", ["full", "per_image", (0, 4095)])
def test_files_are_decoded_as_the_workflow_decodes_them(intensity_range, tmp_path):
    (tmp_path / "images").mkdir()
    save_photographs(tmp_path / "images")
    paths = sorted(map(str, (tmp_path / "images").iterdir()))
    inspected = [vars(inspect(path)) for path in paths]
    manifest = pd.DataFrame(inspected).assign(path=paths, image_id=paths)
    write_pixels(manifest, 16, tmp_path / "pixels", tmp_path / "index.npz", 1, intensity_range)
    store = PixelStore(tmp_path / "pixels", tmp_path / "index.npz")
    for path, each in zip(paths, inspected, strict=True):
        decoded = decode(path, [16], intensity_range)
        assert decoded.sha256 == each["sha256"]
        np.testing.assert_array_equal(decoded.pixels[16], store.image(path))


def test_members_with_different_sizes_get_pixels_of_their_size(folder, tmp_path):
    models = [*tiny_models(1), *tiny_models(1, image=CROPPED)]
    write_ensemble(tmp_path / "ensemble", about_of(models), models)
    ensemble = read_ensemble(tmp_path / "ensemble")
    paths = sorted(map(str, (folder / "test").glob("*.png")))[:4]
    (_, logits), *_ = build_predictor(ensemble, ensemble.about.members, CPU, 8, 1).logits(paths)
    for number, member in enumerate(ensemble.about.members):
        (_, own), *_ = build_predictor(ensemble, [member], CPU, 8, 1).logits(paths)
        np.testing.assert_array_equal(logits[f"tiny/fold{number}"].values, own[f"tiny/fold{number}"].values)


def test_a_batch_without_a_readable_image_has_no_logits(tmp_path):
    models = tiny_models(1)
    write_ensemble(tmp_path / "ensemble", about_of(models), models)
    ensemble = read_ensemble(tmp_path / "ensemble")
    found = list(build_predictor(ensemble, ensemble.about.members, CPU, 2, 1).answers(["no", "none", "nowhere"]))
    assert [answers for answers, _ in found] == [None, None]
    assert [list(failed) for _, failed in found] == [["no", "none"], ["nowhere"]]
    assert "No such file" in found[0][1]["no"]


def test_few_batches_are_decoded_ahead(monkeypatch):
    begun = []
    monkeypatch.setattr("kfold_ens.bundle.decoding.decode", lambda name, **_: begun.append(name) or "no image")
    batches = decoded_batches([str(number) for number in range(1000)], 10, [16], "full", 2)
    next(batches), next(batches)
    assert len(begun) <= 50


def test_the_next_item_is_made_while_the_last_is_used():
    made = threading.Event()

    def items():
        yield Batch({}, {})
        made.set()
        yield Batch({}, {})

    ahead = made_ahead(items())
    next(ahead)
    assert made.wait(10)
    assert len(list(ahead)) == 1
