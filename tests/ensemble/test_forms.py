"""Which sample submissions are recognised, and which are refused."""

import random
import re
from types import MappingProxyType

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfold_ens.config import Config, Scoring, Submission
from kfold_ens.ensemble.forms import resolved
from kfold_ens.ensemble.known_labels import known_labels
from kfold_ens.ensemble.submission import refuse_what_cannot_be_submitted
from kfold_ens.errors import DataError
from kfold_ens.naming import NAMES

CLASSES = ("cat", "dog", "owl")
TEST = pd.DataFrame(
    {"image_id": ["test/1.jpg", "test/2.jpg"], "name": ["1.jpg", "2.jpg"], "split": "test", "label": ""}
)
TRAIN = pd.DataFrame({"image_id": CLASSES, "name": CLASSES, "split": "train", "label": CLASSES})


def form_of(folder, text, classes=CLASSES, **columns):
    (folder / "sample.csv").write_text(text)
    return resolved(Submission(sample=str(folder / "sample.csv"), **columns), "stem", TEST, classes)


# --- inferred --------------------------------------------------------------------------------------------

LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=5)
WORDS = st.lists(LABEL, min_size=2, max_size=6, unique=True)
IMAGES = st.lists(st.text("0123456789", min_size=4, max_size=6), min_size=3, max_size=6, unique=True)


@given(
    classes=WORDS,
    stems=IMAGES,
    names=st.sampled_from(sorted(NAMES)),
    prefix=st.sampled_from(["", "test/", "img_"]),
    class_prefix=st.sampled_from(["", "p_", "Class_"]),
    kind=st.sampled_from(["label", "probabilities", "top_k"]),
    separator=st.sampled_from([" ", ",", ", ", "|"]),
    draw=st.randoms(use_true_random=False),
)
def test_a_sample_of_any_form_is_recognised(
    tmp_path_factory, classes, stems, names, prefix, class_prefix, kind, separator, draw: random.Random
):
    test = pd.DataFrame({"image_id": stems, "name": [f"sub/{stem}.jpg" for stem in stems]})
    ids = [prefix + NAMES[names](name) for name in test["name"]]
    k = draw.randint(2, len(classes))
    columns = draw.sample(classes, len(classes))
    cells = {
        "label": {"the label": [draw.choice(classes) for _ in stems]},
        "probabilities": {f"{class_prefix}{label}": ["0.5"] * len(stems) for label in columns},
        "top_k": {"the labels": [separator.join(draw.sample(classes, k)) for _ in stems]},
    }[kind]
    table = pd.DataFrame({"the id": ids, **cells}).sample(frac=1, random_state=draw.randrange(99))
    path = tmp_path_factory.mktemp("sample") / "sample.csv"
    table.to_csv(path, index=False)
    form = resolved(Submission(sample=str(path)), "stem", test, sorted(classes))
    assert (form.kind, form.header, form.ids) == (kind, tuple(table), tuple(table["the id"]))
    assert form.image_ids == tuple(test["image_id"][table.index])
    expected = {"label": {}, "probabilities": {"classes": tuple(columns)}, "top_k": {"k": k, "separator": separator}}
    assert all(getattr(form, key) == value for key, value in expected[kind].items())


def test_one_log_line_lists_what_was_inferred(tmp_path, caplog):
    with caplog.at_level("INFO"):
        form_of(tmp_path, "id,best\ntest/2.jpg,cat|dog\ntest/1.jpg,dog|owl\n", separator="|")
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        f"submission.sample: {tmp_path}/sample.csv: inferred kind 'top_k', id_column 'id', names 'file', "
        "id_prefix 'test/', k 2, columns besides the ids: best, and the order of rows"
    )


def test_columns_have_the_order_of_the_sample(tmp_path):
    form = form_of(tmp_path, "p_owl,p_cat,id,p_dog\n0,0,2,1\n0,0,1,1\n")
    assert form.header == ("p_owl", "p_cat", "id", "p_dog")
    assert form.classes == ("owl", "cat", "dog")


@pytest.mark.parametrize("value", ["0", "", "none", "to be predicted"])
def test_a_sample_may_hold_any_value_in_place_of_labels(value, tmp_path):
    assert form_of(tmp_path, f"id,label\n1,{value}\n2,{value}\n").kind == "label"


