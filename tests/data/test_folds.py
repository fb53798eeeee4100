import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold
from stages import Hashes

from kfold_ens.data.folds import Images, listed_images, read_fold
from kfold_ens.errors import DataError
from kfold_ens.files import write_json, write_table
from kfold_ens.splits.assign import assign_folds

COUNTS = {"2": 9, "10": 5, "ü, ☃": 13}


def sha256_of_text(text):
    return hashlib.sha256(text.encode()).hexdigest()


def images(counts=COUNTS, same_as=()):
    """Training images in the order of their ids; ``same_as`` pairs ids with the id of an equal image."""
    ids = [(f"train/{label}/{index:02d}.png", label) for label, count in counts.items() for index in range(count)]
    table = pd.DataFrame(sorted(ids), columns=["image_id", "label"])
    return table.assign(sha256=table["image_id"].replace(dict(same_as)).map(sha256_of_text))


def shuffled(train, random):
    return train.iloc[random.sample(range(len(train)), len(train))]


def renamed(train, random):
    """The same images under other names, which sort in another order."""
    names = random.sample(range(len(train)), len(train))
    return train.assign(image_id=[f"elsewhere/{name:03d}.jpg" for name in names])


def by_content(folds):
    """The fold of each distinct image; checks that copies share it."""
    assert (folds.groupby("sha256")["fold"].nunique() == 1).all()
    return dict(zip(folds["sha256"], folds["fold"], strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2**31])
@pytest.mark.parametrize("num_folds", [2, 3, 5, 10, 20])
def test_folds_are_scikit_learns_for_images_in_the_order_of_their_hashes(num_folds, seed):
    train = images({label: 4 * count for label, count in COUNTS.items()})
    ordered = train.sort_values("sha256", ignore_index=True)
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(ordered["image_id"], ordered["label"])):
        ordered.loc[held_out, "expected"] = fold
    folds = assign_folds(train, num_folds, seed)
    assert folds.columns.tolist() == ["image_id", "sha256", "label", "fold"]
    pd.testing.assert_frame_equal(folds[["image_id", "sha256", "label"]], train[["image_id", "sha256", "label"]])
    assert by_content(folds) == dict(zip(ordered["sha256"], ordered["expected"], strict=True))


COPIES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=6)
RANDOMS = st.randoms(use_true_random=False)
SEEDS = st.integers(0, 2**32 - 1)


def with_copies(copies):
    return images({"a": 20, "b": 20}, [(f"train/a/{a + 7:02d}.png", f"train/a/{b:02d}.png") for a, b in copies])


@given(RANDOMS, COPIES, st.integers(2, 4), SEEDS)
def test_the_order_of_rows_changes_nothing_and_copies_stay_together(random, copies, num_folds, seed):
    train = with_copies(copies)
    folds = assign_folds(train, num_folds, seed)
    pd.testing.assert_frame_equal(folds, assign_folds(shuffled(train, random), num_folds, seed))
    assert folds["image_id"].tolist() == train["image_id"].tolist()  # each image exactly once
    assert set(folds["fold"]) == set(range(num_folds))
    assert len(by_content(folds)) == train["sha256"].nunique()


@given(RANDOMS, COPIES, st.integers(2, 4), SEEDS)
def test_renamed_images_keep_their_fold(random, copies, num_folds, seed):
    train = with_copies(copies)
    expected = by_content(assign_folds(train, num_folds, seed))
    assert by_content(assign_folds(renamed(train, random), num_folds, seed)) == expected


@given(RANDOMS, COPIES, st.integers(2, 4), SEEDS)
def test_one_more_copy_of_an_image_moves_no_other_image(random, copies, num_folds, seed):
    train = with_copies(copies)
    copy = train.sample(1, random_state=random.randrange(1000)).assign(image_id="train/a/copy.png")
    more = pd.concat([train, copy], ignore_index=True)
    assert by_content(assign_folds(more, num_folds, seed)) == by_content(assign_folds(train, num_folds, seed))


