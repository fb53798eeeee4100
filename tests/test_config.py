import subprocess
import sys
from contextlib import suppress
from copy import deepcopy
from math import inf, nan
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, TINY_RECIPE, write_yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from stages import newer_config

from kfold_ens.config import HALVES, Config, Real, Recipe, find_recipe, load_config, load_recipe
from kfold_ens.errors import ConfigError
from kfold_ens.files import canonical
from kfold_ens.yaml_files import read_yaml

RUN = {"data": {"source": "digits"}}
FOLDER = {"source": "imagefolder", "train": ["train"], "test": "test"}
TABLES = {"source": "csv", "train": "train.csv", "test": "test.csv", "images": "images"}
GONE = object()
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))


def changed(values: dict, changes: dict) -> dict:
    """A copy with other values at dotted keys, or without them where the value is GONE."""
    values = deepcopy(values)
    for key, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        place = values
        for part in parents:
            place = place[part]
        if value is GONE:
            del place[last]
        else:
            place[last] = value
    return values


def as_param(model: BaseModel) -> str:
    """The text that Snakemake compares: see workflow/rules/common.smk."""
    return canonical(model.model_dump(mode="json", exclude_defaults=True))


def findings(refusal: pytest.ExceptionInfo) -> dict[str, str]:
    """The finding per key; a key with two findings fails."""
    found = [line.strip().split(": ", 1) for line in str(refusal.value).splitlines()[1:]]
    assert len(dict(found)) == len(found), found
    return dict(found)


@pytest.mark.parametrize(
    ("changes", "key", "finding"),
    [
        ({"num_folds": 1}, "num_folds", "greater than or equal to 2 (got 1)"),
        ({"num_folds": True}, "num_folds", "valid integer (got True)"),
        ({"num_folds": 5.0}, "num_folds", "valid integer (got 5.0)"),
        ({"num_folds": "5"}, "num_folds", "YAML reads 5 as text; write 5"),
        ({"seed": "1e3"}, "seed", "YAML reads 1e3 as text; write 1000"),
        ({"seed": "1.5"}, "seed", "valid integer (got '1.5')"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        ({"seed": 2**32}, "seed", "less than 4294967296"),
        ({"fold_count": 5}, "fold_count", "no such key"),
        ({"ensemble": "mean"}, "ensemble", "'average', 'softmax' or 'vote' (got 'mean')"),
        ({"device": "tpu"}, "device", "got 'tpu'"),
        ({"compile": "auto"}, "compile", "must be true or false (auto"),
        ({"compile": "never"}, "compile", "valid boolean, unable to interpret input (got 'never')"),
        ({"recipe": ""}, "recipe", "at least 1 character"),
        ({"recipe": "a\0b"}, "recipe", "must not contain the character NUL"),
        ({"recipe": "\ud800"}, "recipe", "valid string"),
        ({"ensemble": "m" * 100}, "ensemble", f"(got '{'m' * 100}')"),
        ({"prediction_batch_size": 0}, "prediction_batch_size", "greater than 0 (got 0)"),
        ({"checkpoint_minutes": "soon"}, "checkpoint_minutes", "must be a number (got 'soon')"),
        ({"checkpoint_minutes": False}, "checkpoint_minutes", "must be a number (got false)"),
        ({"data": GONE}, "data", "is missing"),
        ({"data": {}}, "data", "'source' is missing"),
        ({"data": "digits"}, "data", "got 'digits'"),
        ({"data.source": "imagenet"}, "data", "imagenet"),
        ({"data.train": "train"}, "data.train", "no such key"),
        ({"data.limit_per_class": 0}, "data.limit_per_class", "greater than 0 (got 0)"),
        ({"data.intensity_range": "auto"}, "data.intensity_range", "got 'auto'"),
        ({"data.intensity_range": [4095, 0]}, "data.intensity_range", "two increasing levels from 0 to 65535"),
        ({"data.intensity_range": [0, 65536]}, "data.intensity_range", "got [0, 65536]"),
        ({"data.intensity_range": [0, 1, 2]}, "data.intensity_range", "two increasing levels"),
        ({"data.intensity_range": [0.5, True]}, "data.intensity_range", "two increasing levels"),
        ({"data.intensity_range": {"low": 1}}, "data.intensity_range", "full, per_image, or two"),
        ({"data": FOLDER | {"train": []}}, "data.train", "at least 1 item"),
        ({"data": FOLDER | {"train": ["a", ""]}}, "data.train.1", "at least 1 character"),
        ({"data": FOLDER | {"train": ""}}, "data.train", "at least 1 character"),
        ({"data": changed(FOLDER, {"test": GONE})}, "data.test", "is missing"),
        ({"data": TABLES | {"images": None}}, "data.images", "has no value; write one"),
        (
            {"data": TABLES | {"id_column": 3}},
            "data.id_column",
            "YAML reads 3 as a number; write quotes: id_column: '3'",
        ),
        ({"submission": {"id_column": "x", "label_column": "x"}}, "submission", "both 'x'; give them different names"),
        ({"submission": {"names": "folder"}}, "submission.names", "got 'folder'"),
        ({"submission": {"kind": "best"}}, "submission.kind", "got 'best'"),
        ({"submission": {"k": 3}}, "submission", "k needs kind: top_k; kind is label"),
        (
            {"submission": {"kind": "top_k", "calibrate": True, "class_prefix": "p"}},
            "submission",
            "class_prefix needs kind: probabilities, calibrate needs kind: probabilities; kind is top_k",
        ),
        ({"submission": {"kind": "probabilities", "decimals": 0}}, "submission.decimals", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_of_a_run_is_refused_by_its_key(changes, key, finding):
    with pytest.raises(ConfigError, match=r"^config\.yaml has errors") as refusal:
        load_config(changed(RUN, changes))
    assert list(findings(refusal)) == [key]
    assert finding in findings(refusal)[key]


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"gpu_slots": 2, "gpus_per_fold": 2}, "gpu_slots: 2 lets jobs share one; set one of them to 1"),
    ],
)
def test_values_of_a_run_that_contradict_are_refused(changes, finding):
    with pytest.raises(ConfigError) as refusal:
        load_config(RUN | changes)
    assert finding in str(refusal.value)
    for one in changes.items():
        load_config(RUN | dict([one]))


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("no", False), (False, False)])
def test_compile_is_any_yes_or_no(written, meant):
    """Snakemake's --config gives text."""
    assert load_config(RUN | {"compile": written}).compile == meant


