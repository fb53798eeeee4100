"""Fill the GPU tables of the documentation from the records of gpu.py, so that no number is copied by hand.

    python benchmarks/tables.py

A table is between `<!-- table: NAME -->` and `<!-- end -->`. A cell stays empty if it has no record, or if its records
are from different cards. Records of a rehearsal (`--tiny`) are ignored.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from gpu import PARTS

from kfold_ens.files import atomic

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = ("benchmarks/README.md", "benchmarks/fashion_mnist/README.md", "docs/cluster.md")
RECORDS = REPOSITORY / "benchmarks" / "results" / "gpu"
TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEMORY_ALLOWS = 2457  # images/s, bound by an H100's memory: eager convolutions, all else fused
TRAIN, HELD_OUT, EPOCHS, FOLDS = 16_819, 4_205, 80, 5  # kfold_mix at NYCU's size: images per fold, epochs, folds
SAVED_EVERY = 300  # seconds

Records = Mapping[str, Mapping[str, Any]]
Value = Callable[..., str]


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Map each part to its record; skip records without results and rehearsals."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    return {record["part"]: record for record in records if "result" in record and not record["tiny"]}


# --- cells -----------------------------------------------------------------------------------------------


def cell(records: Records, value: Value, *parts: str) -> str:
    """Format the parts' results by ``value``. Empty unless all records exist and are from one card."""
    if not all(part in records for part in parts) or len({records[part]["device"] for part in parts}) > 1:
        return ""
    return value(*(records[part]["result"] for part in parts))


def source(records: Records, *parts: str) -> str:
    """Date, card and command of the records behind a row."""
    found = [records[part] for part in dict.fromkeys(parts) if part in records]
    said = [f"{each['date'][:10]}, {each['device']}, `{each['command']}`" for each in found]
    return "; ".join(dict.fromkeys(said))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  ", " ") for line in lines)


def ratio(of: Mapping[str, Any], some: str, to: Mapping[str, Any], other: str) -> float:
    return median(of["images/s"][some]) / median(to["images/s"][other])


# --- aims ------------------------------------------------------------------------------------------------


def times(some: str, other: str) -> Value:
    """Speed of ``some`` relative to ``other``. Of two parts, the first has ``other`` and the last has ``some``."""
    return lambda first, last=None: f"{ratio(last or first, some, first, other):.2f}"


def share_of_memory(arm: str) -> Value:
    return lambda steps: f"{median(steps['images/s'][arm]) / MEMORY_ALLOWS:.0%}"


def end_to_end(whole: Mapping[str, Any]) -> str:
    return f"{whole['training images/s'] / median(whole['alone, images/s']):.0%}"


def fold_hours(whole: Mapping[str, Any], images: int = 1) -> float:
    """Hours of one fold of kfold_mix at NYCU's size times ``images``: training, validation and saving."""
    per_held_out = (whole["seconds an epoch"] - whole["of which training"]) / whole["held-out images"]
    epoch = images * (TRAIN / whole["training images/s"] + HELD_OUT * per_held_out)
    return EPOCHS * epoch * (1 + whole["saving, s"] / SAVED_EVERY) / 3600


def memory(arm: str) -> Value:
    def value(*results: Mapping[str, Any]) -> str:
        peaks = results[0]["peak memory, GiB"]
        return f"{peaks[arm]:.1f} GiB; B2 {peaks['B2']:.1f} GiB"

    return value


def five_models(result: Mapping[str, Sequence[float]]) -> str:
    return f"{median(result['ours']) / median(result['float32, eager']):.2f}"


def determinism_costs(result: Mapping[str, Any]) -> str:
    return f"{1 - ratio(result, 'deterministic', result, 'any algorithm'):.0%} of the speed"


