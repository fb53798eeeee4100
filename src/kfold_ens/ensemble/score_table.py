"""The scores of ``metrics.json`` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import TextWrapper
from typing import Any

from kfold_ens.members import title
from kfold_ens.metrics import find_metric

SIDES = ("out_of_fold", "test")
ALL_FOLDS, CALIBRATED = "all folds", ", calibrated"  # in names of scores
MEASURED, NOTHING_CHOSEN, UNKNOWN = "measured", "nothing chosen", "unknown"  # states of the entry cross_fitted
AS_CHOSEN, CROSS_FITTED = ", as chosen", ", cross-fitted"
WEIGHTS_AS_FITTED, WEIGHTS_CROSS_FITTED, EPOCHS_AS_CHOSEN = (
    ", weights as fitted",
    ", weights cross-fitted",
    ", epochs as chosen",
)
Entry = Mapping[str, Any] | str | None  # a score, the reason why there is none, or None if labels are unknown
BESIDE = ("accuracy", "log_loss")  # shown with every metric


def metric_of(metrics: Mapping[str, Any]) -> str:
    """Return the metric of ``metrics.json``; accuracy in files of earlier versions."""
    return metrics.get("metric", "accuracy")


def has_full_fit(metrics: Mapping[str, Any]) -> bool:
    """Whether the full fit is a member of the ensemble."""
    return metrics.get("members", "folds") != "folds"


def label_of_metric(metrics: Mapping[str, Any]) -> str:
    """Return the label of the metric of ``metrics.json``."""
    return find_metric(metric_of(metrics)).label


def interval_in_words(metrics: Mapping[str, Any]) -> str:
    """Name the kind of interval in ``metrics.json``."""
    if "groups" in metrics["out_of_fold"]:
        return "a 95% interval by a bootstrap (of whole groups, where images have groups)"
    return "Wilson's 95% interval" if metric_of(metrics) == "accuracy" else "a 95% interval by a stratified bootstrap"


def cell(entry: Entry, metric: str, with_interval: bool = True) -> str:
    """Format a score: the metric with its interval, accuracy and log loss."""
    if entry is None or isinstance(entry, str):
        return entry or "labels unknown"
    own, low = entry[metric], entry["low"]
    words = "no value: " + entry["why"] if own is None else f"{own:.4f}"
    if with_interval and low is not None:
        words += f" ({low:.4f} to {entry['high']:.4f})"
    return ", ".join([words, *beside(entry, metric), *measured_on(entry)])


def measured_on(entry: Mapping[str, Any]) -> list[str]:
    """Say on how many classes a score was measured, if not on all."""
    return [f"on {entry['classes']} of {entry['of_classes']} classes"] if "classes" in entry else []


def beside(entry: Mapping[str, Any], metric: str) -> list[str]:
    """Format accuracy and log loss, unless they are the metric."""
    shown = [name for name in BESIDE if name != metric and entry.get(name) is not None]
    return [f"{find_metric(name).label} {entry[name]:.4f}" for name in shown]


def score_rows(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Entry]]:
    """Return the scores by name, each with its entries ``out_of_fold`` and ``test`` if it has them."""
    rows = {f"fold {name}": entries for name, entries in metrics["folds"].items()}
    if is_cross_fitted(metrics):
        rows[cross_fitted_name(metrics)] = {"out_of_fold": metrics["cross_fitted"]["out_of_fold"]}
    rows[as_chosen(metrics)] = {"out_of_fold": metrics["out_of_fold"]}
    if as_fitted := metrics.get("blend", {}).get("as_fitted"):
        rows[ALL_FOLDS + WEIGHTS_AS_FITTED + _epochs(metrics)] = {"out_of_fold": as_fitted}
    if has_full_fit(metrics):
        rows["full fit"] = {"out_of_fold": "none: it holds out no images"}
    rows |= metrics["methods"]
    if is_calibrated(metrics):
        after = metrics["calibrated"]
        if "calibrated" in metrics.get("cross_fitted", {}):
            rows[cross_fitted_name(metrics) + CALIBRATED] = {"out_of_fold": metrics["cross_fitted"]["calibrated"]}
        rows[as_chosen(metrics) + CALIBRATED] = {"out_of_fold": after["out_of_fold"]}
        rows |= {method + CALIBRATED: entries for method, entries in after["methods"].items()}
    return rows


def is_cross_fitted(metrics: Mapping[str, Any]) -> bool:
    """Whether the choice of the epoch was cross-fitted."""
    return metrics.get("cross_fitted", {}).get("state") == MEASURED


def is_of_submission(metrics: Mapping[str, Any]) -> bool:
    """Whether the cross-fitted score is of predictions like the submission's: none of them has test-time views."""
    return is_cross_fitted(metrics) and not metrics["cross_fitted"]["without_views"]