@pytest.mark.parametrize(
    ("changes", "key", "finding"),
    [
        ({"epochs": True}, "epochs", "valid integer (got True)"),
        ({"augmentation": [{"kind": "resize", "size": 0}]}, "augmentation.0.size", "greater than 0"),
        (
            {
                "augmentation": [
                    {"kind": "resize", "size": 4},
                    {"kind": "gaussian_blur", "kernel_size": 9, "sigma": [1, 2]},
                ]
            },
            "gaussian_blur",
            "too large for images of 4 pixels",
        ),
        ({"epochs": 0}, "epochs", "greater than 0"),
        ({"epochs": "3"}, "epochs", "YAML reads 3 as text; write 3"),
        ({"epochs": nan}, "epochs", "valid integer"),
        ({"epochs": GONE}, "epochs", "is missing"),
        ({"epoch": 3}, "epoch", "no such key"),
        ({"batch_size": 1}, "batch_size", "greater than or equal to 2"),
        ({"select": "best"}, "select", "got 'best'"),
        ({"optimizer.lr": nan}, "optimizer.lr", "finite number (got nan)"),
        ({"optimizer.lr": inf}, "optimizer.lr", "finite number (got inf)"),
        ({"optimizer.lr": "nan"}, "optimizer.lr", "finite number"),
        ({"optimizer.lr": True}, "optimizer.lr", "must be a number (got true)"),
        ({"optimizer.lr": "fast"}, "optimizer.lr", "must be a number (got 'fast')"),
        ({"optimizer.lr": 0}, "optimizer.lr", "greater than 0"),
        ({"optimizer.lr": None}, "optimizer.lr", "got None"),
        ({"optimizer.lr": GONE}, "optimizer.lr", "is missing"),
        ({"optimizer.rate": 1}, "optimizer.rate", "no such key"),
        ({"optimizer.stage_lr": {"layer1": -1}}, "optimizer.stage_lr.layer1", "greater than 0"),
        ({"optimizer.betas": [0.9, 1]}, "optimizer.betas.1", "less than 1"),
        ({"optimizer.kind": "adam"}, "optimizer", "adam"),
        ({"optimizer.kind": GONE}, "optimizer", "'kind' is missing"),
        ({"schedule": None}, "schedule", "is empty"),
        ({"schedule": {"kind": "one_cycle", "pct_start": 1}}, "schedule.pct_start", "less than 1"),
        ({"augmentation": {"kind": "resize"}}, "augmentation", "valid list"),
        ({"augmentation.0": {"kind": "flip"}}, "augmentation.0", "flip"),
        (
            {"augmentation.0": {"kind": "random_erasing", "scale": [0.5, 2]}},
            "augmentation.0.scale.1",
            "less than or equal to 1",
        ),
        ({"augmentation.0": "horizontal_flip"}, "augmentation.0", "got 'horizontal_flip'"),
        ({"augmentation.0.probability": 1.5}, "augmentation.0.probability", "less than or equal to 1"),
        ({"augmentation.0": {"kind": "affine", "scale": [1, nan]}}, "augmentation.0.scale.1", "finite"),
        (
            {"augmentation.0": {"kind": "affine", "scale": [2, 1]}},
            "augmentation.0.scale",
            "must start with the smaller number (got [2, 1])",
        ),
        ({"image.size": 16.5}, "image.size", "valid integer"),
        ({"image": {"kind": "center_crop", "size": 16}}, "image.resize", "is missing"),
        (
            {"image": TINY_RECIPE["image"] | {"kind": "center_crop", "resize": 8}},
            "image",
            "resize: 8 must be at least size: 16",
        ),
        ({"backbone.name": "resnet19"}, "backbone.name", "got 'resnet19'"),
        ({"loss": {"kind": "sum", "terms": []}}, "loss.terms", "at least 1 item"),
    ],
)
def test_a_wrong_value_of_a_recipe_is_refused_by_its_file_and_key(tmp_path, changes, key, finding):
    path = write_yaml(tmp_path / "mine.yaml", changed(TINY_RECIPE, changes))
    with pytest.raises(ConfigError) as refusal:
        load_recipe(path, path.parent)
    assert str(refusal.value).startswith(f"{path} has errors")
    assert finding in findings(refusal)[key]