@pytest.mark.parametrize("value", ["0", "[cat dog]", "cat-dog", "hot ice"])
def test_sample_values_that_are_not_classes_are_warned_about(value, tmp_path, caplog):
    form_of(tmp_path, f"id,label\n1,{value}\n2,1\n", classes=("cat", "dog", "hot dog", "ice cream"))
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    values = ", ".join(map(repr, sorted({value, "1"})))
    assert f"its column 'label' has {values}, which are not classes" in line
    assert line.endswith("one of the classes 'cat', 'dog', 'hot dog' and 1 more")


@pytest.mark.parametrize("values", [("", ""), ("cat", "cat"), ("cat", "unknown"), ("", "owl")])
def test_empty_columns_and_classes_are_not_warned_about(values, tmp_path, caplog):
    form_of(tmp_path, "id,label\n1,{}\n2,{}\n".format(*values))
    assert not caplog.records


@pytest.mark.parametrize(("value", "classes"), [("0.5", ("0", "1")), ("5e-1", ("cat", "dog")), (".5", ("cat", "1.5"))])
def test_a_column_of_fractions_is_refused_unless_the_classes_are_fractions(value, classes, tmp_path):
    with pytest.raises(DataError, match="holds fractions such as"):
        form_of(tmp_path, f"id,label\n1,{value}\n2,{value}\n", classes=classes)
    assert form_of(tmp_path, f"id,label\n1,{value}\n2,{value}\n", classes=("1", value)).kind == "label"


def test_kind_label_contradicts_a_sample_with_several_labels_per_row(tmp_path):
    with pytest.raises(DataError, match="kind: config.yaml has 'label', .* several labels per row: 'cat dog'"):
        form_of(tmp_path, "id,label\n1,cat dog\n2,cat dog\n", kind="label")


def test_a_column_with_one_image_name_by_chance_is_not_taken_for_ids(tmp_path):
    assert form_of(tmp_path, "label,id\n1,1\n1,2\n", classes=("1", "2")).id_column == "id"
    with pytest.raises(DataError, match="Its column 'id' has none"):
        form_of(tmp_path, "id,label\nnone,1\n", classes=("1", "2"))


# --- refused ---------------------------------------------------------------------------------------------

ONE, MANY = "id,label\n1,cat\n2,cat\n", "id,cat,dog,owl\n1,0,0,1\n2,0,0,1\n"


@pytest.mark.parametrize(
    ("text", "columns", "finding"),
    [
        (ONE, {"id_column": "image"}, "config.yaml needs 'image'"),
        (ONE, {"label_column": "class"}, "config.yaml has 'class', but submission.sample ... has the column 'label'"),
        (ONE, {"kind": "probabilities"}, "cat: a class without a column"),
        (ONE, {"names": "file"}, "1: no test image has this name; did you mean 1.jpg"),
        (ONE, {"id_prefix": "test/"}, "1: no test image has this name; did you mean test/1"),
        (ONE, {"k": 3}, "config.yaml has 3, but submission.sample ... has 1 labels per row"),
        (ONE, {"calibrate": True}, "is of kind label ... calibrate needs kind: probabilities"),
        (MANY, {"kind": "label"}, "config.yaml has 'label', but submission.sample ... has 3 columns besides the ids"),
        (
            MANY,
            {"class_prefix": "p_"},
            "config.yaml has submission.class_prefix: 'p_' ... cat: a column that is not a class",
        ),
        (MANY.replace("owl", "emu"), {}, "emu: a column that is not a class ... owl: a class without a column"),
        (MANY.replace(",owl", ",owl,wolf").replace("1\n", "1,0\n"), {}, "wolf: a column that is not a class"),
        ("id,label\n1,0.5\n2,0.5\n", {}, "holds fractions such as 0.5 ... For labels, write submission.kind: label"),
        ("id,cat\n1,0.5\n2,0.5\n", {"kind": "probabilities"}, "dog: a class without a column"),
        ("id\n1\n2\n", {}, "has only the column of ids"),
        ("id,best\n1,cat dog\n2,cat\n", {"kind": "top_k"}, "has from 1 to 2 labels per row ... set submission.k"),
        ("id,best\n1,cat emu\n2,cat dog\n", {}, "has no known labels per row ... emu: no class has this name"),
        ("id,best\n1,cat dog\n2,cat dog\n", {"separator": "|"}, "config.yaml has '|',  ... separated by ' '"),
        ("id,best\n1,cat dog\n2,cat dog\n", {"kind": "label", "label_column": "x"}, "config.yaml has 'x'"),
        (
            "id,label\nA7,cat\nB8,cat\n",
            {},
            "no column of  ...  names the test images ... 'id' has A7, B8; ... are 1.jpg, 2.jpg",
        ),
        ("id,best\n1,cat dog owl cat\n2,cat dog owl cat\n", {}, "submission.k: 4 is more than the 3 classes"),
    ],
)
def test_a_contradiction_between_sample_and_config_is_refused_with_both_sides(text, columns, finding, tmp_path):
    with pytest.raises(DataError) as refusal:
        form_of(tmp_path, text, **columns)
    assert all(words in str(refusal.value) for words in finding.split(" ... ")), refusal.value


