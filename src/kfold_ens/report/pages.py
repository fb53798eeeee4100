"""Pages of the report: self-contained HTML files in which all names are escaped."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair
import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from kfold_ens.files import atomic

TEMPLATES = Environment(loader=PackageLoader("kfold_ens.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True)

SHORT = 32  # characters that are kept on one line
BROAD = 6  # inches; on narrow screens, broader figures scroll, since shrunk text would be too small


@dataclass(frozen=True)
class Picture:
    """A picture embedded in the page. In a gallery, ``lines`` are shown below it."""

    uri: str
    alt: str
    lines: tuple[str, ...] = ()
    tiny: bool = False  # enlarged without interpolation


def write_page(path: str | Path, title: str, *blocks: Markup) -> None:
    """Write a page atomically."""
    text = TEMPLATES.get_template("page.html").render(title=title, blocks=blocks)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_fragment(path: str | Path, *blocks: Markup) -> None:
    """Write blocks that another page includes."""
    with atomic(path) as temporary:
        temporary.write_text("\n".join(blocks), encoding="utf-8", errors="backslashreplace")


def heading(text: str) -> Markup:
    return Markup("<h2>{}</h2>").format(text)


def paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)


def note(text: str) -> Markup:
    """Make a highlighted paragraph."""
    return Markup('<p class="note">{}</p>').format(text)


def preformatted(text: str) -> Markup:
    return Markup("<pre>{}</pre>").format(text)


def figure(drawn: Figure, alt: str) -> Markup:
    """Embed a figure as SVG; ``alt`` describes it to screen readers."""
    buffer = io.StringIO()
    broad = drawn.get_figwidth() > BROAD
    drawn.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(drawn)
    svg = re.sub(r"^.*?<svg ", "<svg ", buffer.getvalue(), count=1, flags=re.DOTALL)
    words = Markup('<figure role="img" aria-label="{}"{}>{}</figure>')
    return words.format(alt, Markup(' class="broad"') if broad else "", Markup(svg))


def grid(*blocks: Markup) -> Markup:
    """Put blocks side by side, as many as fit."""
    return Markup('<div class="grid">{}</div>').format(Markup("").join(blocks))


def gallery(pictures: Iterable[Picture]) -> Markup:
    return _block("gallery", list(pictures))


def table(frame: pd.DataFrame, caption: str = "") -> Markup:
    """Make a table that is sorted by clicking on a column head. Cells are text, numbers or tuples of pictures."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    columns = [{"name": name, "number": number} for name, number in zip(frame, numeric, strict=True)]
    rows = [
        [_cell(value, number) for value, number in zip(row, numeric, strict=True)]
        for row in frame.itertuples(index=False, name=None)
    ]
    return _block("table", columns, rows, caption)


def _cell(value: Any, number: bool) -> dict[str, Any]:
    if isinstance(value, tuple):
        return {"pictures": value, "kind": "pictures"}
    if not number:
        return {"text": value, "kind": "short" if len(str(value)) <= SHORT else ""}
    if pd.isna(value):
        return {"kind": "number", "sort": "", "text": ""}
    text = f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
    return {"kind": "number", "sort": value, "text": text}


def chart(drawn: altair.TopLevelMixin, name: str, alt: str) -> Markup:
    """Embed an interactive chart; ``alt`` describes it to screen readers."""
    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    bundle = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # the snippet is optional
    spec = json.dumps(drawn.to_dict()).replace("<", "\\u003c")  # so that no name in it can end the script
    return _block("chart", name, alt, Markup(bundle), Markup(spec))


def definitions(values: Mapping[str, Any]) -> Markup:
    """Make a table of names and values."""
    pair = Markup("<tr><th scope=row>{}</th><td>{}</td></tr>")
    rows = Markup("").join(pair.format(name, value) for name, value in values.items())
    return Markup('<div class="wide"><table><tbody>{}</tbody></table></div>').format(rows)


def _block(macro: str, *arguments: Any) -> Markup:
    return getattr(TEMPLATES.get_template("blocks.html").module, macro)(*arguments)


def unfinished(finished: int, folds: int) -> list[Markup]:
    """Warn if some folds are not finished."""
    words = f"Only {finished} of {folds} folds are finished. This page shows these folds alone."
    return [note(words)] if finished < folds else []