def test_an_error_of_a_whole_recipe_is_reported_without_a_key(tmp_path):
    path = write_yaml(tmp_path / "mine.yaml", TINY_RECIPE | {"augmentation": []})
    with pytest.raises(ConfigError, match="add {kind: resize}") as refusal:
        load_recipe(path, path.parent)
    assert str(refusal.value).startswith(f"{path} has errors:\n  augmentation must")


def test_all_findings_are_reported_at_once(tmp_path):
    wrong = {"epochs": True, "optimizer.lr": nan, "loss.kind": "hinge", "augmentation.0.odds": 1, "select": GONE}
    with pytest.raises(ConfigError) as refusal:
        load_recipe(write_yaml(tmp_path / "mine.yaml", changed(TINY_RECIPE, wrong)), tmp_path)
    assert set(findings(refusal)) == {"epochs", "optimizer.lr", "loss", "augmentation.0.odds", "select"}


def test_numbers_that_yaml_reads_as_text_are_accepted(tmp_path):
    text = write_yaml(tmp_path / "tiny.yaml", TINY_RECIPE).read_text().replace("lr: 0.001", "lr: 3e-4")
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(tmp_path / "mine.yaml", tmp_path).optimizer.lr == 3e-4
    assert load_config(RUN | {"checkpoint_minutes": "1e1"}).checkpoint_minutes == 10


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_may_be_text(number):
    assert TypeAdapter(Real).validate_python(repr(number)) == number


