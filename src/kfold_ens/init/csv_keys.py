"""Guess the keys of ``source: csv`` from tables that name images."""

from __future__ import annotations

from collections.abc import Sequence

from kfold_ens.init.findings import Answer, Finding, counted, doubt, guess, nothing
from kfold_ens.init.names import role_of
from kfold_ens.init.tables import GROUPS, Table, label_columns, one_hot

MOST = 4  # answers in a message


def train_tables(tables: Sequence[Table]) -> list[Table]:
    """The tables of images and labels that may be those to train on; only those named so, if there are any."""
    listing = [table for table in tables if table.ids and table.others]
    return [table for table in listing if table.role == "train"] or [
        table for table in listing if table.role is None and not _lists_test_images(table)
    ]


def _lists_test_images(table: Table) -> bool:
    return all(role_of(folder) == "test" for folders in table.ids.values() for folder in folders)


def test_tables(tables: Sequence[Table], train: Table) -> list[Table]:
    """The tables that may list the test images; a sample submission, if there is no other."""
    named = _of_test(tables)
    bare = [table for table in tables if table.ids and table.role is None and not table.others and table is not train]
    return named or bare or samples_of(tables, with_ids=True)


def _of_test(tables: Sequence[Table]) -> list[Table]:
    """The tables of test images by name; without those that add labels to another."""
    named = [table for table in tables if table.ids and table.role == "test"]
    bare = [table for table in named if not table.named_labels]
    return bare if len(bare) == 1 else named


def samples_of(tables: Sequence[Table], with_ids: bool = False) -> list[Table]:
    """The sample submissions, by their names."""
    return [table for table in tables if table.role == "sample" and (table.ids or not with_ids)]


def from_tables(tables: Sequence[Table]) -> list[Finding]:
    """Guess the keys of ``source: csv``. Empty if no table may list images with labels."""
    trains = train_tables(tables)
    if not trains:
        return []
    source = guess("data", f"{trains[0].path} names images, and has other columns", source="csv")
    if len(trains) > 1:
        answers = [
            Answer({"train": each.path}, f"{counted(len(each.cells), 'row')}, {_columns(each)}") for each in trains
        ]
        return [source, doubt("data", answers, "since several tables name images and have other columns")]
    (train,) = trains
    tests = test_tables(tables, train)
    test = tests[0] if len(tests) == 1 else None
    sample = next(iter(samples_of(tables)), None)
    return [
        source,
        guess("data", f"{counted(len(train.cells), 'row')}, {_columns(train)}", train=train.path),
        _test(tests),
        *_ids_and_images(train, test, sample),
        _labels(train, test, sample),
        *_groups(train),
    ]


def _test(tests: Sequence[Table]) -> Finding:
    if not tests:
        return nothing("data", "test", "write a table of the test images, with the id column of the training table")
    if len(tests) > 1:
        return doubt("data", [Answer({"test": each.path}, f"{counted(len(each.cells), 'row')}") for each in tests])
    reason = "the sample is the only list of test images" if tests[0].role == "sample" else "the list of test images"
    return guess("data", f"{reason}, {counted(len(tests[0].cells), 'row')}", test=tests[0].path)


def _ids_and_images(train: Table, test: Table | None, sample: Table | None) -> list[Finding]:
    """Guess the column of image names, which both tables have, and the folders of their images."""
    columns = [name for name in train.ids if not test or name in test.ids]
    if test and not columns:
        advice = f"give both tables one: {train.path} has {', '.join(train.ids)}, {test.path} has {', '.join(test.ids)}"
        return [nothing("data", "id_column", advice), *_images(train, next(iter(train.ids)), None)]
    in_sample = [name for name in columns if sample and name in sample.cells]
    column, *others = in_sample if len(in_sample) == 1 else columns
    images = _images(train, column, test)
    if others:
        answers = [Answer({"id_column": name}, f"such as {train.cells[name].iloc[0]!r}") for name in (column, *others)]
        return [doubt("data", answers, "since each column names the images"), *images]
    why = f"its values are images, such as {train.cells[column].iloc[0]!r}"
    return [guess("data", f"{why}; also in {sample.path}" if sample and in_sample else why, id_column=column), *images]


def _images(train: Table, column: str, test: Table | None) -> list[Finding]:
    found = [_folder("images", train, train.ids[column])]
    if test and test.ids[column] != train.ids[column]:
        found.append(_folder("test_images", test, test.ids[column]))
    return found


def _folder(key: str, table: Table, folders: Sequence[str]) -> Finding:
    """The folder of a table's images; if several hold images of these names, the one whose name fits the table's."""
    half = "test" if key == "test_images" else "train"
    fitting = [folder for folder in folders if role_of(folder) == half] if len(folders) > 1 else folders
    if len(fitting) == 1:
        return guess("data", f"it holds the images of {table.path}", **{key: fitting[0]})
    return doubt("data", [Answer({key: folder}, f"it holds images of {table.path}") for folder in folders])


def _labels(train: Table, test: Table | None, sample: Table | None) -> Finding:
    columns, reason = label_columns(train, test, sample)
    if len(columns) == 1:
        return guess("data", f"{reason}; {_values(train, columns[0])}", label_column=columns[0])
    if spread := one_hot(train):
        advice = (
            f"{', '.join(map(repr, spread))} have a single 1 in each row: write the name of its column into one column"
        )
        return nothing("data", "label_column", advice)
    answers = [Answer({"label_column": name}, _values(train, name)) for name in columns]
    more = f"; here {MOST} of {len(columns)}" if len(columns) > MOST else ""
    return doubt("data", answers[:MOST], f"since {reason}{more}")


def _groups(train: Table) -> list[Finding]:
    """Columns that may say which images belong together. That is never guessed, since nothing shows it."""
    named = [name for name in train.others if GROUPS.search(name.lower())]
    answers = [Answer({"group_column": name}, counted(train.cells[name].nunique(), "value")) for name in named]
    advice = "since only you know whether images with equal values must stay in one fold"
    return [doubt("data", answers, advice, is_optional=True)] if answers else []


def _values(table: Table, column: str) -> str:
    names = sorted(set(table.cells[column]))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"values {', '.join(map(repr, names[:3]))}{more}"


def _columns(table: Table) -> str:
    return f"columns {', '.join(map(repr, filter(None, table.cells)))}"
