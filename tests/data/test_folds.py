import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from kfold_ens.data.folds import assign_folds
from kfold_ens.errors import DataError

COUNTS = {"2": 9, "10": 5, "ü, ☃": 13}


def images(counts=COUNTS, same_as=()):
    """Training images in the order of their ids; ``same_as`` pairs ids with the id of an equal image."""
    ids = [(f"train/{label}/{index:02d}.png", label) for label, count in counts.items() for index in range(count)]
    table = pd.DataFrame(sorted(ids), columns=["image_id", "label"])
    return table.assign(duplicate_group=table["image_id"].replace(dict(same_as)))


@pytest.mark.parametrize("seed", [0, 1, 2**31])
@pytest.mark.parametrize("num_folds", [2, 3, 5, 10, 20])
def test_folds_are_scikit_learns(num_folds, seed):
    train = images({label: 4 * count for label, count in COUNTS.items()})
    expected = np.empty(len(train), dtype=int)
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(train["image_id"], train["label"])):
        expected[held_out] = fold
    folds = assign_folds(train, num_folds, seed)
    assert folds.columns.tolist() == ["image_id", "fold"]
    assert folds["image_id"].tolist() == train["image_id"].tolist()
    assert folds["fold"].tolist() == expected.tolist()


COPIES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=6)


@given(st.randoms(use_true_random=False), COPIES, st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing_and_duplicates_stay_together(random, copies, num_folds, seed):
    train = images({"a": 20, "b": 20}, [(f"train/a/{a + 7:02d}.png", f"train/a/{b:02d}.png") for a, b in copies])
    groups = train.set_index("image_id")["duplicate_group"]
    train["duplicate_group"] = train["duplicate_group"].map(groups)  # a copy of a copy
    order = random.sample(range(len(train)), len(train))
    folds = assign_folds(train, num_folds, seed)
    pd.testing.assert_frame_equal(folds, assign_folds(train.iloc[order], num_folds, seed))
    assert folds["image_id"].tolist() == train["image_id"].tolist()  # each image exactly one
    assert set(folds["fold"]) == set(range(num_folds))
    assert (folds["fold"].groupby(train["duplicate_group"]).nunique() == 1).all()


@given(st.dictionaries(st.text(min_size=1), st.integers(4, 30), min_size=2, max_size=5), st.integers(2, 4))
def test_every_fold_has_its_share_of_every_class(counts, num_folds):
    train = images(counts)
    folds = assign_folds(train, num_folds, 0)
    shares = pd.crosstab(train["label"], folds["fold"].to_numpy())
    assert shares.to_numpy().min() >= 1
    assert (shares.max(axis=1) - shares.min(axis=1)).max() <= 1


def test_other_seeds_are_other_folds():
    drawn = {tuple(assign_folds(images(), 3, seed)["fold"]) for seed in range(5)}
    assert len(drawn) == 5


def test_an_equal_image_in_the_test_set_names_the_group():
    train = images(same_as=[("train/2/03.png", "test/x.png"), ("train/2/07.png", "test/x.png")])
    folds = assign_folds(train, 3, 0).set_index("image_id")["fold"]
    assert folds["train/2/03.png"] == folds["train/2/07.png"]


@pytest.mark.parametrize(
    ("counts", "copies", "listed"),
    [
        ({"a": 5, "b": 2, "c": 1, "d": 3}, [], ["b: 2", "c: 1"]),
        ({"a": 5, "b": 3}, [("train/b/02.png", "train/b/00.png")], ["b: 2"]),
    ],
    ids=["too few", "too few but for copies"],
)
def test_classes_with_fewer_images_than_folds_are_refused_and_listed(counts, copies, listed):
    with pytest.raises(DataError, match="num_folds is 3") as refusal:
        assign_folds(images(counts, copies), 3, 0)
    assert str(refusal.value).splitlines()[1:] == [f"  {line}" for line in listed]
