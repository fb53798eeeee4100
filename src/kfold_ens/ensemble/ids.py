"""Find the column of a user's table that names the test images, and how it names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from kfold_ens.config import Submission
from kfold_ens.errors import DataError, listing
from kfold_ens.naming import NAMES, submission_names
from kfold_ens.nearest import shown, with_suggestions

LOOKED_AT = 5  # values of a column in which prefixes are searched
RECOGNISED = 0.5  # least share of values that are test images in a column of ids
SHOWN = 3  # ids and names in a message


@dataclass(frozen=True)
class Ids:
    """A column of ids, and the id of each test image."""

    column: str
    names: str  # a key of NAMES
    prefix: str
    wanted: tuple[str, ...]  # the id of each test image, in the manifest's order
    share: float = 1.0  # of the column's values that are test images


def written_ids(submission: Submission, names: str, test: pd.DataFrame) -> Ids:
    """Return the ids that config.yaml specifies.

    Raises:
        DataError: if two images would share an id; it lists these ids.
    """
    prefix, form = submission.id_prefix or "", submission.names or names
    return Ids(submission.id_column, form, prefix, _prefixed(prefix, submission_names(test, form)))


def inferred_ids(
    table: pd.DataFrame, submission: Submission, names: str, test: pd.DataFrame, of_all: bool = True
) -> Ids:
    """Infer the ids of a table: the column, form of names and prefix that match most test images.

    Values that config.yaml sets are kept. On a tie, the form ``names`` and the first column win. A table with a single
    row is recognised only if it need not list all test images (``of_all=False``).

    Raises:
        DataError: if two images would share an id in every form, or in the form ``names`` if no other one matches.
    """
    forms = _forms(submission, names, test)
    column = submission.stated("id_column")
    columns = [column] if column else list(filter(None, table))  # Excel adds nameless columns
    candidates = _candidates(table, columns, forms, submission.id_prefix, of_all)
    best = next(candidates)
    while best.share < 1 and (ids := next(candidates, None)):
        if ids.share > best.share:
            best = ids
    if best.share < RECOGNISED:
        submission_names(test, names)  # shared names may be the reason that nothing matches
    return best


def _forms(submission: Submission, names: str, test: pd.DataFrame) -> dict[str, list[str]]:
    """Return the names of all test images, by each form in which no two share one."""
    forms = {}
    for form in [submission.names] if submission.names else dict.fromkeys([names, *NAMES]):
        try:
            forms[form] = submission_names(test, form)
        except DataError as error:
            refusal = error
    if not forms:
        raise refusal
    return forms


def _candidates(
    table: pd.DataFrame, columns: Sequence[str], forms: dict[str, list[str]], prefix: str | None, of_all: bool
) -> Iterator[Ids]:
    known = {form: frozenset(wanted) for form, wanted in forms.items()}
    for column in columns:
        values = table[column].tolist()
        for form, wanted in forms.items():
            prefixes = [prefix] if prefix is not None else _prefixes(values[:LOOKED_AT], known[form])
            for each in prefixes:
                may_be_one = not of_all and len(values) == 1 and (each == prefix or not each[-1:].isalnum())
                share = _share(values, each, known[form], may_be_one)
                yield Ids(column, form, each, _prefixed(each, wanted), share)


def _prefixes(values: Sequence[str], known: frozenset[str]) -> list[str]:
    """Return the possible prefixes of names in these values, the empty one first."""
    return list(
        dict.fromkeys(["", *(value[:end] for value in values for end in range(len(value)) if value[end:] in known)])
    )


def _share(values: Sequence[str], prefix: str, known: frozenset[str], may_be_one: bool) -> float:
    """Return the share of a column's values that are test images; 0 for a constant column unless ``may_be_one``."""
    different = set(values)
    if len(different) == 1 < len(known) and not may_be_one:
        return 0.0
    return sum(value.startswith(prefix) and value[len(prefix) :] in known for value in different) / len(values)


def _prefixed(prefix: str, wanted: Sequence[str]) -> tuple[str, ...]:
    return tuple(prefix + name for name in wanted)


def rows_in_order(table: pd.DataFrame, ids: Ids, names: Sequence[str], path: str) -> list[str]:
    """Return the ids of a sample, in its order. ``names`` are the user's names of the test images.

    Raises:
        DataError: if the ids are not exactly the test images; it lists the differences.
    """
    given = table[ids.column].tolist()
    if ids.share < RECOGNISED and not set(given) <= set(ids.wanted):
        raise DataError(_unrecognised(given, ids, names, path))
    findings = [f"{shown(name)}: listed {times} times" for name, times in Counter(given).items() if times > 1]
    if foreign := sorted(set(given) - set(ids.wanted)):
        findings += with_suggestions(foreign, ids.wanted, "no test image has this name")
    missing = sorted(set(ids.wanted) - set(given))
    findings += [f"{shown(name)}: a test image that the sample lacks" for name in missing]
    if findings:
        raise DataError(
            f"submission.sample: {path} does not list the test images; use the sample of these images, or check "
            f"submission.names:\n{listing(findings)}"
        )
    return given


def _unrecognised(given: Sequence[str], ids: Ids, names: Sequence[str], path: str) -> str:
    unknown = sorted(set(given) - set(ids.wanted))
    return (
        f"submission.sample: no column of {path} names the test images by {', '.join(NAMES)}, with or without a "
        f"prefix. Its column {ids.column!r} has {_some(given)}; the test images are {_some(names)}. Use the sample of "
        f"these images, or set submission.id_column, names and id_prefix:\n"
        f"{listing(with_suggestions(unknown, ids.wanted, 'no test image has this name'))}"
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(shown, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