AIMS: list[tuple[str, str, tuple, tuple]] = [  # what, aim, then (value, parts...) for eager and for compiled
    (
        "speed of ours relative to B0",
        "5",
        (times("ours", "B0"), "steps"),
        (times("ours, compiled", "B0"), "steps", "compiled"),
    ),
    (
        "speed of ours relative to B2",
        "1.5",
        (times("ours", "B2"), "steps"),
        (times("ours, compiled", "B2"), "compiled"),
    ),
    ("speed of ours relative to B3", "1.1", (), (times("ours, compiled", "B3"), "compiled")),
    (
        "share of the 2,457 images/s that an H100's memory bandwidth allows, model alone",
        "80%",
        (share_of_memory("ours"), "steps"),
        (share_of_memory("ours, compiled"), "compiled"),
    ),
    (
        "end to end with four CPU cores, relative to model alone",
        "95%",
        (end_to_end, "whole"),
        (end_to_end, "whole_compiled"),
    ),
    (
        "share of the time spent waiting for data",
        "",
        (lambda whole: f"{whole['share waiting for data']:.1%}", "whole"),
        (lambda whole: f"{whole['share waiting for data']:.1%}", "whole_compiled"),
    ),
    (
        "five folds of `kfold_mix` at NYCU's size, computed from measured steps",
        "90 minutes",
        (lambda whole: f"{FOLDS * 60 * fold_hours(whole):.0f} minutes", "whole"),
        (lambda whole: f"{FOLDS * 60 * fold_hours(whole):.0f} minutes", "whole_compiled"),
    ),
    ("peak memory", "no more than B2", (memory("ours"), "steps"), (memory("ours, compiled"), "compiled")),
    ("prediction by five models, relative to float32 eager", "4", (five_models, "prediction"), ()),
    ("cost of `deterministic: true`", "reported", (determinism_costs, "determinism"), ()),
]


def aims(records: Records) -> str:
    rows = []
    for what, aim, eager, compiled in AIMS:
        cells = [cell(records, *each) if each else "" for each in (eager, compiled)]
        parts = [part for found, each in zip(cells, (eager, compiled), strict=True) if found for part in each[1:]]
        rows.append([what, aim, *cells, source(records, *parts)])
    return table(["", "aim", "eager", "compiled", "measured"], rows)


# --- tables of parts -------------------------------------------------------------------------------------


def arms(rows: Sequence[tuple[str, str]], first_steps: bool = False) -> Callable[[Records], str]:
    """Table of images per second of ``(part, arm)`` rows. Ratios are relative to the first arm of the part."""
    extra = ["first step, s", "peak memory, GiB"] if first_steps else []

    def made(records: Records) -> str:
        lines = [arm_row(records, part, name, extra) for part, name in rows]
        return table(["", "images/s", "blocks", "relative to the part's first arm", *extra, "measured"], lines)

    return made


def arm_row(records: Records, part: str, name: str, extra: Sequence[str]) -> list[str]:
    values = [
        lambda result: f"{median(blocks_of(result)[name]):,.0f}",
        lambda result: f"{min(blocks_of(result)[name]):,.0f} to {max(blocks_of(result)[name]):,.0f}",
        lambda result: f"{median(blocks_of(result)[name]) / median(next(iter(blocks_of(result).values()))):.2f}",
        *(lambda result, key=key: f"{result[key][name]:.1f}" for key in extra),
    ]
    return [f"{part}: {name}", *(cell(records, value, part) for value in values), source(records, part)]


