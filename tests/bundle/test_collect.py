import json

import numpy as np
import pandas as pd
import pytest
import torch
from bundles import CLASSES, tiny_models

from kfold_ens.bundle.about import Rounding
from kfold_ens.bundle.card import write_card
from kfold_ens.bundle.collect import collect_models, licences
from kfold_ens.bundle.ensemble_file import read_ensemble
from kfold_ens.config import NoTta, TimmBackbone, TorchvisionBackbone
from kfold_ens.ensemble.summary import summarize
from kfold_ens.logits import Logits
from kfold_ens.network.classifier import save_model

LABELS = ["dark", "grey", 'l,ight "x"'] * 4
IDS = [f"train/{number}.png" for number in range(12)]
TRAIN = pd.DataFrame({"image_id": IDS, "label": LABELS})


def some_logits(part: slice) -> Logits:
    """Every image is predicted as dark, so the other two classes have a recall of 0."""
    values = torch.tensor([[3.0, 1.0, 0.0]] * len(IDS[part])).numpy()
    return Logits(pd.array(IDS[part], dtype=object).to_numpy(), values, CLASSES)


OOF = [some_logits(slice(0, 6)), some_logits(slice(6, 12))]
TRUTH = dict(zip(IDS, LABELS, strict=True))


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    models = [folder / "results/tiny" / name / "model.safetensors" for name in ("fold0", "repeat1/fold4")]
    for path, model in zip(models, tiny_models(2), strict=True):
        save_model(path, model)
    combined = {"average": some_logits(slice(0, 6))}
    metrics = summarize(dict(enumerate(OOF)), dict(enumerate(OOF)), combined, TRUTH, calibrates=True)
    files = list(map(str, models))
    about = collect_models(files, "tiny", NoTta(kind="none"), "average", "per_image", metrics, str(folder / "out"))
    return folder, about, metrics


def test_an_ensemble_file_holds_classes_recipes_scores_and_fingerprints(collected):
    folder, about, metrics = collected
    ensemble = read_ensemble(folder / "out")
    assert ensemble.about == about
    assert [member.name for member in about.members] == ["fold0", "repeat1_fold4"]
    assert [member.fingerprint for member in about.members] == ["print0", "print1"]
    assert about.members[0].versions["torch"] == torch.__version__.split("+")[0]
    assert about.temperature == metrics["calibrated"]["temperature"]
    assert (about.intensity_range, about.scores["metric"]) == ("per_image", "accuracy")
    for model, again in zip(tiny_models(2), ensemble.models(), strict=True):
        assert all(torch.equal(tensor, again.weights[name]) for name, tensor in model.weights.items())


def test_the_card_describes_the_ensemble(collected):
    folder, about, metrics = collected
    write_card(str(folder / "card.md"), about, TRAIN, OOF)
    text = (folder / "card.md").read_text()
    assert "12 training images of 3 classes, 4 per class.\n" in text
    assert "2 models (tiny/fold0, tiny/repeat1_fold4), combined by average of logits" in text
    assert f"{metrics['out_of_fold']['accuracy']:.4f}" in text
    assert '| grey | 0.0000 | 0 of 4 |\n| l,ight "x" | 0.0000 | 0 of 4 |\n| dark | 1.0000 | 4 of 4 |' in text
    assert "resnet18" in text
    assert "`print1`" in text
    assert "Fill in" in text
    assert "All 3 classes, lowest recall first." in text
    assert "ounded" not in text


def test_the_card_gives_the_range_of_images_per_class(collected):
    folder, about, _ = collected
    write_card(str(folder / "card.md"), about, TRAIN[1:], OOF)
    assert "11 training images of 3 classes, 3 to 4 per class (median 4).\n" in (folder / "card.md").read_text()


def test_the_card_of_many_classes_lists_the_worst(tmp_path, collected):
    labels = [str(number) for number in range(12)]
    logits = [Logits(pd.array(IDS, dtype=object).to_numpy(), np.eye(12)[::-1], tuple(labels))]
    write_card(str(tmp_path / "card"), collected[1], pd.DataFrame({"image_id": IDS, "label": labels}), logits)
    text = (tmp_path / "card").read_text()
    assert "The 10 of 12 classes with the lowest recall." in text
    assert text.count("| 0 of 1 |") == 10


def test_the_card_states_the_cost_of_rounding_and_what_was_not_measured(collected):
    folder, about, _ = collected
    rounding = Rounding(metric="log_loss", before=0.1, after=0.10004, tolerance=0.001, images=12_000, relabelled=31)
    full = about.members[0].model_copy(update={"name": "full"})
    about = about.model_copy(update={"dtype": "bf16", "rounding": rounding, "members": (*about.members, full)})
    write_card(str(folder / "card.md"), about, TRAIN, OOF)
    text = (folder / "card.md").read_text()
    assert (
        "Measured out of fold: log loss 0.1000 before rounding and 0.1000 after it (tolerance 0.001); "
        "31 of 12,000 images get another label."
    ) in text
    assert "tiny/full is rounded too, but not measured: it has no held-out images." in text


def test_only_pretrained_weights_have_a_licence_note():
    backbones = [
        TorchvisionBackbone(kind="torchvision", name="resnet18", weights="IMAGENET1K_V1"),
        TimmBackbone(kind="timm", name="resnet10t", weights="pretrained"),
        TorchvisionBackbone(kind="torchvision", name="resnet18", weights="none"),
        TorchvisionBackbone(kind="torchvision", name="resnet18", weights="/home/me/own.pth"),
    ]
    assert list(licences(backbones)) == ["torchvision resnet18 IMAGENET1K_V1", "timm resnet10t pretrained", "own.pth"]
    assert "/home/me" not in json.dumps(licences(backbones))
