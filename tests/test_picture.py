"""The picture of a run, as lines of text for terminals of any width."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from kfold_ens.members import Member
from kfold_ens.picture import Job, Run, lines

NOW = 1000.0
TRAINING = {
    "epoch": "3.4/12",
    "loss": "0.953",
    "held-out": "accuracy 0.8000 (best 0.8200), loss 0.6",
    "images/s": "84",
    "left": "0:12:30",
}


def run_in_training(recipe: str = "tiny") -> Run:
    """One fold trains, another starts, a third has failed; the rest comes."""
    run = Run(NOW - 3700)
    rules = ("manifest", "train_fold0", "train_fold1", f"train_{recipe}_repeat1_fold2", "train_full", "rounding")
    run.plan(dict.fromkeys(rules, 1) | {"combine": 3, "submission": 1, "total": 10})
    places = (None, (recipe, Member(0, 0)), ("tiny", Member(0, 1)), (recipe, Member(1, 2)), ("tiny", Member()), None)
    for number, (rule, place) in enumerate(zip(rules, places, strict=True)):
        run.start(number, Job(rule, NOW - 10, "train.log", place))
    run.finish(0)
    run.fail(2)
    return run


def drawn(run: Run, width: int) -> list[str]:
    return lines(run, width, NOW, lambda job: TRAINING if job.rule == "train_fold0" else {})


def test_the_picture_shows_what_is_done_what_runs_and_what_comes():
    assert drawn(run_in_training(), 160) == [
        "━╌╌╌╌╌╌╌╌╌  1 of 10 steps done, 1:01:40",
        "done     manifest",
        "failed   fold 1",
        "fold 0                    ━━━╌╌╌╌╌╌╌  epoch 3.4/12  "
        "loss 0.953  held-out accuracy 0.8000  (best 0.8200)  84 images/s  0:12:30 left",
        "tiny: fold 2 of repeat 1              starting",
        "full fit                              starting",
        "running  rounding 0:00:10",
        "next     combine (3), submission",
    ]


@pytest.mark.parametrize("recipe", ["tiny", "a_recipe_with_a_long_name_" * 3, "配方" * 20])
@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(width, recipe):
    assert max(map(cell_len, drawn(run_in_training(recipe), width))) <= width


def test_a_narrow_terminal_still_shows_epochs_and_the_time_left():
    run = Run(NOW)
    run.start(0, Job("train_fold0", NOW, place=("tiny", Member(0, 0))))
    assert drawn(run, 40)[1] == "fold 0  epoch 3.4/12  0:12:30 left"


def test_folds_stand_in_order_and_say_when_they_start_and_finish():
    run = Run(NOW)
    for fold in (10, 1):
        run.start(fold, Job(f"train_fold{fold}", NOW, place=("tiny", Member(0, fold))))
    after_training = {"epoch": "6", "left": ""}
    shown = lines(run, 80, NOW, lambda job: after_training if job.rule == "train_fold1" else {})
    assert shown[1:] == ["fold 1   finishing", "fold 10  starting"]


def test_a_job_that_is_tried_again_has_not_failed():
    run = run_in_training()
    run.start(2, Job("train_fold1", NOW))
    assert not any(line.startswith("failed") for line in drawn(run, 80))
    run.finish(2)
    assert drawn(run, 80)[0].endswith("2 of 10 steps done, 1:01:40")


def test_a_job_that_snakemake_reports_twice_counts_once():
    run = run_in_training()
    assert run.fail(2) is None
    assert run.finish(0) is None
    assert len(run.done) == len(run.failed) == 1
