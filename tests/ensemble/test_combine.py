import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kfold_ens.ensemble.combine import METHODS, combine
from kfold_ens.errors import KfoldError
from kfold_ens.logits import Logits

SHAPES_MNK = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7)
SEEDS = st.integers(0, 2**32 - 1)
LARGEST = float(np.finfo(np.float32).max)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=-1, keepdims=True)


def voted(logits_mnk):
    """Votes, with the summed softmax scaled below one vote: its largest is the prediction."""
    votes = np.eye(logits_mnk.shape[2])[logits_mnk.argmax(axis=2)].sum(axis=0)
    return votes + softmax(logits_mnk).mean(axis=0) / 2


REFERENCES = {
    "average": lambda logits_mnk: logits_mnk.mean(axis=0),
    "softmax": lambda logits_mnk: np.log(softmax(logits_mnk).mean(axis=0)),
    "vote": voted,
}


def members_of(logits_mnk):
    _, images, classes = np.shape(logits_mnk)
    ids = np.array([f"test/{index}.png" for index in range(images)], dtype=object)
    labels = tuple(str(label) for label in range(classes))
    return {f"fold {fold}": Logits(ids, np.asarray(values), labels) for fold, values in enumerate(logits_mnk)}


def random_logits(shape_mnk, seed):
    return np.random.default_rng(seed).normal(scale=3, size=shape_mnk).astype(np.float32)


def shuffled(member, generator):
    rows, columns = (generator.permutation(side) for side in member.values.shape)
    classes = tuple(member.classes[column] for column in columns)
    return Logits(member.image_id[rows], member.values[np.ix_(rows, columns)], classes)


def by_name(logits):
    return {
        (image, label): value
        for image, row in zip(logits.image_id, logits.values, strict=True)
        for label, value in zip(logits.classes, row, strict=True)
    }


@pytest.mark.parametrize("method", METHODS)
@given(SHAPES_MNK, SEEDS)
def test_a_method_follows_its_formula(method, shape_mnk, seed):
    logits_mnk = random_logits(shape_mnk, seed)
    members = members_of(logits_mnk)
    combined = combine(members, method)
    expected = REFERENCES[method](logits_mnk.astype(np.float64))
    assert combined.image_id.tolist() == members["fold 0"].image_id.tolist()
    assert combined.classes == members["fold 0"].classes
    if method == "vote":  # the scores are free; the votes and the predictions are not
        np.testing.assert_array_equal(np.floor(combined.values), np.floor(expected))
        np.testing.assert_array_equal(combined.values.argmax(axis=1), expected.argmax(axis=1))
    else:
        np.testing.assert_allclose(combined.values, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@given(SHAPES_MNK, SEEDS)
def test_the_order_of_members_images_and_classes_changes_nothing(method, shape_mnk, seed):
    generator = np.random.default_rng(seed)
    members = members_of(random_logits(shape_mnk, seed) * 10.0 ** generator.integers(-9, 9, shape_mnk))
    others = [(name, shuffled(member, generator)) for name, member in members.items()]
    generator.shuffle(others)
    combined = combine(dict(others), method)
    assert by_name(combined) == by_name(combine(members, method))  # to the bit
    first = next(iter(dict(others).values()))
    assert (combined.image_id.tolist(), combined.classes) == (first.image_id.tolist(), first.classes)


@pytest.mark.parametrize("method", METHODS)
@given(
    SHAPES_MNK.flatmap(
        lambda shape: arrays(
            np.float16, (1, *shape[1:]), elements=st.floats(width=16, allow_nan=False, allow_infinity=False)
        )
    )
)
def test_an_ensemble_of_one_member_predicts_as_that_member(method, logits_1nk):
    members = members_of(logits_1nk.astype(np.float32))
    assert combine(members, method).predictions().tolist() == members["fold 0"].predictions().tolist()


@pytest.mark.parametrize("method", METHODS)
def test_huge_logits_stay_finite(method):
    huge = [[[LARGEST, -LARGEST, 0], [-LARGEST, -LARGEST, -LARGEST]], [[LARGEST, 1, 2], [-LARGEST, 0, LARGEST]]]
    combined = combine(members_of(np.array(huge, dtype=np.float32)), method)
    assert np.isfinite(combined.values).all()
    assert combined.predictions().tolist() == ["0", "2"]


SURE, DOUBTFUL = 5.0, 1.0
TIES = [
    ([(SURE, 0, 0), (SURE, 0, 0), (0, DOUBTFUL, 0), (0, DOUBTFUL, 0), (0, 0, 9)], 0),
    ([(DOUBTFUL, 0, 0), (DOUBTFUL, 0, 0), (0, SURE, 0), (0, SURE, 0), (0, 0, 9)], 1),
    ([(SURE, 0, 0), (SURE, 0, 0), (0, SURE, 0), (0, SURE, 0), (0, 0, 9)], 0),
    ([(0, SURE, 0), (0, SURE, 0), (0, 0, SURE), (0, 0, SURE), (9, 0, 0)], 1),
]


@pytest.mark.parametrize(("votes", "winner"), TIES)
def test_the_larger_summed_softmax_breaks_a_tie_then_class_order(votes, winner):
    for order in itertools.permutations(votes):
        combined = combine(members_of(np.array(order, dtype=np.float32)[:, None, :]), "vote")
        assert combined.predictions().tolist() == [str(winner)]


@given(st.integers(3, 12), SEEDS)
def test_class_order_breaks_the_tie_of_two_mirrored_members(num_classes, seed):
    generator = np.random.default_rng(seed)
    member = generator.normal(size=num_classes)
    first, second = sorted(generator.choice(num_classes, 2, replace=False))
    member[first] = member.max() + 1
    mirrored = member.copy()
    mirrored[[first, second]] = member[[second, first]]
    assert combine(members_of([[member], [mirrored]]), "vote").predictions().tolist() == [str(first)]


BASE = Logits(np.array(["a", "b"], dtype=object), np.zeros((2, 2), np.float32), ("1", "01"))


def changed(ids=("a", "b"), classes=("1", "01")):
    return Logits(np.array(ids, dtype=object), np.zeros((len(ids), len(classes)), np.float32), classes)


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (changed(ids=("a",)), "images.*\n  b"),
        (changed(ids=("a", "b", "c")), "images.*\n  c"),
        (changed(ids=("a", "c")), "images.*\n  b\n  c"),
        (changed(ids=("a", "b", "b")), "images"),
        (changed(classes=("1",)), "classes.*\n  01"),
        (changed(classes=("1", "1.0")), "classes.*\n  01\n  1.0"),
    ],
)
def test_members_with_other_images_or_classes_are_refused_by_name(member, what):
    with pytest.raises(KfoldError, match=f"^fold 2: {what}"):
        combine({"fold 0": BASE, "fold 1": changed(ids=("b", "a")), "fold 2": member}, "average")
