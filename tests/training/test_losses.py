import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from kfold_ens.config import ClassWeights, Focal, Loss
from kfold_ens.training.losses import build_loss, class_weights, focal_loss

CROSS_ENTROPY = {"kind": "cross_entropy", "label_smoothing": 0.05}
FOCAL = {"kind": "focal", "gamma": 1.5, "balanced": True}
COUNTS = np.array([10, 20, 30, 40])
WEIGHTED = [
    {"kind": "cross_entropy", "weights": {"power": 0.5}, "label_smoothing": 0.1},
    {"kind": "cross_entropy", "weights": "effective_number"},
    {"kind": "focal", "weights": "balanced", "logit_adjustment": 0.7},
    {"kind": "cross_entropy", "logit_adjustment": 1},
]


def loss(section, logits, targets, epoch=0):
    return build_loss(TypeAdapter(Loss).validate_python(section), COUNTS)(logits, targets, epoch)


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    return 3 * torch.randn(16, 4, generator=random), torch.randint(4, (16,), generator=random)


def test_focal_equals_its_formula_for_labels(batch):
    logits, labels = batch
    p = logits.double().softmax(1)[torch.arange(16), labels]
    assert loss({"kind": "focal", "gamma": 2}, *batch).item() == pytest.approx(
        (-((1 - p) ** 2) * p.log()).mean().item()
    )
    weight = torch.tensor(COUNTS.sum() / (4 * COUNTS))[labels]
    expected = (-weight * (1 - p) ** 1.5 * p.log()).mean().item()
    assert loss(FOCAL, *batch).item() == pytest.approx(expected, rel=1e-5)


def test_focal_agrees_with_torchvision_on_two_classes():
    """Softmax over (0, x) is the sigmoid of x."""
    x, labels = torch.linspace(-5, 5, 20), torch.arange(20) % 2
    ours = focal_loss(torch.stack([torch.zeros(20), x], 1), labels, 2.0, torch.ones(2))
    assert ours.item() == pytest.approx(
        sigmoid_focal_loss(x, labels.float(), alpha=-1, gamma=2, reduction="mean").item()
    )


def test_focal_with_gamma_0_is_cross_entropy(batch):
    assert loss({"kind": "focal", "gamma": 0}, *batch).item() == pytest.approx(F.cross_entropy(*batch).item(), rel=1e-6)


@settings(deadline=None)
@given(st.floats(0, 1), st.sampled_from([CROSS_ENTROPY, FOCAL, {"kind": "focal", "gamma": 2}, *WEIGHTED]))
def test_the_loss_of_a_mixed_batch_is_the_mixture_of_its_labels_losses(share, section):
    logits, one, other = torch.randn(8, 4), torch.randint(4, (8,)), torch.randint(4, (8,))
    mixed = share * F.one_hot(one, 4) + (1 - share) * F.one_hot(other, 4)
    expected = share * loss(section, logits, one) + (1 - share) * loss(section, logits, other)
    assert loss(section, logits, mixed.float()).item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


def test_focal_and_its_gradient_are_finite_for_saturated_predictions():
    logits = torch.tensor([[200.0, 0, 0, 0], [0, 200.0, 0, 0]], requires_grad=True)
    value = loss({"kind": "focal", "gamma": 0.5}, logits, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx(100)
    assert logits.grad.isfinite().all()


def weights_of(counts=COUNTS, **values):
    return class_weights(ClassWeights(**values), counts).numpy()


def test_balanced_weights_match_scikit_learn():
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(weights_of(power=1), expected, 1e-6)
    # Bit for bit, so that folds trained with `balanced: true` stay valid.
    np.testing.assert_array_equal(weights_of(power=1), (COUNTS.sum() / (4 * COUNTS)).astype(np.float32))


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=50), st.floats(0, 1))
def test_power_weights_are_proportional_and_have_a_mean_of_one_over_the_images(counts, power):
    counts = np.array(counts)
    weights = weights_of(counts, power=power).astype(np.float64)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(weights / weights[0], (counts / counts[0]) ** -power, rtol=1e-5)


