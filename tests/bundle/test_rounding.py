"""Weights in bfloat16: rounding, reading, and the measurement of the cost."""

from itertools import product

import numpy as np
import pytest
import torch
from bundles import tiny_ensemble, tiny_models
from safetensors import safe_open
from stages import Stage, make_stage

from kfold_ens.bundle.about import Rounding, read_about
from kfold_ens.bundle.collect import collect_models
from kfold_ens.bundle.ensemble_file import read_ensemble
from kfold_ens.bundle.rounding import as_float32, rounded
from kfold_ens.bundle.rounding_cost import compare, predict_rounded
from kfold_ens.compute.compute import Compute
from kfold_ens.config import NoTta, Scoring, load_config
from kfold_ens.data.folds import listed_images
from kfold_ens.errors import ConfigError, KfoldError
from kfold_ens.logits import Logits
from kfold_ens.metrics import METRICS
from kfold_ens.network.classifier import save_model
from kfold_ens.prediction.predict import on_device, predict

CPU = Compute(torch.device("cpu"), None, 0)
TTA = NoTta(kind="none")
MEASURED = Rounding(metric="accuracy", before=0.9, after=0.9, tolerance=0.001, images=200, relabelled=2)


# --- the file --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three folds of images, and a run's models of two folds, of one fold of a repeat, and of all images."""
    folder = tmp_path_factory.mktemp("rounding")
    make_stage(folder, {"dark": 4, "grey": 4, "light": 4})
    for name, model in zip(("fold0", "fold1", "repeat1/fold2", "full"), tiny_models(4), strict=True):
        save_model(folder / "results/tiny" / name / "model.safetensors", model)
    return folder


def models_of(folder, *names):
    return [str(folder / "results/tiny" / name / "model.safetensors") for name in names]


def collected(folder, path, **options):
    files = models_of(folder, "fold0", "fold1")
    return collect_models(files, "tiny", TTA, "average", "full", {"metric": "accuracy"}, str(path), **options)


def test_rounded_weights_take_half_the_bytes_and_are_read_as_float32(folder, tmp_path):
    collected(folder, tmp_path / "fp32")
    about = collected(folder, tmp_path / "bf16", rounding=MEASURED)
    assert (tmp_path / "bf16").stat().st_size < 0.51 * (tmp_path / "fp32").stat().st_size
    ensemble = read_ensemble(tmp_path / "bf16")
    assert ensemble.about == about
    assert (about.dtype, about.rounding) == ("bf16", MEASURED)
    for model, again in zip(tiny_models(2), ensemble.models(), strict=True):
        again.network()
        assert again.weights.keys() == model.weights.keys()
        for name, tensor in again.weights.items():
            assert tensor.dtype == model.weights[name].dtype
            expected = model.weights[name].bfloat16().float() if tensor.dim() > 1 else model.weights[name]
            assert torch.equal(tensor, expected)


