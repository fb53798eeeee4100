"""Images on both sides of a split, which other labels cannot show."""

import pandas as pd

from kfold_ens.certificate.disjoint import check_images

FOLDS = ["0", "0", "1", "1", "-1"]
NOTHING_ALIKE = pd.DataFrame(columns=["group", "image_id", "split", "label"])


def images_of(**columns):
    """Five training images, one test image. The first four are in two folds; the last is never held out."""
    ids = [*"abcde", "test"]
    manifest = pd.DataFrame({"image_id": ids, "split": ["train"] * 5 + ["test"], "sha256": ids} | columns)
    split = manifest[:5][["image_id", "sha256"]].assign(label="x", fold=FOLDS)
    return split, manifest


def leaks(split, manifest, alike=NOTHING_ALIKE):
    return [check.finding for check in check_images([split], manifest, alike) if check.found and check.is_leak]


def remarks(split, manifest, alike=NOTHING_ALIKE):
    return [check.finding for check in check_images([split], manifest, alike) if check.found and not check.is_leak]


def test_separate_images_have_no_finding():
    found = check_images([images_of()[0]], images_of()[1], NOTHING_ALIKE)
    assert [check.found for check in found] == [0] * len(found)


def test_a_group_across_folds_is_named():
    (found,) = leaks(*images_of(group=["p1", "p2", "p1", "p3", "p4", ""]))
    assert found == (
        "groups across folds: 1 case: groups are in several folds; correct the given folds (a in fold 0, c in fold 1)"
    )


def test_a_group_of_held_out_images_that_also_trains_in_every_fold_is_named():
    (found,) = leaks(*images_of(group=["p1", "p2", "p3", "p3", "p3", ""]))
    assert "c in fold 1, e in every fold's training" in found


def test_images_without_a_group_are_not_one_group():
    assert leaks(*images_of(group=["", "", "", "", "", ""])) == []


def test_copies_across_folds_are_named():
    (found,) = leaks(*images_of(sha256=["same", "b", "same", "d", "e", "f"]))
    assert found.startswith("copies across folds: 1 case: byte-identical images")


def test_near_duplicates_across_folds_are_named_with_the_option_that_keeps_them_together():
    alike = pd.DataFrame({"group": [1, 1, 2, 2], "image_id": list("bdac"), "split": "train", "label": "x"})
    (found,) = leaks(*images_of(), alike[:2])
    assert "keep_together: near_duplicates" in found
    assert "b in fold 0, d in fold 1" in found
    assert "2 cases" in leaks(*images_of(), alike)[0]


def test_an_extra_image_that_is_held_out_is_named():
    (found,) = leaks(*images_of(extra=["", "yes", "", "", "yes", ""]))
    assert found.startswith("extra images held out: 1 image:")
    assert "b (fold 0)" in found


def test_a_test_image_among_the_training_images_is_a_remark_since_it_scores_no_fold():
    split, manifest = images_of(sha256=["a", "b", "c", "d", "e", "a"])
    assert leaks(split, manifest) == []
    assert "test images are byte-identical to training images" in remarks(split, manifest)[0]
    alike = pd.DataFrame({"group": [1, 1], "image_id": ["b", "test"], "split": ["train", "test"], "label": "x"})
    assert "near-duplicates of training images" in remarks(*images_of(), alike)[0]


def test_every_split_of_repeats_is_checked():
    split, manifest = images_of(group=["p1", "p1", "p2", "p2", "p3", ""])
    other = split.assign(fold=["0", "1", "0", "1", "-1"])
    found = [check.name for check in check_images([split, other], manifest, NOTHING_ALIKE) if check.found]
    assert found == ["groups across folds of repeat 1"]
