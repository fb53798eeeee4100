"""Find the functions and classes that loading a pickle would call, without loading it."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Names in the pickle of a state dictionary of tensors.
KINDS = r"\w*Storage|Size|device|b?float\w*|u?int\w*|complex\w*|long|half|double|short|bool"
OF_TENSORS = re.compile(
    rf"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.({KINDS})|torch\.storage\.\w+Storage"
)
TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINSTRING", "BINSTRING", "STRING")
PUT, GET = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


def names_in_pickle(path: Path) -> list[str]:
    """List the functions and classes that a file's pickle names, except those of tensors; empty if not a pickle."""
    names: dict[str, None] = {}
    try:
        for name in _names(_content(path)):
            names[name] = None
    except Exception:  # a damaged pickle may raise anything; the names before the damage count
        pass
    return [name for name in names if not OF_TENSORS.fullmatch(name)]


def _content(path: Path) -> bytes:
    """The bytes of a pickle: the whole file, or the pickle inside torch's zip archive."""
    if not zipfile.is_zipfile(path):
        return path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


def _names(content: bytes) -> Iterator[str]:
    """Yield the names in one pickle, or in several in a row, as torch's older files have them."""
    while content:
        end, texts = 0, []
        memo: dict[Any, str] = {}
        for code, argument, place in pickletools.genops(content):
            end = place or end
            if code.name in TEXT:
                texts.append(str(argument))
            elif code.name == "MEMOIZE":
                memo[len(memo)] = texts[-1] if texts else ""
            elif code.name in PUT:
                memo[argument] = texts[-1] if texts else ""
            elif code.name in GET:
                texts.append(memo.get(argument, ""))
            elif code.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif code.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
        content = content[end + 1 :]