@given(st.lists(st.integers(1, 5000), min_size=2, max_size=50), st.sampled_from([0.9, 0.99, 0.999, 0.9999]))
def test_effective_number_weights_match_cui_et_al(counts, beta):
    effective = np.array([sum(beta**power for power in range(count)) for count in counts])  # 1 + beta + beta^2 ...
    expected = (1 / effective) * len(counts) / (1 / effective).sum()
    np.testing.assert_allclose(weights_of(np.array(counts), beta=beta), expected, rtol=1e-5)


def test_weighted_cross_entropy_is_focal_loss_with_gamma_0(batch):
    for weights in ("balanced", {"power": 0.5}, "effective_number"):
        some, other = ({"kind": kind, "weights": weights} for kind in ("cross_entropy", "focal"))
        assert loss(some, *batch).item() == pytest.approx(loss(other | {"gamma": 0}, *batch).item(), rel=1e-5)


@pytest.mark.parametrize("section", WEIGHTED)
def test_parts_of_a_batch_add_up_to_the_whole(batch, section):
    logits, labels = batch
    parts = [loss(section, logits[part], labels[part]) for part in (slice(0, 4), slice(4, 16))]
    assert loss(section, logits, labels).item() == pytest.approx((4 * parts[0] + 12 * parts[1]).item() / 16, rel=1e-5)


def test_both_ways_to_write_balanced_are_the_same_loss(batch):
    for weights in ("balanced", {"power": 1}, {"power": 1.0}):
        other = {"kind": "focal", "gamma": 1.5, "weights": weights}
        assert Focal(**other).model_dump() == Focal(**FOCAL).model_dump()  # so both have the same fingerprint
        assert loss(FOCAL, *batch) == loss(other, *batch)


def test_logit_adjustment_matches_menon_et_al(batch):
    """Equation 10: the cross-entropy of f_y + tau log pi_y."""
    logits, labels = batch
    scores = logits.double().numpy() + 0.7 * np.log(COUNTS / COUNTS.sum())
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(16), labels.numpy()].mean()
    section = {"kind": "cross_entropy", "logit_adjustment": 0.7}
    assert loss(section, *batch).item() == pytest.approx(expected, rel=1e-5)


def test_cross_entropy_without_weights_is_torchs_bit_for_bit(batch):
    assert loss({"kind": "cross_entropy", "weights": "none"}, *batch) == F.cross_entropy(*batch)


@pytest.mark.parametrize(
    ("section", "finding"),
    [
        ({"kind": "cross_entropy", "weights": "ballanced"}, "none, balanced, effective_number"),
        ({"kind": "cross_entropy", "weights": {"power": 2}}, "less than or equal to 1"),
        ({"kind": "cross_entropy", "weights": {"power": 0.5, "beta": 0.9}}, "power and beta both weight the classes"),
        ({"kind": "cross_entropy", "weights": {"beta": 1}}, "less than 1"),
        ({"kind": "focal", "balanced": True, "weights": {"power": 0.5}}, "remove one of them"),
    ],
)
def test_invalid_weights_are_refused(section, finding):
    with pytest.raises(ValidationError, match=finding):
        TypeAdapter(Loss).validate_python(section)


def test_a_sum_is_the_weighted_sum_of_its_terms(batch):
    section = {"kind": "sum", "terms": [{"weight": 0.8, "loss": FOCAL}, {"weight": 0.2, "loss": CROSS_ENTROPY}]}
    expected = 0.8 * loss(FOCAL, *batch) + 0.2 * loss(CROSS_ENTROPY, *batch)
    assert loss(section, *batch).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(("epoch", "share"), [(0, 0), (13, 0), (14, 0), (15, 1 / 3), (16, 2 / 3), (17, 1), (99, 1)])
def test_a_switched_loss_blends_by_epoch(batch, epoch, share):
    section = {"kind": "switched", "before": CROSS_ENTROPY, "after": FOCAL, "blend_from": 14, "switch_at": 17}
    expected = (1 - share) * loss(CROSS_ENTROPY, *batch) + share * loss(FOCAL, *batch)
    assert loss(section, *batch, epoch=epoch).item() == pytest.approx(expected.item())


def test_a_switch_without_a_blend_is_immediate(batch):
    section = {"kind": "switched", "before": CROSS_ENTROPY, "after": FOCAL, "blend_from": 3, "switch_at": 3}
    assert loss(section, *batch, epoch=2) == loss(CROSS_ENTROPY, *batch)
    assert loss(section, *batch, epoch=3) == loss(FOCAL, *batch)
