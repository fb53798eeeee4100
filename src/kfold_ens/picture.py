"""The picture of a run on a terminal: what is done, what runs, and what comes next, as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size

from kfold_ens.members import Member, title

Cells = Mapping[str, str]  # of a row of kfold-progress
COLUMNS = ("fold", "bar", "epoch", "loss", "held-out", "best", "images/s", "left")
LEAST_IMPORTANT_FIRST = ("best", "bar", "images/s", "held-out", "loss", "left")
BAR, NAMES = 10, 9  # columns of a bar, and of the words in front of names


@dataclass(frozen=True)
class Job:
    """A job that Snakemake has started; ``since`` in seconds, ``place`` is the recipe and member that it trains."""

    rule: str
    since: float
    log: str | None = None
    place: tuple[str, Member] | None = None

    @property
    def title(self) -> str:
        """The member that it trains, after its recipe if that is part of the rule's name; else the rule."""
        if self.place is None:
            return self.rule
        recipe, member = self.place
        words = title(member.number)
        return words if f"train_{member.name}" in self.rule else f"{recipe}: {words}"


@dataclass
class Run:
    """The jobs of a run. ``left`` counts the jobs of each rule that have not started, in the order of their needs."""

    since: float
    total: int = 0
    left: dict[str, int] = field(default_factory=dict)
    running: dict[int, Job] = field(default_factory=dict)
    done: list[Job] = field(default_factory=list)
    failed: dict[int, Job] = field(default_factory=dict)
    stopping: bool = False  # the user has interrupted it

    def plan(self, counts: Mapping[str, int]) -> None:
        """Take over Snakemake's number of jobs of each rule."""
        self.left = {rule: count for rule, count in counts.items() if rule != "total"}
        self.total = sum(self.left.values())

    def start(self, number: int, job: Job) -> None:
        """Start a job; one that failed before is being tried again."""
        if self.failed.pop(number, None) is None:
            self.left[job.rule] = self.left.get(job.rule, 1) - 1
        self.running[number] = job

    def finish(self, number: int) -> Job | None:
        """Finish a job; return it, or None if it has not been seen to start."""
        if job := self.running.pop(number, None):
            self.done.append(job)
        return job

    def fail(self, number: int) -> Job | None:
        """Fail a job; return it, or None if it is not running, as Snakemake repeats errors, or was interrupted."""
        job = self.running.pop(number, None)
        if job is None or self.stopping:
            return None
        self.failed[number] = job
        return job


def lines(run: Run, width: int, now: float, cells_of: Callable[[Job], Cells]) -> list[str]:
    """Draw a run. ``cells_of`` returns the row of kfold-progress of a job that trains a fold."""
    folds = sorted((job for job in run.running.values() if job.place), key=lambda job: job.place or ())
    others = [f"{job.title} {clock(now - job.since)}" for job in run.running.values() if not job.place]
    after = [rule if count == 1 else f"{rule} ({count})" for rule, count in run.left.items() if count > 0]
    return [
        _head(run, width, now),
        *_named("done", [job.title for job in reversed(run.done)], width),
        *_named("failed", [job.title for job in run.failed.values()], width),
        *table([_row(job, cells_of(job)) for job in folds], width),
        *_named("running", others, width),
        *_named("next", after, width),
    ]


def clock(seconds: float) -> str:
    """Format a time as h:mm:ss."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def table(rows: list[Cells], width: int) -> list[str]:
    """Align rows in columns. Columns that do not fit are dropped, the least important first."""
    columns = list(COLUMNS)
    for dropped in (None, *LEAST_IMPORTANT_FIRST):
        columns = [name for name in columns if name != dropped]
        widths = {name: max((cell_len(row[name]) for row in rows), default=0) for name in columns}
        shown = [name for name in columns if widths[name]]
        if sum(widths.values()) + 2 * (len(shown) - 1) <= width:
            break
    return [cropped("  ".join(set_cell_size(row[name], widths[name]) for name in shown), width) for row in rows]


def cropped(line: str, width: int) -> str:
    """Cut a line to the width of the terminal, with an ellipsis."""
    line = line.rstrip()
    return line if cell_len(line) <= width else f"{set_cell_size(line, width - 1).rstrip()}…"


def _head(run: Run, width: int, now: float) -> str:
    done = len(run.done)
    line = f"{bar(done / run.total if run.total else 0)}  {done} of {run.total} steps done, {clock(now - run.since)}"
    line += ", stopping after the running jobs" if run.stopping else ""
    return cropped(line if cell_len(line) <= width else line[BAR + 2 :], width)


def bar(share: float) -> str:
    """Draw a share between 0 and 1."""
    full = round(BAR * share)
    return "━" * full + "╌" * (BAR - full)


def _row(job: Job, cells: Cells) -> dict[str, str]:
    """Put units and names to the cells of a fold: none before its first step, no time left after its last."""
    row = dict.fromkeys(COLUMNS, "") | {"fold": job.title, "epoch": "finishing" if cells else "starting"}
    if not cells.get("left"):
        return row
    epoch, epochs = map(float, cells["epoch"].split("/"))
    score, _, best = cells["held-out"].split(", ")[0].partition(" (")  # the run's metric
    return row | {
        "bar": bar(epoch / epochs),
        "epoch": f"epoch {cells['epoch']}",
        "loss": f"loss {cells['loss']}",
        "held-out": f"held-out {score}" if score else "",
        "best": f"({best}" if best else "",
        "images/s": f"{cells['images/s']} images/s",
        "left": f"{cells['left']} left",
    }


def _named(word: str, names: Iterable[str], width: int) -> list[str]:
    text = ", ".join(names)
    return [cropped(f"{word:{NAMES}}{text}", width)] if text else []