def cross_fitted_name(metrics: Mapping[str, Any]) -> str:
    """Return the name of the score of all folds with the epoch cross-fitted."""
    return ALL_FOLDS + CROSS_FITTED + ("" if is_of_submission(metrics) else ", without views")


def as_chosen(metrics: Mapping[str, Any]) -> str:
    """Return the name of the score of all folds with each fold's epoch as training chose it."""
    if "blend" in metrics:
        fitted = WEIGHTS_CROSS_FITTED if metrics["blend"]["as_fitted"] else ""
        return ALL_FOLDS + fitted + _epochs(metrics)
    is_chosen = metrics.get("cross_fitted", {}).get("state") in (MEASURED, UNKNOWN)
    return ALL_FOLDS + AS_CHOSEN if is_chosen else ALL_FOLDS


def _epochs(metrics: Mapping[str, Any]) -> str:
    """Return what to add to a blend's score if a recipe chose epochs."""
    choosing = metrics["blend"]["choosing"].values()
    return EPOCHS_AS_CHOSEN if any(each["select"] != "last" for each in choosing) else ""


def about_choice(metrics: Mapping[str, Any]) -> list[str]:
    """Say in sentences how far choices by held-out scores flatter the out-of-fold score; empty in older files."""
    if "blend" in metrics:
        return about_blend(metrics)
    entry = metrics.get("cross_fitted")
    if not entry:
        return []
    words = {MEASURED: _measured, UNKNOWN: _unknown, NOTHING_CHOSEN: _nothing_chosen}[entry["state"]](metrics, entry)
    return [*words, *_watched(entry["watched"])]


def _watched(sections: Sequence[str]) -> list[str]:
    words = (
        f"{' and '.join(sections)} followed the held-out scores while training. That flatters all out-of-fold scores, "
        "and cross-fitting does not undo it."
    )
    return [words] if sections else []


def about_blend(metrics: Mapping[str, Any]) -> list[str]:
    """Say in sentences what a blend lacks, and how far its weights and its recipes' epochs flatter its score."""
    choosing = metrics["blend"]["choosing"]
    selects = ", ".join(f"{recipe}: {each['select']}" for recipe, each in choosing.items() if each["select"] != "last")
    watched = dict.fromkeys(section for each in choosing.values() for section in each["watched"])
    return [
        *_lacking(metrics["blend"]),
        *_of_weights(metrics),
        *([_of_epochs(metrics, selects)] if selects else []),
        *_watched(list(watched)),
    ]


def _lacking(blend: Mapping[str, Any]) -> list[str]:
    lacks = "; ".join(f"{recipe} lacks {', '.join(map(title, own))}" for recipe, own in blend["missing"].items())
    words = f"Partial blend (allow_partial: true): {lacks}. The recipes that have a member share its whole weight."
    return [words] if lacks else []


def _of_weights(metrics: Mapping[str, Any]) -> list[str]:
    blend, label = metrics["blend"], label_of_metric(metrics)
    if not blend["as_fitted"]:
        return ["The weights are equal. Nothing was fitted, so they flatter no score."]
    by = blend["flattered_by"]
    if by["difference"] is None:
        return [f"Weights cross-fitted: fitted on the other folds. {label} has no value."]
    worse = "too high" if find_metric(metric_of(metrics)).better == "max" else "too low"
    return [
        f"Weights cross-fitted: each fold is scored at {blend['weighing']} weights fitted on the other folds. "
        f"As fitted: on the images that they were fitted on, where {label} tends to be {worse}. That flatters it by "
        f"{by['difference']:.4f} ({_ends(by)})."
    ]