@given(st.text())
def test_other_text_is_refused_and_never_fails(text):
    with suppress(ValidationError):
        assert TypeAdapter(Real).validate_python(text) == float(text)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_of_ours_loads(path):
    recipe = load_recipe(find_recipe(path.stem, path.parent), path.parent)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert as_param(Recipe.model_validate_json(recipe.model_dump_json())) == as_param(recipe)
    assert Recipe.model_validate_json(as_param(recipe)) == recipe


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just text", "3"])
def test_a_recipe_that_holds_no_keys_is_refused(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml must hold keys and values"):
        load_recipe(tmp_path / "mine.yaml", tmp_path)


@pytest.mark.parametrize("content", [b"a: [1", b"a: b: c", b"\xff\xfe\x00", b"a: !!python/object:os.system {}"])
def test_a_recipe_that_is_not_yaml_is_refused(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.yaml is not YAML"):
        load_recipe(tmp_path / "mine.yaml", tmp_path)


def test_a_repeated_key_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text("head: {kind: linear}\nepochs: 1\nhead: {kind: linear, dropout: 0.5}\n")
    with pytest.raises(ConfigError, match="head occurs twice"):
        load_recipe(tmp_path / "mine.yaml", tmp_path)


@pytest.mark.parametrize(
    ("written", "made"), [("010", 8), ("-0777", -511), ("0_10", 8), ("1:30", 90), ("1:30.5", 90.5)]
)
def test_a_number_that_yaml_reads_in_another_base_is_refused(tmp_path, written, made):
    """garden-io/garden#4929: nobody writes 010 for 8."""
    file = tmp_path / "config.yaml"
    file.write_text(f"data: {{source: digits}}\nseed: {written}\n")
    with pytest.raises(ConfigError) as refusal:
        read_yaml(file)
    assert f"YAML reads {written} as {made}; write {made} for this number, or '{written}' for text" in str(
        refusal.value
    )
    assert f'"{file}", line 2' in str(refusal.value)


@pytest.mark.parametrize("written", ["0", "7", "07", "10", "0x10", "-1", "1_000", "'010'", "8:x"])
def test_an_unambiguous_number_is_read(tmp_path, written):
    (tmp_path / "a.yaml").write_text(f"seed: {written}\n")
    assert read_yaml(tmp_path / "a.yaml") == yaml.safe_load(f"seed: {written}")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("data:\n\tsource: digits\n", "Replace the tab by spaces"),  # moraes/config#1
        ("num_folds: 5\t# five\n", "Replace the tab by spaces"),  # yaml/pyyaml#450
        ('root: "C:\\Users\\me"\n', "backslashes in single quotes"),  # borgbase/vykar#77
        ('root: "D:\\data"\n', "backslashes in single quotes"),
        ("seed: 1\nnum_folds:5\n", "a colon and a space"),
        ("id_column: %id\n", "starts with this character in quotes"),
        ("recipe: a: b\n", "text with a colon in quotes"),
    ],
)
def test_a_yaml_error_names_file_line_and_remedy(tmp_path, text, advice):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        read_yaml(tmp_path / "config.yaml")
    assert f'"{tmp_path}/config.yaml", line' in str(refusal.value)
    assert advice in str(refusal.value).splitlines()[-1]


def test_a_recipe_is_found_by_name_or_path(in_folder):
    known = write_yaml(in_folder / "recipes" / "known.yaml", TINY_RECIPE)
    mine = write_yaml(in_folder / "my recipes" / "mine.yml", TINY_RECIPE)
    assert find_recipe("known", Path("recipes")).resolve() == known
    assert find_recipe("my recipes/mine.yml", Path("recipes")).resolve() == mine
    assert find_recipe(str(mine), Path("recipes")) == mine


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("unknown", "recipes/unknown.yaml"),
        ("mine.yaml", "mine.yaml"),
        ("folder.yaml", "folder.yaml"),
        ("", ""),
        ("x" * 300, "recipes/xxx"),
    ],
)
def test_an_unknown_recipe_is_refused_with_the_known_ones(in_folder, name, looked_for):
    for known in ("b", "a"):
        write_yaml(in_folder / "recipes" / f"{known}.yaml", TINY_RECIPE)
    (in_folder / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="Known recipes: a, b;") as refusal:
        find_recipe(name, Path("recipes"))
    assert str(refusal.value).startswith(f"recipe: there is no {looked_for}")


