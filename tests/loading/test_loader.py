import pickle
import shutil
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stages import make_stage, of_folders, renamed_stage, stage_of, training_recipe

from kfold_ens.loading.augmentation import build_augmentation, build_evaluation_view
from kfold_ens.loading.loader import (
    EvaluationViews,
    Loading,
    TrainingViews,
    as_tensor,
    evaluation_batches,
    stacked,
    training_batches,
)
from kfold_ens.loading.samplers import EpochOrder

RECIPE = training_recipe(augmentation=[{"kind": "random_resized_crop"}, {"kind": "horizontal_flip"}])
ORDERS = st.builds(
    EpochOrder, num_images=st.integers(2, 60), batch_size=st.integers(2, 20), seed=st.integers(0), fold=st.integers(0)
)


@given(ORDERS, st.integers(0, 1000))
def test_an_epoch_uses_each_image_once_except_a_single_last_one(order, epoch):
    batches = order.batches(epoch)
    seen = np.concatenate(batches).tolist()
    skipped = order.num_images % order.batch_size == 1
    assert len(batches) == order.steps_per_epoch
    assert {len(batch) for batch in batches[:-1]} <= {order.batch_size}
    assert 2 <= len(batches[-1]) <= order.batch_size
    assert len(seen) == len(set(seen)) == order.num_images - skipped
    assert set(seen) <= set(range(order.num_images))


@given(ORDERS, st.integers(1, 4), st.data())
def test_remaining_batches_are_the_tail_of_all_batches(order, epochs, data):
    whole = list(order.remaining(0, 0, epochs))
    epoch = data.draw(st.integers(0, epochs - 1))
    step = data.draw(st.integers(0, order.steps_per_epoch))
    assert list(order.remaining(epoch, step, epochs)) == whole[epoch * order.steps_per_epoch + step :]
    assert len(whole) == epochs * order.steps_per_epoch


def test_the_order_differs_by_epoch_fold_and_seed():
    orders = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    drawn = {tuple(chain.from_iterable(EpochOrder(30, 8, seed, fold).batches(epoch))) for seed, fold, epoch in orders}
    assert len(drawn) == 4


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return make_stage(tmp_path_factory.mktemp("stage"), {"dark": 10, "light": 9})


@pytest.fixture(scope="module")
def fold(stage):
    return stage.fold()


def views_of(fold, recipe=RECIPE):
    return TrainingViews(fold.train, build_augmentation(recipe.augmentation, recipe.image.size), fold.seed, fold.number)


def run(fold, start=(0, 0), workers=0):
    order = EpochOrder(len(fold.train), 4, fold.seed, fold.number)
    return list(training_batches(views_of(fold), order.remaining(*start, epochs=2), Loading(workers)))


def equal(some, others):
    pairs = zip(chain.from_iterable(some), chain.from_iterable(others), strict=True)
    return all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in pairs)


def test_views_do_not_depend_on_workers_or_earlier_draws(fold):
    whole = run(fold)
    assert equal(run(fold, workers=2), whole)
    assert equal(run(fold, start=(0, 2)), whole[2:])
    assert equal(run(fold, start=(1, 1), workers=2), whole[len(whole) // 2 + 1 :])
    views, shuffled = views_of(fold), views_of(fold)
    expected = [views[1, position] for position in range(len(fold.train))]
    torch.rand(3)
    assert equal([shuffled[1, position] for position in reversed(range(len(fold.train)))][::-1], expected)
    assert equal([pickle.loads(pickle.dumps(views))[1, 0]], expected[:1])  # spawned workers get a pickled copy


def test_views_come_with_their_own_label(fold):
    plain = training_recipe(augmentation=[{"kind": "resize"}])
    views = views_of(fold, plain)
    for position, target in enumerate(fold.train.target):
        view, label = views[0, position]
        assert label == target == (view.float().mean() > 100)  # dark is class 0, light class 1
        assert str(fold.train.image_id[position]).startswith(f"train/{fold.classes[label]}/")


class SameImage:
    """A store of identical images: views differ only by crop or flip."""

    def rows(self, image_ids):
        return np.arange(len(image_ids))

    def sha256(self, image_ids):
        return np.asarray(image_ids)

    def __getitem__(self, row):
        return np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def test_augmentation_differs_by_image_and_epoch(fold):
    same = replace(fold, train=replace(fold.train, store=SameImage()))
    views = [tuple(view.flatten().tolist()) for batch, _ in run(same) for view in batch]
    assert len(set(views)) == len(views)


def test_renamed_and_moved_images_give_the_same_batches(fold, stage, tmp_path):
    other = renamed_stage(stage, tmp_path).fold()
    assert not set(other.train.image_id) & set(fold.train.image_id)
    assert equal(run(other), run(fold))


def test_copies_of_an_image_are_augmented_differently(stage, tmp_path):
    shutil.copytree(stage.folder / "test", tmp_path / "test")
    shutil.copytree(stage.folder / "train", tmp_path / "train")
    for number in range(2):
        shutil.copy(tmp_path / "train/dark/0000.png", tmp_path / f"train/dark/copy{number}.png")
    other = stage_of(of_folders(tmp_path), tmp_path)
    fold = next(each for each in map(other.fold, range(3)) if "train/dark/0000.png" in each.train.image_id)
    copies = [place for place, name in enumerate(fold.train.image_id) if "copy" in name or "dark/0000" in name]
    assert len(set(fold.train.store.sha256(fold.train.image_id[copies]))) == 1
    views = views_of(fold)
    assert len({tuple(views[0, place][0].flatten().tolist()) for place in copies}) == len(copies) == 3


def test_evaluation_keeps_every_image_in_order(fold):
    view, ids = build_evaluation_view(RECIPE.image), fold.train.image_id[:9]
    for workers in (0, 2):
        batches = list(evaluation_batches(EvaluationViews(fold.train.store, ids, view), 4, Loading(workers)))
        assert [len(batch) for batch in batches] == [4, 4, 1]
        expected = [view(as_tensor(fold.train.store, row)) for row in fold.train.store.rows(ids)]
        assert torch.equal(torch.cat(batches), torch.stack(expected))


@pytest.mark.parametrize("workers", [0, 1])
def test_channels_last_views_make_channels_last_batches(fold, workers):
    recipe = training_recipe(augmentation=[{"kind": "resize"}])
    indices = EpochOrder(len(fold.train), 4, 0, 0).remaining(0, 0, 1)
    batch = next(training_batches(views_of(fold, recipe), indices, Loading(workers)))
    held_out = EvaluationViews(fold.train.store, fold.train.image_id[:4], build_evaluation_view(RECIPE.image))
    evaluation = evaluation_batches(held_out, 4, Loading(workers))
    for views in (batch[0], next(iter(evaluation))):
        assert views.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("last", [True, False])
def test_stacked_keeps_the_memory_format_of_the_views(last):
    views = [torch.randint(256, (5, 7, 3), dtype=torch.uint8).permute(2, 0, 1) for _ in range(4)]
    views = views if last else [view.contiguous() for view in views]
    batch = stacked(views)
    assert torch.equal(batch, torch.stack(views))
    assert batch.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