@pytest.mark.parametrize("text", ["id,label,\n1,cat,\n2,cat,\n", "id,Usage,label\n1,Public,cat\n2,Private,owl\n"])
def test_usage_and_empty_columns_are_skipped_in_samples_and_test_labels(text, tmp_path, caplog):
    with caplog.at_level("INFO"):
        form = form_of(tmp_path, text)
    assert (form.kind, form.header, form.ids) == ("label", ("id", "label"), ("1", "2"))
    assert re.search(r"sample.csv: skipped column \d, ('Usage'|without a name and values)", caplog.text)
    submission = Submission(sample=str(tmp_path / "sample.csv"))
    assert known_labels(pd.concat([TRAIN, TEST]), submission.sample, submission, "stem")["test/1.jpg"] == "cat"


def test_a_class_named_usage_is_read(tmp_path):
    form = form_of(tmp_path, "id,usage,cat\n1,0,1\n2,1,0\n", classes=("cat", "usage"))
    assert form.classes == ("usage", "cat")


@pytest.mark.parametrize(("text", "at"), [(",id,label\n0,1,cat\n1,2,cat\n", 1), (",label\n1,cat\n2,cat\n", 1)])
def test_a_nameless_column_with_values_is_refused_by_its_position(text, at, tmp_path):
    with pytest.raises(
        DataError, match=f"columns without a name; name them .*\n  column {at}, with the values '.', '.'"
    ):
        form_of(tmp_path, text)


def test_an_extra_column_is_refused_with_advice(tmp_path):
    with pytest.raises(DataError, match="If the submission takes labels, keep only the columns of ids and labels"):
        form_of(tmp_path, "id,label,weight\n1,cat,1\n2,cat,1\n")


def test_one_column_for_two_classes_is_refused_with_advice(tmp_path):
    with pytest.raises(DataError, match="add the other class to the sample"):
        form_of(tmp_path, "id,dog\n1,0.5\n2,0.5\n", classes=("cat", "dog"), kind="probabilities")


def refusal_of(folder, text, of_recipes=MappingProxyType({}), **run):
    (folder / "sample.csv").write_text(text)
    submission = {"sample": str(folder / "sample.csv")} | run.pop("submission", {})
    config = Config(data={"source": "digits"} | run.pop("data", {}), submission=submission, **run)
    with pytest.raises(DataError) as refusal:
        refuse_what_cannot_be_submitted(pd.concat([TRAIN, TEST]), config, of_recipes)
    return str(refusal.value)


def test_all_errors_are_reported_at_once(tmp_path):
    (tmp_path / "labels.csv").write_text("id,label\n1,emu\n")
    text = "id,cat,dog,emu\n1,0,0,1\n3,0,0,1\n"
    words = refusal_of(tmp_path, text, data={"test_labels": str(tmp_path / "labels.csv")})
    for finding in (
        "3: no test image has this name",
        "2: a test image that the sample lacks",
        "emu: a column that is not a class",
        "labels.csv has labels that no training image has; correct or delete these labels:\n  emu",
    ):
        assert finding in words


def test_unfit_metrics_of_config_and_recipes_are_refused_at_once_by_key(tmp_path):
    kappa, top_9 = Scoring(metric="quadratic_kappa"), Scoring(metric="top_9_accuracy")
    recipes = {"a.yaml: select": kappa, "b.yaml: select": top_9, "b.yaml: schedule.monitor": kappa}
    words = refusal_of(tmp_path, ONE, recipes, metric="map_at_7")
    for finding in (
        "map_at_7: there are only 3 classes",
        "a.yaml: select, b.yaml: schedule.monitor: quadratic_kappa needs the order of the classes",
        "b.yaml: select: top_9_accuracy: there are only 3 classes",
    ):
        assert finding in words