@given(st.dictionaries(st.text(min_size=1), st.integers(4, 30), min_size=2, max_size=5), st.integers(2, 4))
def test_every_fold_has_an_equal_share_of_every_class(counts, num_folds):
    folds = assign_folds(images(counts), num_folds, 0)
    shares = pd.crosstab(folds["label"], folds["fold"])
    assert shares.sum(axis=1).to_dict() == counts
    assert shares.to_numpy().min() >= 1
    assert (shares.max(axis=1) - shares.min(axis=1)).max() <= 1


def test_other_seeds_give_other_folds():
    drawn = {tuple(assign_folds(images(), 3, seed)["fold"]) for seed in range(5)}
    assert len(drawn) == 5


def test_training_copies_of_a_test_image_share_a_fold():
    train = images(same_as=[("train/2/03.png", "test/x.png"), ("train/2/07.png", "test/x.png")])
    folds = assign_folds(train, 3, 0).set_index("image_id")["fold"]
    assert folds["train/2/03.png"] == folds["train/2/07.png"]


@pytest.mark.parametrize(
    ("counts", "copies", "listed"),
    [
        ({"a": 5, "b": 2, "c": 1, "d": 3}, [], ["b: 2", "c: 1"]),
        ({"a": 5, "b": 3}, [("train/b/02.png", "train/b/00.png")], ["b: 2"]),
    ],
    ids=["too few", "too few without copies"],
)
def test_classes_with_fewer_images_than_folds_are_refused_and_listed(counts, copies, listed):
    with pytest.raises(DataError, match="num_folds is 3") as refusal:
        assign_folds(images(counts, copies), 3, 0)
    assert str(refusal.value).splitlines()[1:] == [f"  {line}" for line in listed]


# --- the images of a fold --------------------------------------------------------------------------------


def fold_of(train, folder, number=1):
    folds, classes = folder / "folds.csv", folder / "classes.json"
    write_table(folds, assign_folds(train, 3, 0))
    write_json(classes, list(COUNTS))
    return read_fold(number, 7, str(folds), str(classes), Hashes(train["image_id"], train["sha256"]))


def test_a_fold_is_read_in_the_order_of_hashes(tmp_path):
    train = images()
    fold, folds = fold_of(train, tmp_path), assign_folds(train, 3, 0).set_index("image_id")
    assert (fold.number, fold.seed, fold.classes) == (1, 7, tuple(COUNTS))
    for part, held_out in ((fold.train, False), (fold.validation, True)):
        expected = folds[(folds["fold"] == 1) == held_out].sort_values("sha256")
        assert part.image_id.tolist() == expected.index.tolist()
        assert [fold.classes[target] for target in part.target] == expected["label"].tolist()
        assert part.target.dtype == np.int64


@given(RANDOMS, COPIES)
def test_renamed_and_reordered_images_are_the_same_fold(tmp_path_factory, random, copies):
    train = images({"2": 20, "10": 20}, [(f"train/2/{a + 7:02d}.png", f"train/2/{b:02d}.png") for a, b in copies])
    one, other = (
        fold_of(table, tmp_path_factory.mktemp("fold")) for table in (train, shuffled(renamed(train, random), random))
    )
    for part in ("train", "validation"):
        assert getattr(one, part).keys() == getattr(other, part).keys()
        assert getattr(one, part).target.tolist() == getattr(other, part).target.tolist()


def test_images_are_identified_by_hash_and_copies_by_a_number():
    some = Images(Hashes("edcba", ["x", "y", "x", "x", "z"]), np.array(list("edcba")), np.zeros(5, dtype=int))
    assert some.keys() == ["x", "y", "x-1", "x-2", "z"]
    assert len(some) == 5


def test_images_of_a_table_or_a_fold_are_listed_in_table_order(tmp_path):
    table = pd.DataFrame({"image_id": ["test/b", "test/007", "test/NA", "test/ü, ☃"], "fold": [1, 10, 1, 0]})
    write_table(tmp_path / "table.csv", table)
    assert listed_images(str(tmp_path / "table.csv")).tolist() == table["image_id"].tolist()
    assert listed_images(str(tmp_path / "table.csv"), fold=1).tolist() == ["test/b", "test/NA"]
    assert listed_images(str(tmp_path / "table.csv"), fold=10).tolist() == ["test/007"]