@pytest.fixture
def overlaid(in_folder):
    """Writes an overlay in a folder of the user's own, and loads it; ``tiny`` is a recipe of ours."""
    write_yaml(in_folder / "recipes" / "tiny.yaml", TINY_RECIPE)

    def load(overlay: dict) -> Recipe:
        write_yaml(in_folder / "mine" / "overlay.yaml", overlay)
        return load_recipe(Path("mine/overlay.yaml"), Path("recipes"))

    return load


def test_a_section_of_an_overlay_replaces_the_whole_section_of_its_base(overlaid):
    base = TINY_RECIPE | {"optimizer": TINY_RECIPE["optimizer"] | {"betas": [0.8, 0.9]}}
    write_yaml(Path("recipes/tiny.yaml"), base)
    own = {"optimizer": {"kind": "adamw", "lr": 0.5, "weight_decay": 0}, "epochs": 3}
    recipe = overlaid({"base": "tiny"} | own)
    assert recipe == Recipe.model_validate(TINY_RECIPE | own)
    assert recipe.optimizer.betas == (0.9, 0.999)


@pytest.mark.parametrize(
    ("base", "found"),
    [
        ("tiny", "recipes/tiny.yaml"),
        ("ablation/arm", "recipes/ablation/arm.yaml"),
        ("beside.yml", "mine/beside.yml"),
        ("../other/one.yaml", "other/one.yaml"),
        ("other/one.yaml", "other/one.yaml"),
        ("recipes/tiny.yaml", "recipes/tiny.yaml"),
        ("both.yaml", "mine/both.yaml"),
    ],
)
def test_a_base_is_found_by_name_or_by_path_from_the_overlay_or_from_here(overlaid, base, found):
    write_yaml(Path("both.yaml"), TINY_RECIPE | {"batch_size": 5})
    write_yaml(Path(found), TINY_RECIPE | {"batch_size": 77})
    assert overlaid({"base": base}).batch_size == 77


def test_an_absolute_path_is_a_base(overlaid, tmp_path):
    path = write_yaml(tmp_path / "far" / "one.yaml", TINY_RECIPE | {"batch_size": 77})
    assert overlaid({"base": str(path)}).batch_size == 77


def test_a_base_may_be_an_overlay(overlaid):
    write_yaml(Path("mine/first.yaml"), {"base": "deep/second.yaml", "epochs": 7, "batch_size": 7})
    write_yaml(Path("mine/deep/second.yaml"), {"base": "tiny", "epochs": 6, "batch_size": 6, "select": "last"})
    recipe = overlaid({"base": "first.yaml", "epochs": 8})
    assert (recipe.epochs, recipe.batch_size, recipe.select) == (8, 7, "last")


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"overlay": "overlay"}, "overlay.yaml: base: mine/overlay.yaml -> mine/overlay.yaml is circular"),
        (
            {"overlay": "a", "a": "../mine/b", "b": "a"},
            "b.yaml: base: mine/overlay.yaml -> mine/a.yaml -> mine/../mine/b.yaml -> mine/../mine/a.yaml is circular",
        ),
    ],
)
def test_circular_bases_are_refused(overlaid, others, message):
    for name, base in others.items():
        write_yaml(Path(f"mine/{name}.yaml"), {"base": f"{base}.yaml"})
    with pytest.raises(ConfigError, match="one of these must be a complete recipe") as refusal:
        overlaid({"base": f"{others['overlay']}.yaml"})
    assert message in str(refusal.value)