def test_a_vote_for_a_sample_of_probabilities_is_refused_before_training(tmp_path):
    assert "needs probabilities, but ensemble: vote gives none; set ensemble to one of: average, softmax" in (
        refusal_of(tmp_path, MANY, ensemble="vote")
    )


def warnings_of(folder, caplog, text, **run):
    (folder / "sample.csv").write_text(text)
    config = Config(data={"source": "digits"}, submission={"sample": str(folder / "sample.csv")}, **run)
    refuse_what_cannot_be_submitted(pd.concat([TRAIN, TEST]), config)
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


BEST = "id,best\n1,cat dog\n2,dog owl\n"


@pytest.mark.parametrize(
    ("text", "metric", "ranked"),
    [
        (BEST, "accuracy", "the submission's k labels"),
        (ONE, "map_at_2", "metric: map_at_2"),
        (BEST, "top_2_accuracy", "the submission's k labels and metric: top_2_accuracy"),
    ],
)
def test_how_a_vote_ranks_classes_is_explained_before_training(text, metric, ranked, tmp_path, caplog):
    (line,) = warnings_of(tmp_path, caplog, text, metric=metric, ensemble="vote")
    assert "by their votes, and classes with equal votes by their summed softmax" in line
    assert f"for {ranked}. " in line
    assert line.endswith("set ensemble to one of: average, softmax")


@pytest.mark.parametrize("run", [{"metric": "map_at_2"}, {"ensemble": "vote"}])
def test_no_warning_about_a_vote_for_one_label_or_about_other_methods(run, tmp_path, caplog):
    assert not warnings_of(tmp_path, caplog, ONE, **run)


# --- test labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("image_name,pred_label\n1,cat\n2,owl\n", {"kind": "top_k"}),
        ("image_name,class\n1,cat\n2,owl\n", {"kind": "probabilities"}),
        ("image_name,x,class\n1,9,cat\n2,9,owl\n", {"kind": "probabilities", "label_column": "class"}),
        ("file,class\ntest/1.jpg,cat\ntest/2.jpg,owl\n", {"sample": "any"}),
        ("class,id\ncat,1\nowl,2\n", {"sample": "any"}),
    ],
)
def test_test_labels_score_every_kind_of_submission(text, columns, tmp_path):
    (tmp_path / "labels.csv").write_text(text)
    labels = known_labels(pd.concat([TRAIN, TEST]), str(tmp_path / "labels.csv"), Submission(**columns), "stem")
    assert {image: labels[image] for image in TEST["image_id"]} == {"test/1.jpg": "cat", "test/2.jpg": "owl"}


@pytest.mark.parametrize("row", ["2,owl", "2.jpg,owl", "test/2.jpg,owl"])
def test_a_single_test_label_is_read_in_any_form_of_name(row, tmp_path):
    (tmp_path / "labels.csv").write_text(f"id,label\n{row}\n")
    labels = known_labels(pd.concat([TRAIN, TEST]), str(tmp_path / "labels.csv"), Submission(sample="any"), "stem")
    assert {image: labels[image] for image in TEST["image_id"]} == {"test/1.jpg": "", "test/2.jpg": "owl"}


@pytest.mark.parametrize("name", ["12", "12.jpg"])
def test_a_single_test_label_of_an_unknown_image_is_refused(name, tmp_path):
    (tmp_path / "labels.csv").write_text(f"id,label\n{name},owl\n")
    with pytest.raises(DataError, match="names images that are not test images; remove them:\n  12"):
        known_labels(pd.concat([TRAIN, TEST]), str(tmp_path / "labels.csv"), Submission(sample="any"), "stem")


def test_an_ambiguous_label_column_must_be_named(tmp_path):
    (tmp_path / "labels.csv").write_text("image_name,one,two\n1,cat,cat\n")
    with pytest.raises(DataError, match="set submission.label_column to the column of labels"):
        known_labels(pd.concat([TRAIN, TEST]), str(tmp_path / "labels.csv"), Submission(kind="probabilities"), "stem")


def test_a_sample_that_lacks_test_images_is_refused_with_their_names(tmp_path):
    name = TEST["name"].iloc[0].removesuffix(".jpg")
    with pytest.raises(DataError, match="a test image that the sample lacks") as refusal:
        form_of(tmp_path, f"id,label\n{name},{CLASSES[0]}\n")
    assert str(refusal.value).count("that the sample lacks") == len(TEST) - 1
