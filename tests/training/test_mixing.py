import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from kfold_ens import config
from kfold_ens.training.mixing import build_mixing

CLASSES = 4


def mixing(kind, **values):
    return build_mixing(TypeAdapter(config.Mixing).validate_python({"kind": kind} | values), CLASSES)


def batch(labels, side=8):
    """Images with one channel per class, 1 in the channel of their own class: channel means equal the labels."""
    labels = torch.tensor(labels)
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
    return one_hot[:, :, None, None].expand(-1, -1, side, side).clone(), labels


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "mixup_or_cutmix"])
@given(
    labels=st.lists(st.integers(0, CLASSES - 1), min_size=2, max_size=9),
    alpha=st.floats(0.1, 5),
    seed=st.integers(0, 2**63 - 1),
)
@settings(deadline=None)
def test_labels_are_mixed_in_the_same_proportions_as_images(kind, labels, alpha, seed):
    torch.manual_seed(seed)
    images, mixed = mixing(kind, alpha=alpha)(*batch(labels))
    assert mixed.shape == (len(labels), CLASSES)
    assert (mixed >= 0).all()
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(len(labels)))
    torch.testing.assert_close(images.mean(dim=(2, 3)), mixed)


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "mixup_or_cutmix"])
@pytest.mark.parametrize("probability", [0, 0.3, 1])
def test_batches_are_mixed_with_the_configured_probability(kind, probability):
    torch.manual_seed(0)
    mix, (images, labels) = mixing(kind, alpha=1, probability=probability), batch([0, 1, 2], side=2)
    outcomes = [mix(images, labels) for _ in range(500)]
    mixed = [outcome for outcome in outcomes if outcome[1].ndim == 2]
    assert len(mixed) == pytest.approx(500 * probability, abs=4 * (500 * probability * (1 - probability)) ** 0.5)
    assert all(torch.equal(outcome[0], images) for outcome in outcomes if outcome[1] is labels)


def test_mixup_and_cutmix_are_equally_frequent():
    torch.manual_seed(0)
    mix, (images, labels) = mixing("mixup_or_cutmix", alpha=1), batch([0, 1], side=16)
    cut = sum(bool(torch.isin(mix(images, labels)[0], torch.tensor([0.0, 1.0])).all()) for _ in range(400))
    assert cut == pytest.approx(200, abs=40)


def test_no_mixing_leaves_a_batch_unchanged():
    images, labels = batch([0, 1])
    assert all(some is other for some, other in zip(mixing("none")(images, labels), (images, labels), strict=True))
