"""The names of a recipe's models."""

import pytest

from kfold_ens.members import Member, by_number, folds_of, member_in, member_of, place_of, title, why_absent

NAMED = [
    (Member(0, 3), "fold3", "fold3", 3, "fold 3"),
    (Member(1, 3), "repeat1_fold3", "repeat1/fold3", "3 of repeat 1", "fold 3 of repeat 1"),
    (Member(), "full", "full", "full", "full fit"),
]


@pytest.mark.parametrize(("member", "name", "folder", "number", "words"), NAMED)
def test_a_member_has_one_name_in_rules_paths_and_tables(member, name, folder, number, words):
    assert (member.name, member.folder, member.number, title(member.number)) == (name, folder, number, words)
    assert member_in(folder) == member_of(number) == member
    for before in ("results", "state", "/tmp/a/results", ".snakemake/storage/fs/results"):
        assert place_of(f"{before}/tiny/{folder}/history.csv") == ("tiny", member)


@pytest.mark.parametrize("recipe", ["repeat1", "fold0", "full", "my recipe"])
def test_a_recipe_may_have_the_name_of_a_member(recipe):
    for member in (Member(0, 0), Member(2, 11), Member()):
        assert place_of(f"results/{recipe}/{member.folder}/model.safetensors") == (recipe, member)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("fold4", []),
        ("repeat1_fold0", []),
        ("fold5", ["num_folds: 5 makes folds 0 to 4"]),
        ("repeat2_fold0", ["repeats: 2 makes repeats 0 to 1; set repeats to at least 3"]),
        ("repeat2_fold5", ["num_folds: 5 makes", "repeats: 2 makes"]),
        ("full", ["full_fit is false; set full_fit: true"]),
        ("repeat0_fold3", ["the fold is named fold3"]),
        ("fold03", ["the fold is named fold3"]),
        ("fold", []),
        ("fold3_of_all", []),
    ],
)
def test_an_absent_member_is_explained_by_its_key(name, keys):
    whys = why_absent(name, num_folds=5, repeats=2, full_fit=False)
    assert len(whys) == len(keys)
    assert all(why.startswith(key) for why, key in zip(whys, keys, strict=True))
    assert why_absent("full", num_folds=5, repeats=1, full_fit=True) == []
    assert why_absent("repeat1_fold0", num_folds=5, repeats=1, full_fit=True)[0].startswith(
        "repeats: 1 makes repeat 0 only"
    )


def test_other_files_belong_to_no_member():
    for file in ("results/tiny/metrics.json", "results/tiny/average/test_logits.npz", "fold0", "results/tiny/fold0"):
        assert place_of(file) is None


def test_repeat_0_comes_first_and_files_go_by_their_member():
    assert [member.name for member in folds_of(2, 2)] == ["fold0", "fold1", "repeat1_fold0", "repeat1_fold1"]
    files = [f"results/tiny/{member.folder}/history.csv" for member in folds_of(2, 2)]
    assert list(by_number(files, len)) == [0, 1, "0 of repeat 1", "1 of repeat 1"]