@pytest.mark.parametrize("base", [None, 3, True, "", ["tiny"], {"kind": "none"}, "a\0b", "\ud800"])
def test_a_base_that_is_not_a_name_is_refused(overlaid, base):
    with pytest.raises(ConfigError) as refusal:
        overlaid({"base": base})
    expected = "mine/overlay.yaml: base must be the name of a recipe or the path of a YAML file (got "
    assert str(refusal.value) == f"{expected}{base!r})"


@pytest.mark.parametrize(
    ("base", "looked_for"),
    [
        ("unknown", "recipes/unknown.yaml"),
        ("unknown.yaml", "mine/unknown.yaml and no unknown.yaml"),
        ("/unknown.yaml", "/unknown.yaml"),
    ],
)
def test_a_missing_base_is_refused_with_all_errors_of_the_overlay(overlaid, base, looked_for):
    with pytest.raises(ConfigError) as refusal:
        overlaid({"base": base, "colour": "red", "epochs": 0, "optimizer": {"kind": "sgd"}})
    first, second, *rest = str(refusal.value).splitlines()
    hint = "Known recipes: tiny; or give the path of a YAML file."
    assert first == f"mine/overlay.yaml: base: there is no {looked_for}. {hint}"
    assert second == "mine/overlay.yaml has errors:"
    assert {line.split(":")[0].strip() for line in rest} == {"colour", "epochs", "optimizer.lr"}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"colour": "red"}, "colour: no such key"),
        ({"epochs": None}, "epochs: Input should be a valid integer (got None)"),
        ({"optimizer": {"lr": 0.5}}, "optimizer: 'kind' is missing"),
        ({"augmentation": []}, "augmentation must give all images one size"),
    ],
)
def test_an_error_in_an_overlay_names_the_overlay(overlaid, changes, finding):
    with pytest.raises(ConfigError) as refusal:
        overlaid({"base": "tiny"} | changes)
    assert str(refusal.value).startswith(f"mine/overlay.yaml has errors:\n  {finding}")
    assert "tiny" not in str(refusal.value)


@pytest.mark.parametrize("own", [{}, {"epochs": 3, "select": "last"}])
def test_an_error_in_a_base_names_the_base(overlaid, own):
    write_yaml(Path("recipes/tiny.yaml"), changed(TINY_RECIPE, {"epochs": 0, "select": GONE}))
    with pytest.raises(ConfigError) as refusal:
        overlaid({"base": "tiny"} | own)
    assert str(refusal.value).startswith("recipes/tiny.yaml has errors:")
    assert set(findings(refusal)) == {"epochs", "select"}
    with pytest.raises(ConfigError, match=r"recipes/tiny\.yaml has errors") as refusal:
        overlaid({"base": "tiny", "colour": "red"})
    assert str(refusal.value).endswith("\nmine/overlay.yaml has errors:\n  colour: no such key")


@pytest.mark.parametrize(("text", "said"), [("a: [1", "is not YAML"), ("- a", "must hold keys and values")])
def test_a_base_that_holds_no_keys_is_refused(overlaid, text, said):
    Path("recipes/tiny.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^recipes/tiny\.yaml {said}"):
        overlaid({"base": "tiny"})


@pytest.mark.parametrize("data", [{"source": "digits"}, FOLDER, TABLES, {"source": "torchvision", "name": "MNIST"}])
def test_the_required_keys_of_every_data_source_suffice(data):
    run = load_config({"data": data})
    assert run.submission_names == ("path" if data["source"] == "csv" else "stem")
    assert load_config(run.model_dump()) == run


def test_one_training_folder_may_be_text():
    assert load_config({"data": FOLDER | {"train": "train"}}) == load_config({"data": FOLDER})


OF_HALVES = {
    "digits": ({"source": "digits"}, ([], []), ([], [])),
    "folders": (FOLDER | {"train": ["b", "a"]}, ([], ["a", "b"]), ([], ["test"])),
    "tables": (TABLES, (["train.csv"], ["images"]), (["test.csv"], ["images"])),
    "two folders": (TABLES | {"test_images": "others"}, (["train.csv"], ["images"]), (["test.csv"], ["others"])),
    "library": ({"source": "torchvision", "name": "MNIST"}, ([], []), ([], [])),
    "library on the disk": ({"source": "torchvision", "name": "MNIST", "download": False}, ([], []), ([], [])),
}