def _of_epochs(metrics: Mapping[str, Any], selects: str) -> str:
    """Say how far epochs and weights, both as chosen, flatter a blend's score."""
    label, entry = label_of_metric(metrics), metrics["cross_fitted"]
    if not is_cross_fitted(metrics):
        return (
            f"Epochs as chosen: each recipe's epochs were chosen on its own held-out images ({selects}), which "
            f"flatters {label} out of fold. By how much is unknown: {entry['why']}."
        )
    by = entry["flattered_by"]
    if by["difference"] is None:
        return f"Cross-fitting has no value of {label}."
    fitted = ", and weights are fitted on the other folds" if metrics["blend"]["as_fitted"] else ""
    return (
        f"Cross-fitted: half of a fold's held-out images choose the epochs that score the other half{fitted}. "
        f"As chosen on all held-out images ({selects}), that flatters {label} by {by['difference']:.4f} ({_ends(by)})."
    )


def _ends(by: Mapping[str, Any]) -> str:
    return "no interval" if by["low"] is None else f"95% interval {by['low']:+.4f} to {by['high']:+.4f}"


def _measured(metrics: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    label, by = label_of_metric(metrics), entry["flattered_by"]
    if by["difference"] is None:
        flattered = f"Cross-fitting has no value of {label}."
    else:
        flattered = (
            f"Cross-fitted: half of a fold's held-out images choose the epoch that scores the other half. "
            f"As chosen: all of them choose it ({entry['select']}), which flatters {label} by "
            f"{by['difference']:.4f} ({_ends(by)})."
        )
    if not entry["without_views"]:
        return [flattered]
    views = "Both were compared without test-time views, so the submission's own score is only known as chosen."
    return [flattered, views]


def _unknown(metrics: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    return [
        f"As chosen: the epoch of each fold was chosen on its own held-out images ({entry['select']}), which flatters "
        f"{label_of_metric(metrics)} out of fold. By how much is unknown: {entry['why']}."
    ]


def _nothing_chosen(metrics: Mapping[str, Any], entry: Mapping[str, Any]) -> list[str]:
    return ["No epoch was chosen (select: last), so that flatters no out-of-fold score."]


def submitted(metrics: Mapping[str, Any], method: str) -> str:
    """Return the name in ``score_rows`` of the submission made by this ensembling method."""
    return method + CALIBRATED if is_calibrated(metrics) else method


def is_calibrated(metrics: Mapping[str, Any]) -> bool:
    """Whether the submission's probabilities are at a temperature other than 1."""
    return metrics.get("calibrated", {}).get("temperature", 1) != 1


def headline_entry(metrics: Mapping[str, Any], method: str) -> tuple[Mapping[str, Any], str]:
    """Return the submission's score and what it was measured on: test images, or out of fold without test labels."""
    rows: Mapping[str, Any] = score_rows(metrics)
    name = submitted(metrics, method)
    if on_test := rows.get(name, {}).get("test"):
        return on_test, f"on the test images, {name}"
    after = CALIBRATED if is_calibrated(metrics) else ""
    fitted = f"{after} (cross-fitted by fold)" if after else ""
    honest = cross_fitted_name(metrics) + after
    if honest in rows and is_of_submission(metrics):
        return rows[honest]["out_of_fold"], f"out of fold{CROSS_FITTED}{after}"
    if is_of_submission(metrics) and not find_metric(metric_of(metrics)).needs_probabilities:
        return rows[cross_fitted_name(metrics)]["out_of_fold"], f"out of fold{CROSS_FITTED}, not calibrated"
    chosen = as_chosen(metrics)
    return rows[chosen + after]["out_of_fold"], f"out of fold{chosen.removeprefix(ALL_FOLDS)}{fitted}"


def as_text(metrics: Mapping[str, Any], chosen: str) -> str:
    """Format the metrics as a table for the terminal."""
    metric = metric_of(metrics)
    rows, marked = [(label_of_metric(metrics), "out-of-fold", "test")], submitted(metrics, chosen)
    for name, entries in score_rows(metrics).items():
        is_fold = len(entries) == 2
        oof, test = (cell(entries[side], metric, not is_fold) if side in entries else "" for side in SIDES)
        rows.append((f"{name} *" if name == marked else name, oof, test))
    widths = [max(len(row[place]) for row in rows) + 2 for place in (0, 1)]
    lines = [f"  {name:<{widths[0]}}{oof:<{widths[1]}}{test}".rstrip() for name, oof, test in rows]
    below = TextWrapper(110, "  ", "  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join([*lines, *map(below.fill, about_choice(metrics))])
