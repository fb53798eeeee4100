"""Errors in configurations: words that YAML converts, misspelled keys, merged files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY_RECIPE, write_yaml

from kfold_ens.config import load_config, load_recipe
from kfold_ens.errors import ConfigError
from kfold_ens.findings import Written

DATA = "data: {source: csv, train: a.csv, test: b.csv, images: images}\n"


def refused(*texts: str, folder: Path, given: dict[str, Any] | None = None) -> list[str]:
    """The lines of the refusal of files that are merged as Snakemake merges them."""
    files, values = [], {}
    for place, text in enumerate(texts):
        (folder / f"{place}.yaml").write_text(text)
        files.append(Path(f"{place}.yaml"))
        values |= yaml.safe_load(text)
    with pytest.raises(ConfigError) as refusal:
        load_config(values | (given or {}), Written(tuple(files), given or {}))
    return str(refusal.value).splitlines()


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("no", "false"),
        ("On", "true"),
        ("1", "a number"),
        ("007", "a number"),
        ("1.0e+3", "a number"),
        ("12:30", "a number"),
        ("2024-01-02", "a date"),
        ("2024-01-02 10:00:00", "a date"),
        ("~", "no value"),
        ("{id}", "keys and values"),
    ],
)
def test_a_word_that_yaml_converts_needs_quotes(in_folder, written, made):
    """The message shows the word as it was written; with quotes it is the text."""
    text = f"{DATA}submission:\n  id_column: {written}\n"
    (_, line) = refused(text, folder=in_folder)
    quoted = f"id_column: '{written}'"
    assert line == f"  submission.id_column: must be text, but YAML reads {written} as {made}; write quotes: {quoted}"
    run = load_config(yaml.safe_load(text.replace(f"id_column: {written}", quoted)))
    assert run.submission.id_column == written


def test_a_key_without_a_value_and_a_converted_word_in_a_list_are_refused(in_folder):
    text = "data: {source: imagefolder, train: [2024, 'b'], test: }\n"
    assert refused(text, folder=in_folder)[1:] == [
        "  data.train.0: must be text, but YAML reads 2024 as a number; write quotes: - '2024'",
        "  data.test: has no value; write one, or delete the line",
    ]
    (_, line) = refused("data: {source: imagefolder, train: 2024, test: b}\n", folder=in_folder)
    assert line.endswith("YAML reads 2024 as a number; write quotes: train: '2024'")


@pytest.mark.parametrize("written", ["off", "No", "true"])
def test_a_converted_choice_is_shown_as_written(in_folder, written):
    """canonical/cloud-init#6127: a user who wrote off finds no False in the file."""
    (_, line) = refused(f"{DATA}ensemble: {written}\n", folder=in_folder)
    made = "true" if written == "true" else "false"
    assert line == f"  ensemble: Input should be 'average', 'softmax' or 'vote' (YAML reads {written} as {made})"