def test_biases_norms_and_batch_statistics_are_not_rounded(folder, tmp_path):
    collected(folder, tmp_path / "bf16", rounding=MEASURED)
    with safe_open(tmp_path / "bf16", framework="pt") as file:
        dtypes = {name.removeprefix("members.0."): file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert dtypes["backbone.conv1.weight"] == dtypes["head.weight"] == torch.bfloat16
    assert dtypes["head.bias"] == dtypes["backbone.bn1.weight"] == dtypes["backbone.bn1.running_var"] == torch.float32
    assert dtypes["backbone.bn1.num_batches_tracked"] == torch.int64


def test_a_float32_file_is_unchanged_by_the_option(tmp_path):
    about, _ = read_about(tiny_ensemble(tmp_path / "ensemble", count=1))
    assert about.rounding is None
    with safe_open(tmp_path / "ensemble", framework="pt") as file:
        assert '"dtype":"fp32"' in file.metadata()["about"]
        assert "rounding" not in file.metadata()["about"]


# --- its cost --------------------------------------------------------------------------------------------


def test_each_fold_predicts_its_own_held_out_images_with_rounded_weights(folder):
    splits = [str(folder / "folds"), str(folder / "folds of the repeat")]
    other = (folder / "folds").read_text().splitlines()
    (folder / "folds of the repeat").write_text("\n".join([other[0], *sorted(other[1:], reverse=True)]) + "\n")
    store = Stage(folder).store
    files = models_of(folder, "fold0", "fold1", "repeat1/fold2")
    found = predict_rounded(files, splits, TTA, store, CPU, None)
    for place, (model, split, fold) in enumerate(zip(tiny_models(3), (0, 0, 1), (0, 1, 2), strict=True)):
        images = listed_images(splits[split], fold)
        assert found[place].image_id.tolist() == images.tolist()
        asked = [predict(each, on_device(each, CPU), TTA, store, images, CPU, 8) for each in variants(model)]
        np.testing.assert_array_equal(found[place].values, asked[1].values)
        assert not np.array_equal(found[place].values, asked[0].values)


def variants(model):
    """A model before and after rounding."""
    return model, as_float32(rounded(model))


IDS = np.array([f"{number}.png" for number in range(2000)], dtype=object)
LABEL_OF = {name: "ab"[place % 2] for place, name in enumerate(IDS)}


def with_mistakes(count, sure=4.0, ids=IDS):
    """Logits that are wrong for some images, with confidence ``sure``."""
    right = np.array([[LABEL_OF[name] == label for label in "ab"] for name in ids]) * 2.0 - 1
    right[:count] *= -1
    return Logits(ids, sure * right, ("a", "b"))


def measured(before, after, metric="accuracy", **options):
    return compare([before], [after], LABEL_OF, Scoring(metric=metric), **options)


def test_a_metric_within_the_tolerance_is_accepted_and_logged():
    rounding = measured(with_mistakes(100), with_mistakes(102))  # 0.001 worse
    expected = {"metric": "accuracy", "before": 0.95, "after": 0.949, "tolerance": 0.001}
    assert rounding.model_dump() == expected | {"images": 2000, "relabelled": 2}
    assert measured(with_mistakes(100), with_mistakes(10)).after == 0.995  # it may be better by any amount


def test_a_metric_that_gets_worse_is_refused():
    with pytest.raises(KfoldError) as refusal:
        measured(with_mistakes(100), with_mistakes(103))
    assert str(refusal.value) == (
        "bundle_dtype: bf16 costs more than the tolerance: accuracy 0.9500 before rounding and 0.9485 after it "
        "(tolerance 0.001); 3 of 2,000 images get another label; write bundle_dtype: fp32 into config.yaml, which "
        "stores the weights without rounding"
    )


@pytest.mark.parametrize("metric", sorted(METRICS.keys() - {"top_k_accuracy", "map_at_k", "quadratic_kappa"}))
def test_worse_depends_on_the_direction_of_the_metric(metric):
    good, bad = with_mistakes(0), with_mistakes(200)
    if METRICS[metric].needs_probabilities and metric != "log_loss":
        bad = Logits(IDS, np.random.default_rng(0).normal(size=(2000, 2)), ("a", "b"))
    measured(bad, good, metric)
    with pytest.raises(KfoldError, match="costs more than the tolerance"):
        measured(good, bad, metric)


def test_a_rise_of_log_loss_is_refused_even_if_no_label_changes():
    with pytest.raises(KfoldError, match=r"log loss 0.0003 before .* and 0.0181 after .*; 0 of 2,000 images"):
        measured(with_mistakes(0, sure=4), with_mistakes(0, sure=2), "log_loss")


def test_a_metric_without_a_value_is_refused():
    logits = Logits(IDS[:1], np.ones((1, 2)), ("a", "b"))
    with pytest.raises(
        KfoldError, match="metric: roc_auc has no value: there are no images of class b; write bundle_dtype"
    ):
        measured(logits, logits, "roc_auc")


def test_predictions_of_repeats_are_combined_before_they_are_scored():
    wrong = Logits(IDS, -with_mistakes(0).values / 2, ("a", "b"))
    before = after = [with_mistakes(0), wrong]  # the average is right
    assert compare(before, after, LABEL_OF, Scoring(), "average").before == 1


def test_rows_are_joined_by_image():
    order = np.random.default_rng(0).permutation(len(IDS))
    shuffled = Logits(IDS[order], with_mistakes(7).values[order], ("a", "b"))
    assert measured(with_mistakes(7), shuffled).relabelled == 0


def test_rounding_needs_models_that_hold_out_images():
    data = {"source": "digits"}
    for dtype, members in product(("fp32", "bf16"), ("folds", "both", "full")):
        values = {"data": data, "bundle_dtype": dtype, "members": members, "full_fit": True}
        if (dtype, members) != ("bf16", "full"):
            assert load_config(values).bundle_dtype == dtype
            continue
        with pytest.raises(ConfigError, match="bundle_dtype: bf16 needs the folds' models, .* write members: folds"):
            load_config(values)
