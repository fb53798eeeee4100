import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import softmax

from kfold_ens.config import Scoring
from kfold_ens.ensemble.metrics import score
from kfold_ens.ensemble.score_table import as_text
from kfold_ens.ensemble.summary import summarize
from kfold_ens.ensemble.temperature import calibrate, fitted, log_loss
from kfold_ens.logits import Logits, at_temperature

CLASSES = ("cat", "dog", "owl")


def folds_of(scale, folds=3, images=400, seed=0):
    """Logits of folds whose probabilities are right where ``scale`` is 1, and their labels."""
    random, label_of, oof = np.random.default_rng(seed), {}, []
    for fold in range(folds):
        true = random.normal(0, 2, (images, len(CLASSES)))
        labels = [random.choice(CLASSES, p=row) for row in softmax(true, axis=1)]
        ids = np.array([f"{fold}/{index}" for index in range(images)], dtype=object)
        label_of |= dict(zip(ids, labels, strict=True))
        oof.append(Logits(ids, (true * scale).astype(np.float32), CLASSES))
    return oof, label_of


@pytest.mark.parametrize("scale", [0.2, 3.0, 20.0])
def test_the_temperature_undoes_a_scale(scale):
    oof, label_of = folds_of(scale, images=4000)
    assert calibrate(oof, label_of).temperature == pytest.approx(scale, rel=0.1)


def test_the_temperature_minimises_the_loss():
    (logits,), label_of = folds_of(3.0, folds=1)
    truth = np.array([[label_of[each] == name for name in CLASSES] for each in logits.image_id])

    def slope(temperature):  # of the log loss, times T squared
        values = logits.values.astype(np.float64)
        return ((truth - softmax(values / temperature, axis=1)) * values).sum()

    assert fitted(logits, label_of) == pytest.approx(brentq(slope, 1, 10), rel=1e-4)


def test_the_loss_is_that_of_the_labels():
    (logits,), label_of = folds_of(1.0, folds=1)
    chances = softmax(logits.values.astype(np.float64), axis=1)
    own = [chances[row, CLASSES.index(label_of[each])] for row, each in enumerate(logits.image_id)]
    assert log_loss(logits, label_of) == pytest.approx(-np.log(own).mean())


def test_a_confident_mistake_costs_as_much_as_in_the_metric():
    sure = Logits(np.array(["a", "b"], dtype=object), np.array([[900.0, 0, 0], [0, 900, 0]]), CLASSES)
    label_of = {"a": "cat", "b": "owl"}
    assert log_loss(sure, label_of) == pytest.approx(score(sure, label_of)["log_loss"])


def test_scores_of_calibrated_probabilities_are_listed_separately():
    oof, label_of = folds_of(3.0)
    test, truth = folds_of(3.0, folds=1, seed=1)
    test = [Logits(test[0].image_id + "t", test[0].values, CLASSES)]
    label_of |= {f"{image}t": label for image, label in truth.items()}
    scoring, combined = Scoring(metric="log_loss"), {"average": test[0], "vote": test[0]}
    plain = summarize(dict(enumerate(oof)), dict.fromkeys(range(3), test[0]), combined, label_of, scoring)
    both = summarize(
        dict(enumerate(oof)), dict.fromkeys(range(3), test[0]), combined, label_of, scoring, calibrates=True
    )
    after, found = both.pop("calibrated"), calibrate(oof, label_of)
    assert both == plain
    assert after["temperature"] == found.temperature
    assert after["out_of_fold"]["log_loss"] == found.after < plain["out_of_fold"]["log_loss"]
    assert list(after["methods"]) == ["average"]
    wanted = log_loss(at_temperature(test[0], found.temperature), label_of)
    assert after["methods"]["average"]["test"]["log_loss"] == wanted
    lines = as_text(both | {"calibrated": after}, "average").splitlines()
    assert [line.split("  ")[1] for line in lines[-2:]] == ["all folds, calibrated", "average, calibrated *"]


def test_each_fold_is_scored_at_a_temperature_fitted_on_the_others():
    oof, label_of = folds_of(3.0)
    found = calibrate(oof, label_of)
    for fold in range(len(oof)):
        others = [each for place, each in enumerate(oof) if place != fold]
        joined = Logits(
            np.concatenate([each.image_id for each in others]), np.concatenate([e.values for e in others]), CLASSES
        )
        assert found.of_folds[fold] == fitted(joined, label_of)
    losses = [
        log_loss(at_temperature(logits, each), label_of) for logits, each in zip(oof, found.of_folds, strict=True)
    ]
    assert found.after == pytest.approx(np.mean(losses))
    assert found.after < found.before
    assert len(set(found.of_folds)) == len(oof)


def test_a_temperature_that_does_not_lower_the_loss_is_dropped():
    kept = []
    for seed in range(8):
        oof, label_of = folds_of(1.0, images=60, seed=seed)
        found = calibrate(oof, label_of)
        assert (found.temperature == 1) == (found.after >= found.before)
        kept.append(found.temperature != 1)
    assert not all(kept)


def test_whether_a_fold_is_calibrated_does_not_depend_on_its_own_labels():
    oof, label_of = folds_of(0.5)  # underconfident: wrong labels then make every temperature of the others look bad
    wrong = label_of | {
        image: CLASSES[values.argmin()] for image, values in zip(oof[0].image_id, oof[0].values, strict=True)
    }
    one, other = calibrate(oof, label_of), calibrate(oof, wrong)
    assert one.temperature < 1 == other.temperature
    assert one.of_folds[0] == other.of_folds[0] != 1


def test_no_temperature_changes_a_prediction():
    (logits,), _ = folds_of(1.0, folds=1)
    assert (at_temperature(logits, 7.3).predictions() == logits.predictions()).all()