@pytest.mark.parametrize(("data", "train", "test"), OF_HALVES.values(), ids=OF_HALVES)
def test_a_source_lists_tables_and_folders_of_each_half(data, train, test):
    source = load_config({"data": data}).data
    for half, expected in (("train", train), ("test", test)):
        assert (source.tables(half), source.folders(half)) == expected


@pytest.mark.parametrize(
    ("data", "change", "halves"),
    [
        (FOLDER, {"train": ["train", "more"]}, {"train"}),
        (FOLDER, {"test": "others"}, {"test"}),
        (FOLDER, {"limit_per_class": 5}, {"train"}),
        (FOLDER, {"limit_per_class": None}, set()),
        (FOLDER | {"train": ["a", "b"]}, {"train": ["b", "a"]}, set()),
        (TABLES, {"train": "others.csv"}, {"train"}),
        (TABLES, {"test": "others.csv"}, {"test"}),
        (TABLES, {"images": "others"}, {"train", "test"}),
        (TABLES, {"test_images": "others"}, {"test"}),
        (TABLES, {"test_images": "images"}, set()),
        (TABLES, {"id_column": "name"}, {"train", "test"}),
        (TABLES, {"id_column": "id"}, set()),
        (TABLES, {"label_column": "class"}, {"train"}),
        (TABLES, {"limit_per_class": 5}, {"train"}),
        ({"source": "digits"}, {"limit_per_class": 5}, {"train", "test"}),
        ({"source": "torchvision", "name": "MNIST"}, {"root": "elsewhere"}, {"train", "test"}),
        ({"source": "torchvision", "name": "MNIST"}, {"root": "data", "download": True}, set()),
        *((data, {"test_labels": "labels.csv"}, set()) for data in (FOLDER, TABLES, {"source": "digits"})),
    ],
)
def test_each_half_depends_only_on_its_part_of_the_source(data, change, halves):
    before, after = (load_config({"data": each}).data for each in (data, data | change))
    assert {half for half in HALVES if canonical(before.of_half(half)) != canonical(after.of_half(half))} == halves


@pytest.mark.parametrize("submission", [{"kind": "probabilities"}, {"sample": "s.csv", "calibrate": True}])
def test_probabilities_of_a_vote_are_refused(submission):
    with pytest.raises(
        ConfigError, match="vote gives no probabilities, but .* needs them; write ensemble: average or softmax"
    ):
        load_config({"data": FOLDER, "submission": submission, "ensemble": "vote"})


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc", "average_precision"])
def test_a_metric_of_probabilities_is_refused_for_a_vote(metric):
    with pytest.raises(ConfigError, match=f"no probabilities, but metric: {metric} needs them"):
        load_config({"data": FOLDER, "metric": metric, "ensemble": "vote"})


@pytest.mark.parametrize(
    "metric", ["f1", "top_k_accuracy", "map_at_k", "map_at_0", "MAP@5", "map_at_5_6", 5, None, ["f1_macro"]]
)
def test_an_unknown_metric_is_refused_with_the_known_ones(metric):
    with pytest.raises(ConfigError, match=r"metric: must be accuracy, .*f1_macro.*map_at_5 \(5 can be any number\)"):
        load_config({"data": FOLDER, "metric": metric})
    assert load_config({"data": FOLDER, "metric": "map_at_12"}).metric == "map_at_12"


def test_metric_in_a_recipe_means_the_metric_of_the_run():
    sections = {"select": "best_metric", "early_stopping": {"kind": "patience", "monitor": "metric", "patience": 2}}
    recipe = Recipe.model_validate(TINY_RECIPE | sections)
    run = load_config({"data": FOLDER | {"class_order": ["b", "a"]}, "metric": "quadratic_kappa"})
    of_run = recipe.of_run(run.scoring, run.data.class_order)
    assert (of_run.select, of_run.early_stopping.monitor) == ("best_quadratic_kappa", "quadratic_kappa")
    assert of_run.class_order == ["b", "a"]
    plain = Recipe.model_validate(TINY_RECIPE)
    assert plain.of_run(run.scoring, run.data.class_order) == plain


