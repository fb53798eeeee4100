"""Read the tables of a folder, and find their columns of image names and of labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pandas as pd

from kfold_ens.data.ids import Found, found_in
from kfold_ens.errors import DataError
from kfold_ens.init.names import Role, role_of
from kfold_ens.init.survey import Folder
from kfold_ens.user_tables import read_user_table

FIRST, MOST = 3, 200  # ids that are looked for, before all the folders are compared
RECOGNISED = 0.9  # least share of them that are images
LABELS = re.compile(
    r"(?<![a-z])(labels?|class(es)?|targets?|categor(y|ies)|species|breed|diagnosis|classname|labelname|category)"
    r"(?![a-z])"
)
GROUPS = re.compile(r"(?<![a-z])(patient|subject|group|site|video|case|person)(?![a-z])")

Search = Callable[[str], Callable[[Iterable[str]], Iterator[Found]]]  # by folder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Table:
    """A table of the user: its cells, what its name says it is, and the folders of images that its columns name."""

    path: str
    role: Role | None
    cells: pd.DataFrame
    ids: dict[str, list[str]]  # by column

    @property
    def others(self) -> list[str]:
        """The named columns that name no images."""
        return [name for name in self.cells if name and name not in self.ids]

    @property
    def named_labels(self) -> list[str]:
        """Those of the others whose names say that they hold labels."""
        return [name for name in self.others if LABELS.search(name.lower())]


def read_tables(paths: Iterable[str], top: Folder) -> tuple[list[Table], dict[str, str]]:
    """Read tables that name images. Also return why others are skipped, by path."""
    tables, skipped = [], {}
    folders = [folder.path for folder in top.all()] if top.count else []
    search = cache(found_in)
    for path in paths:
        try:
            cells = read_user_table(path, {}, "table")
        except DataError as error:
            skipped[path] = str(error).removeprefix(f"table: {path} ").splitlines()[0]
            continue
        ids = {
            column: found for column in filter(None, cells) if (found := _folders_of(cells[column], folders, search))
        }
        if ids or role_of(path) == "sample":
            tables.append(Table(path, role_of(path), cells, ids))
        else:
            skipped[path] = f"no column names images: {', '.join(map(repr, cells))}"
    return tables, skipped


def _folders_of(column: pd.Series, folders: Sequence[str], search: Search) -> list[str]:
    """The folders in which most values of a column are images. Empty if it repeats a value, or has an empty one."""
    values = column.tolist()
    if len(set(values)) < len(values) or "" in values:
        return []
    spread = values[:: max(1, len(values) // MOST)]
    likely = [folder for folder in folders if any(each.files for each in search(folder)(spread[:FIRST]))]
    return [folder for folder in likely if _share(search(folder)(spread), len(spread)) >= RECOGNISED]


def _share(found: Iterable, number: int) -> float:
    return sum(len(each.files) == 1 for each in found) / number


def label_columns(train: Table, test: Table | None, sample: Table | None) -> tuple[list[str], str]:
    """Return the columns of a table that may hold the labels, and why these, or why not just one."""
    others = train.others
    values = {name: train.cells[name].nunique() for name in others}
    criteria = {
        f"also in {sample.path if sample else ''}": [name for name in others if sample and name in sample.cells],
        "by its name": train.named_labels,
        f"not in {test.path if test else ''}": [name for name in others if test and name not in test.cells],
        "the only column whose values repeat": [name for name in others if 2 <= values[name] <= len(train.cells) / 2],
        "the only other column": others,
    }
    for reason, names in criteria.items():
        if len(names) == 1:
            return names, reason
        if len(names) > 1 and reason == "by its name":
            return names, "several names say that they hold labels"
    return others, "no name or value says which column holds the labels"


def one_hot(table: Table) -> list[str]:
    """The columns of 0 and 1 that say the class together: each row has a single 1. Empty if there are none."""
    ones = {name: table.cells[name].isin(["1", "1.0"]) for name in table.others}
    marks = [name for name in ones if (ones[name] | table.cells[name].isin(["0", "0.0"])).all()]
    return marks if len(marks) > 1 and (sum(ones[name].astype(int) for name in marks) == 1).all() else []


def classes_in(table: Table, column: str) -> list[str]:
    """The distinct labels of a column."""
    return sorted(set(table.cells[column]))