def blocks_of(result: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
    return result.get("images/s", result)


STEPS = [("steps", name) for name in ("B0", "B1", "B2", "ours")]
STEPS += [("compiled", name) for name in ("B2", "ours, compiled", "B3")]
VARIANTS = [
    ("grouped", "channels_last"),
    ("grouped", "grouped contiguous"),
    ("grouped", "groups merged to 32 channels"),
    ("batches", "batch of 64"),
    ("batches", "batch of 128"),
    ("cuda_graphs", "compiled"),
    ("cuda_graphs", "compiled, CUDA graphs"),
    ("determinism", "any algorithm"),
    ("determinism", "deterministic"),
    ("prediction", "float32, eager"),
    ("prediction", "ours"),
]


def facts(records: Records) -> str:
    """Table of single numbers."""
    rows = [[what, cell(records, value, part), source(records, part)] for what, part, value in FACTS]
    return table(["", "", "measured"], rows)


def inside(result: Mapping[str, Any]) -> str:
    shares = result["share of our steps inside the float32 seeds' band"]
    return f"{min(shares):.0%} to {max(shares):.0%} of the steps"


def apart(result: Mapping[str, Any]) -> str:
    same, seeds = result["ours to float32, same seed, mean distance"], result["float32 among seeds, mean distance"]
    return f"{min(same):.3f} to {max(same):.3f}; float32 among seeds {min(seeds):.3f} to {max(seeds):.3f}"


FACTS: list[tuple[str, str, Value]] = [
    ("memory copy, read and write", "limits", lambda of: f"{of['copied, GB/s']:,.0f} GB/s"),
    ("matrix product in bf16", "limits", lambda of: f"{of['matrix product, TFLOP/s']:.0f} TFLOP/s"),
    ("GPU idle time, ours", "kernels", lambda of: f"{of['share of the time without a kernel']:.1%}"),
    (
        "GPU idle time, ours compiled",
        "cuda_graphs",
        lambda of: f"{of['kernels, compiled']['share of the time without a kernel']:.1%}",
    ),
    ("two runs give the same bits", "determinism", lambda of: "yes" if of["same bits"] else "no"),
    (
        "batch of 64 in 8 GB of memory",
        "out_of_memory",
        lambda of: f"{of['images at a time']} images at a time, {of['later steps, s']:.2f} s per step",
    ),
    ("`tests/training/test_gpu.py`", "tests", lambda of: of["last lines"][-1]),
    ("saving the resume state", "whole", lambda of: f"{of['saving, s']:.1f} s"),
    ("four loader workers, private memory", "loader_memory", lambda of: f"{of['private, MB, sum of four']:,.0f} MB"),
    ("four loader workers, shared decoded images", "loader_memory", lambda of: f"{of['decoded images, MB']:,.0f} MB"),
    ("200 steps, ours: distance to float32 with the same seed", "equivalence", apart),
    ("200 steps, ours: within the band of three float32 seeds", "equivalence", inside),
    ("200 steps, ours compiled: distance", "equivalence_compiled", apart),
    ("200 steps, ours compiled: within the band", "equivalence_compiled", inside),
    ("two small folds, one after the other", "two_folds", lambda of: f"{of['one after the other, s']:.1f} s"),
    ("two small folds at once, `gpu_slots: 2`", "two_folds", lambda of: f"{of['at once, s']:.1f} s"),
]


def kernels(records: Records) -> str:
    rows = [kernel_row(records, place) for place in range(10)]
    return table(["", "ours", "share", "ours, compiled", "share", "measured"], rows)


def kernel_row(records: Records, place: int) -> list[str]:
    found = {"kernels": lambda of: of["largest"], "cuda_graphs": lambda of: of["kernels, compiled"]["largest"]}
    cells = []
    for part, rows_of in found.items():
        cells.append(cell(records, lambda of, rows_of=rows_of: kernel_name(rows_of(of), place), part))
        cells.append(cell(records, lambda of, rows_of=rows_of: kernel_share(rows_of(of), place), part))
    return [str(place + 1), *cells, source(records, *found)]


def kernel_name(rows: Sequence[Mapping[str, Any]], place: int) -> str:
    return f"`{rows[place]['what'][:60]}`".replace("|", "/") if place < len(rows) else ""


def kernel_share(rows: Sequence[Mapping[str, Any]], place: int) -> str:
    return f"{rows[place]['share']:.1%}" if place < len(rows) else ""


LAYOUTS = ("contiguous", "channels_last", "groups merged")


def convolutions(records: Records) -> str:
    """Milliseconds of a forward and backward pass: all convolutions together, then each grouped one."""
    found = records.get("convolutions", {"result": []})["result"]
    rows = [["all, weighted by how often each occurs", "", "", *(sum_of(found, layout) for layout in LAYOUTS)]]
    rows += [
        [each["convolution"], str(each["groups"]), str(each["times"]), *(time_of(each, layout) for layout in LAYOUTS)]
        for each in found
        if each["groups"] > 1
    ]
    rows = [[*row, source(records, "convolutions")] for row in rows]
    return table(["convolution", "groups", "times", *(f"{layout}, ms" for layout in LAYOUTS), "measured"], rows)


def sum_of(found: Sequence[Mapping[str, Any]], layout: str) -> str:
    """Sum over all convolutions. One without groups to merge counts in channels_last."""
    times = [each["times"] * each["milliseconds"].get(layout, each["milliseconds"]["channels_last"]) for each in found]
    return f"{sum(times):.1f}" if times else ""


def time_of(row: Mapping[str, Any], layout: str) -> str:
    return f"{row['milliseconds'][layout]:.2f}" if layout in row["milliseconds"] else ""


def reckoning(records: Records) -> str:
    rows = []
    for call, parts in PARTS.items():
        for name, part in parts.items():
            seconds = f"{records[name]['seconds']:.0f}" if name in records else ""
            rows.append([str(call), f"`{name}`", str(part.reckoned), str(part.limit), seconds, source(records, name)])
    return table(["call", "part", "estimated, s", "limit, s", "took, s", "measured"], rows)


# --- Fashion-MNIST, and a cluster ------------------------------------------------------------------------


def with_interval(score: Mapping[str, float]) -> str:
    return f"{score['accuracy']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"


def fashion(records: Records) -> str:
    rows = []
    for mixing in ("unmixed", "mixed"):
        part = f"{mixing}_ensembles"
        values = [lambda of: with_interval(of["out_of_fold"]), lambda of: with_interval(of["folds"]["0"]["test"])]
        values += [
            lambda of, method=method: with_interval(of["methods"][method]["test"])
            for method in ("average", "softmax", "vote")
        ]
        rows.append([mixing, *(cell(records, value, part) for value in values), source(records, part)])
    return table(["", "out of fold", "one fold (the first)", "average", "softmax", "vote", "measured"], rows)


def fashion_folds(records: Records) -> str:
    parts = {mixing: [f"{mixing}_fold{number}" for number in range(FOLDS)] for mixing in ("unmixed", "mixed")}
    rows = [
        [mixing, *(cell(records, lambda of: f"{of['test']['accuracy']:.4f}", part) for part in of_mixing)]
        + [source(records, *of_mixing)]
        for mixing, of_mixing in parts.items()
    ]
    return table(["", *(f"fold {number}" for number in range(FOLDS)), "measured"], rows)


def fashion_differences(records: Records) -> str:
    pairs = [("average", "one fold"), ("softmax", "average"), ("vote", "average")]
    rows = [
        [f"{mixing}: {of} to {to}", *difference_cells(records, f"{mixing}_ensembles", pair_of(of, to))]
        for mixing in ("unmixed", "mixed")
        for of, to in pairs
    ]
    rows += [
        [f"mixed to unmixed, {what}", *difference_cells(records, "mixed_to_unmixed", lambda of, what=what: of[what])]
        for what in ("out of fold", "average")
    ]
    return table(["", "difference", "95% interval", "measured"], rows)


def pair_of(of: str, to: str) -> Callable[[Mapping[str, Any]], Mapping[str, float]]:
    return lambda result: next(each for each in result["differences"] if (each["of"], each["to"]) == (of, to))


def difference_cells(records: Records, part: str, find: Callable) -> list[str]:
    return [
        cell(records, lambda of: f"{find(of)['difference']:+.4f}", part),
        cell(records, lambda of: f"[{find(of)['low']:+.4f}, {find(of)['high']:+.4f}]", part),
        source(records, part),
    ]


def hours(records: Records) -> str:
    cells = [cell(records, lambda of, images=images: f"{fold_hours(of, images):.2f}", "whole") for images in (1, 10)]
    return table(["", "NYCU's size", "ten times", "measured"], [["one GPU", *cells, source(records, "whole")]])


TABLES: dict[str, Callable[[Records], str]] = {
    "aims": aims,
    "steps": arms(STEPS, first_steps=True),
    "variants": arms(VARIANTS),
    "facts": facts,
    "kernels": kernels,
    "convolutions": convolutions,
    "reckoning": reckoning,
    "fashion": fashion,
    "fashion-folds": fashion_folds,
    "fashion-differences": fashion_differences,
    "fold-hours": hours,
}


# --- files -----------------------------------------------------------------------------------------------


def filled(text: str, records: Records) -> str:
    """Refill the tables of a page."""
    return TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](records)}\n\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=Path, default=RECORDS, help="folder with the records of gpu.py")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help="folder with the documentation pages")
    how = parser.parse_args()
    records = read_records(how.records)
    for name in FILES:
        page = how.root / name
        with atomic(page) as temporary:
            temporary.write_text(filled(page.read_text(encoding="utf-8"), records), encoding="utf-8")


if __name__ == "__main__":
    main()