def test_a_default_of_the_submission_counts_as_not_set():
    written = {"id_column": "image_name", "label_column": "pred_label", "kind": None}
    run, plain = (load_config({"data": FOLDER, "submission": each}) for each in (written, {}))
    assert run == plain
    assert run.model_dump(exclude_defaults=True) == plain.model_dump(exclude_defaults=True)
    assert run.submission.stated("id_column") is None


@pytest.mark.parametrize("names", ["stem", "file", "path"])
def test_config_sets_the_names_of_images(names):
    assert load_config({"data": TABLES, "submission": {"names": names}}).submission_names == names


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ({"optimizer": {"kind": "adamw", "lr": "1e-3", "weight_decay": 0}}, {"optimizer.weight_decay": 0.0}),
        ({"loss": {"label_smoothing": 0, "kind": "cross_entropy"}}, {"loss": {"kind": "cross_entropy"}}),
        ({"mixing": {"kind": "mixup", "alpha": 1}}, {"mixing": {"probability": 1.0, "alpha": 1.0, "kind": "mixup"}}),
        (dict(reversed(TINY_RECIPE.items())), {}),
    ],
)
def test_equal_recipes_have_one_text(written, same):
    one, other = Recipe.model_validate(TINY_RECIPE | written), Recipe.model_validate(changed(TINY_RECIPE, same))
    assert one == other
    assert as_param(one) == as_param(other)
    assert as_param(one) != as_param(Recipe.model_validate(TINY_RECIPE | {"epochs": 2}))


def test_defaults_are_omitted_from_the_text():
    written = TINY_RECIPE | {"head": {"kind": "linear", "dropout": 0}}
    written["augmentation"] = [{"kind": "horizontal_flip", "probability": 0.5}, {"kind": "resize", "size": None}]
    assert as_param(Recipe.model_validate(written)) == as_param(Recipe.model_validate(TINY_RECIPE))


def test_a_new_optional_key_in_every_model_changes_no_text():
    newer = newer_config()
    for path in RECIPES:
        ours, theirs = load_recipe(path, path.parent), newer.load_recipe(path, path.parent)
        assert theirs.model_dump() != ours.model_dump()
        assert as_param(theirs) == as_param(ours)
    for data, *_ in OF_HALVES.values():
        ours, theirs = load_config({"data": data}), newer.load_config({"data": data})
        assert as_param(theirs) == as_param(ours)
        for half in HALVES:
            assert canonical(theirs.data.of_half(half)) == canonical(ours.data.of_half(half))


def test_a_configuration_is_immutable():
    run: Config = load_config(RUN)
    with pytest.raises(ValidationError, match="frozen"):
        run.num_folds = 3


def test_reading_the_configuration_imports_nothing_large():
    code = "import sys, kfold_ens.config; print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


BLUR = {"kind": "gaussian_blur", "kernel_size": 33, "sigma": [0.1, 1]}


@pytest.mark.parametrize(
    ("sections", "finding"),
    [
        ({"augmentation": [BLUR, {"kind": "resize"}]}, "gaussian_blur must follow the resize or crop"),
        ({"augmentation": [{"kind": "resize"}, BLUR]}, "kernel_size: 33 is too large for images of 16 pixels"),
        (
            {"tta": {"kind": "views", "average": "logits", "views": [{"name": "blurred", "steps": [BLUR]}]}},
            "kernel_size: 33 is too large",
        ),
    ],
)
def test_a_kernel_that_may_not_fit_is_refused(sections, finding, tmp_path):
    with pytest.raises(ConfigError, match=finding):
        load_recipe(write_yaml(tmp_path / "mine.yaml", TINY_RECIPE | sections), tmp_path)
