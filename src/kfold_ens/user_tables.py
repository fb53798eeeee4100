"""Read tables of the user, whichever program saved them, or refuse them with advice.

Nothing is guessed: a file that is not a plain CSV is read only if it has a single meaning, which is logged.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from kfold_ens.errors import DataError, listing
from kfold_ens.text_files import read_user_text

log = logging.getLogger(__name__)

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SEPARATOR_LINE = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*(?=[\r\n])')  # the first line of tables made for Excel
CSV_ERRORS = {"unexpected end of data": "a quotation mark is never closed"}  # by Python's words


def read_user_table(path: str | Path, columns: Mapping[str, str], key: str) -> pd.DataFrame:
    """Read a table with all cells as text: "007", "NA" and "1e3" stay unchanged.

    ``columns`` are the required columns, by their keys in config.yaml; ``key`` is the key of the table. Cells are
    separated by commas, semicolons, tabs or vertical bars. Lines without text are skipped.

    Raises:
        DataError: if the table cannot be read; the message names key and file and says what to do.
    """
    where = f"{key}: {path}"
    text = read_user_text(Path(path), where)
    headers = _headers(text, where)
    separator = _separator(headers, columns, where)
    if separator != ",":
        log.info("%s is read as separated by %s; results are written with commas", where, SEPARATORS[separator])
    _refuse_repeated_columns(headers[separator], where)
    return _table(text, separator, where)


def _headers(text: str, where: str) -> dict[str, list[str]]:
    """Return the cells of the first line, by each possible separator."""
    headers, refusals = {}, []
    for separator in _possible_separators(text):
        try:
            _, headers[separator] = next(_rows(text, separator, where), (1, []))
        except DataError as refusal:
            refusals.append(refusal)
    if not headers:
        raise refusals[0]
    if not any("".join(header).strip(" ".join(SEPARATORS)) for header in headers.values()):
        raise DataError(f"{where} is empty; its first line must name the columns")
    return headers


def _possible_separators(text: str) -> list[str]:
    stated = SEPARATOR_LINE.match(text)
    return [stated[1]] if stated else list(SEPARATORS)


def _rows(text: str, separator: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with text, and the number of its first line."""
    text = SEPARATOR_LINE.sub("", text, count=1) if SEPARATOR_LINE.match(text) else text
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if row == [""] or "".join(row).strip():  # [""] was written as "" on purpose
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        words = CSV_ERRORS.get(str(error), error)
        raise DataError(
            f"{where} cannot be read as a CSV table; in the row that starts in line {line}: {words}"
        ) from None


def _separator(headers: Mapping[str, list[str]], columns: Mapping[str, str], where: str) -> str:
    """Return the only separator by which the header has all required columns."""
    fitting = [separator for separator, header in headers.items() if set(columns.values()) <= set(header)]
    several = [separator for separator in fitting if len(headers[separator]) > 1]
    if len(several) > 1:
        names = " or ".join(SEPARATORS[separator] for separator in several)
        raise DataError(f"{where} can be read as separated by {names}; save it with commas only")
    if not fitting:
        raise DataError(_lacking(headers, columns, where))
    return (several or fitting)[0]


def _lacking(headers: Mapping[str, list[str]], columns: Mapping[str, str], where: str) -> str:
    """Describe the missing columns, by the separator that fits best, with similar columns."""

    def fit(separator: str) -> tuple[int, int]:
        header = headers[separator]
        return sum(_nearest(name, header) is not None for name in columns.values()), len(header)

    separator = max(headers, key=fit)
    header = headers[separator]
    lacking = {key: _nearest(name, header) for key, name in columns.items() if name not in header}
    findings = [
        f"{'' if near is None else f'has {near!r}, '}config.yaml needs {columns[key]!r} ({key})"
        for key, near in lacking.items()
    ]
    if list(lacking) == ["data.label_column"] and len(header) > len(columns):
        findings.append("if there is a column per class, combine them in pandas: table[classes].idxmax(axis=1)")
    return (
        f"{where} lacks columns. Separated by {SEPARATORS[separator]}, it has {header}. Change config.yaml, or the "
        f"first line of the table, which must name the columns:\n{listing(findings)}"
    )


def _nearest(name: str, header: list[str]) -> str | None:
    """Return the column that a name likely means: an equal or similar one; None if there is none."""
    if name in header:
        return name
    folded = {_folded(column): column for column in header}
    near = get_close_matches(_folded(name), list(folded), n=1, cutoff=0.75)
    return folded[near[0]] if near else None


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name)).casefold()


def _refuse_repeated_columns(header: list[str], where: str) -> None:
    repeated = [name for name, times in Counter(header).items() if times > 1 and name]  # Excel adds nameless columns
    if repeated:
        raise DataError(
            f"{where} has these columns more than once; rename or delete one:\n{listing(map(repr, repeated))}"
        )


def _table(text: str, separator: str, where: str) -> pd.DataFrame:
    (_, header), *rows = _rows(text, separator, where)
    width = len(header)
    if not rows:
        raise DataError(f"{where} has the columns {header}, but no rows; add rows below the first line")
    wide = [f"line {line}: {len(row)} cells" for line, row in rows if len(row) > width]
    if wide:
        raise DataError(
            f"{where} has rows with more cells than its header, which has {width}; put cells that contain "
            f"{SEPARATORS[separator]} in quotation marks:\n{listing(wide)}"
        )
    cells = [row + [""] * (width - len(row)) for _, row in rows]
    return pd.DataFrame(cells, columns=header, dtype=object)