def test_a_converted_word_in_a_recipe_needs_quotes(in_folder):
    text = yaml.safe_dump(TINY_RECIPE).replace("weights: none", "weights: off").replace("epochs: 1", "epochs: 1e1")
    Path("mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_recipe(Path("mine.yaml"), in_folder)
    assert "YAML reads off as false; write quotes: weights: 'off'" in str(refusal.value)
    assert "epochs: must be a whole number, but YAML reads 1e1 as text; write 10" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("numfolds: 5", "numfolds: no such key; did you mean num_folds?"),
        ("Num-Folds: 5", "Num-Folds: no such key; did you mean num_folds?"),
        ("submission: {sampel: a}", "submission.sampel: no such key; did you mean sample?"),
        ("data: {source: digits, test_label: a}", "data.test_label: no such key; did you mean test_labels?"),
        ("colour: red", "colour: no such key"),
        ("test_labels: a", "test_labels: no such key; did you mean data.test_labels?"),
        (
            "data: {source: digits, num_folds: 3}",
            "data.num_folds: no such key; did you mean num_folds at the top level?",
        ),
        ("epochs: 3", "epochs: no such key; it belongs in a recipe"),
        ("lr: 0.1", "lr: no such key; it belongs in a recipe, as optimizer.lr"),
        ("data: {sorce: digits}", "data: 'source' is missing; is sorce a misspelling of it?"),
    ],
)
def test_a_misspelled_key_gets_a_suggestion_from_its_section(in_folder, text, line):
    lines = refused("data: {source: digits}\n" + text if "data:" not in text else text, folder=in_folder)
    assert lines[1:] == [f"  {line}"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"head": {"kind": "linear", "dropuot": 0.1}}, "head.dropuot: no such key; did you mean dropout?"),
        ({"augmentation": [{"kind": "resize", "sise": 8}]}, "augmentation.0.sise: no such key; did you mean size?"),
        ({"tta": {"kind": "none", "views": []}}, "tta.views: no such key"),  # only another kind has it
        ({"augmentation": [{"kind": "resize", "degrees": 8}]}, "augmentation.0.degrees: no such key"),
        ({"epoch": 3}, "epoch: no such key; did you mean epochs?"),
        ({"num_folds": 3}, "num_folds: no such key; it belongs in config.yaml"),
        ({"bsae": "digits"}, "bsae: no such key; did you mean base?"),
        ({"lr": 0.1}, "lr: no such key; did you mean optimizer.lr?"),
        ({"patience": 3}, "patience: no such key; did you mean early_stopping.patience or schedule.patience?"),
        (
            {"loss": {"kind": "sum", "terms": [{"weight": 1, "loss": {"kind": "focal", "gama": 2}}]}},
            "loss.terms.0.loss.gama: no such key; did you mean gamma?",
        ),
        ({"loss": {"kind": "focal", "weights": {"powr": 1}}}, "loss.weights.powr: no such key; did you mean power?"),
        (
            {"tta": {"kind": "views", "average": "logits", "views": [{"name": "a", "steps": [], "stps": []}]}},
            "tta.views.0.stps: no such key; did you mean steps?",
        ),
        (
            {"backbone": TINY_RECIPE["backbone"] | {"inserted": [{"kind": "cbam", "after": "layer1", "ratoi": 8}]}},
            "backbone.inserted.0.ratoi: no such key; did you mean ratio?",
        ),
        (
            {"early_stopping": {"kind": "patience", "patience": 3, "montor": "loss"}},
            "early_stopping.montor: no such key; did you mean monitor?",
        ),
        ({"head": {"knd": "linear"}}, "head: 'kind' is missing; is knd a misspelling of it?"),
    ],
)
def test_a_misspelled_key_of_a_section_gets_a_suggestion_of_its_kind(tmp_path, changes, line):
    with pytest.raises(ConfigError) as refusal:
        load_recipe(write_yaml(tmp_path / "mine.yaml", TINY_RECIPE | changes), tmp_path)
    assert str(refusal.value).splitlines()[1:] == [f"  {line}"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"head": {"kind": "liner"}}, "head: kind must be one of 'linear', 'mlp' (got 'liner'); did you mean linear?"),
        (
            {"tta": {"kind": "views", "average": "softmx", "views": [{"name": "a", "steps": []}]}},
            "tta.average: Input should be 'logits' or 'softmax' (got 'softmx'); did you mean softmax?",
        ),
    ],
)
def test_a_misspelled_choice_gets_a_suggestion(tmp_path, changes, line):
    with pytest.raises(ConfigError) as refusal:
        load_recipe(write_yaml(tmp_path / "mine.yaml", TINY_RECIPE | changes), tmp_path)
    assert str(refusal.value).splitlines()[1:] == [f"  {line}"]


def test_the_merged_file_with_the_wrong_key_is_named(in_folder):
    lines = refused(f"{DATA}num_folds: 1\nseed: -1\n", "seed: -2\n", folder=in_folder, given={"ensemble": "mean"})
    assert lines[0] == "0.yaml with 1.yaml and --config merged into it has errors:"
    assert [line.rpartition(" (in ")[2] for line in lines[1:]] == ["0.yaml)", "1.yaml)", "--config)"]
    lines = refused("num_folds: 3\n", "seed: 3\n", folder=in_folder)
    assert lines[1:] == ["  data: is missing"]  # from both


def test_home_and_variables_are_expanded_in_paths_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SET", "elsewhere")
    data = {"source": "csv", "train": "~/a.csv", "test": "$SET/b.csv", "images": "${SET}/i", "id_column": "$SET"}
    run = load_config({"data": data, "submission": {"sample": "~/s.csv", "label_column": "~"}, "recipe": "~/r.yaml"})
    assert (run.data.train, run.data.test, run.data.images) == ("/home/me/a.csv", "elsewhere/b.csv", "elsewhere/i")
    assert (run.data.id_column, run.submission.label_column) == ("$SET", "~")
    assert (run.submission.sample, run.recipe) == ("/home/me/s.csv", "/home/me/r.yaml")
    assert load_config(run.model_dump(mode="json")) == run


def test_unknown_variables_stay_unchanged(monkeypatch):
    """The main process reports the missing file; a cluster's job may lack variables and not need them."""
    monkeypatch.delenv("UNSET", raising=False)
    monkeypatch.setenv("EMPTY", "")
    data = {"source": "imagefolder", "train": "$UNSET/a$5", "test": "~no-such-user/b"}
    run = load_config({"data": data})
    assert (run.data.train, run.data.test) == (["$UNSET/a$5"], "~no-such-user/b")
    with pytest.raises(ConfigError, match="data.test: must not be empty; set its environment variable"):
        load_config({"data": data | {"test": "$EMPTY"}})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_recipe_without_read_permission_is_refused(tmp_path):
    path = write_yaml(tmp_path / "mine.yaml", TINY_RECIPE)
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(path, tmp_path)
