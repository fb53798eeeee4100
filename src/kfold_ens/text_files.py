"""Read text files of the user: decode them unambiguously, or refuse them with advice."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import logging
import lzma
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from kfold_ens.errors import DataError

log = logging.getLogger(__name__)

NO_TEXT = {  # the first bytes of files that people take for tables
    b"PK\x03\x04": "a workbook or a zip file, not a CSV; save its sheet as CSV UTF-8, or let a zip's name end in .zip",
    b"\xd0\xcf\x11\xe0": "an Excel workbook, not a CSV; save its sheet as CSV UTF-8",
    b"\x1f\x8b": "compressed; unpack it, or let its name end in .gz",
    b"version https://git-lfs": "a Git LFS pointer, not the table; fetch the table with git lfs pull",
    b"<!doctype html": "a web page, not a CSV; download the table again, logged in",
    b"<html": "a web page, not a CSV; download the table again, logged in",
}
MARKS = {  # UTF-32 first, since its mark starts with one of UTF-16
    codecs.BOM_UTF32_LE: ("UTF-32", "utf-32-le"),
    codecs.BOM_UTF32_BE: ("UTF-32", "utf-32-be"),
    codecs.BOM_UTF16_LE: ("UTF-16", "utf-16-le"),
    codecs.BOM_UTF16_BE: ("UTF-16", "utf-16-be"),
    codecs.BOM_UTF8: ("UTF-8", "utf-8"),
}
LIKELY = {  # other common encodings; on a tie, the first
    "cp1252": "Windows-1252, Western Europe",
    "cp1250": "Windows-1250, Central Europe",
    "cp1251": "Windows-1251, Cyrillic",
    "cp932": "Shift-JIS, Japanese",
    "gb18030": "GB 18030, Chinese, or Windows-949, Korean",
    "cp1253": "Windows-1253, Greek",
}
SAMPLE = 4000  # non-ASCII characters by which an encoding is guessed


def read_user_text(path: Path, where: str) -> str:
    """Read a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark. Unpacks .gz, .bz2, .xz and .zip.

    Raises:
        DataError: if the file cannot be read; the message starts with ``where`` and says what to do.
    """
    content = _content(path, where)
    start = content[:30].lstrip().lower()
    for beginning, words in NO_TEXT.items():
        if start.startswith(beginning.lower()):
            raise DataError(f"{where} is {words}")
    return _decoded(content, where)


def _content(path: Path, where: str) -> bytes:
    if os.path.isdir(path):
        raise DataError(f"{where} is a folder; name a table in it")
    if not os.path.exists(path):
        raise DataError(f"{where} does not exist (looked in {Path.cwd()}); correct the path")
    if not os.path.isfile(path):
        raise DataError(f"{where} is a device or a pipe; save the table to a file")
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            return file.read()
    except (OSError, EOFError, zlib.error, lzma.LZMAError, BadZipFile, RuntimeError) as error:  # zip passwords
        raise DataError(f"{where} cannot be read: {error}") from None


def _open_zipped(path: Path, _: str) -> io.BytesIO:
    with ZipFile(path) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/")]
        if len(members) != 1:
            raise BadZipFile(f"it holds {len(members)} files; unpack it and give the path of the table")
        return io.BytesIO(archive.read(members[0]))


_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zipped}


def _decoded(content: bytes, where: str) -> str:
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    name, encoding = MARKS.get(mark, ("UTF-8", "utf-8"))
    if encoding == "utf-8" and b"\0" in content:
        _refuse_nul(content[: content.index(0)].decode("utf-8", "replace"), where)
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(content, len(mark) + error.start, name, encoding, where)) from None
    if "\0" in text:
        _refuse_nul(text[: text.index("\0")], where)
    if mark:
        log.info("%s is read as %s, by its byte order mark", where, name)
    return text.lstrip("\ufeff")


def _refuse_nul(before: str, where: str) -> None:
    raise DataError(
        f"{where} has a NUL byte in line {line_at(before)}: it is damaged, or is UTF-16 without a byte order mark; "
        "save it as UTF-8"
    )


def line_at(before: str) -> int:
    """Return the number, from 1, of the line in which a text ends."""
    return 1 + len(re.findall(r"\r\n|\r|\n", before))


def _undecodable(content: bytes, position: int, name: str, encoding: str, where: str) -> str:
    line = line_at(content[:position].decode(encoding, "replace"))
    found = f"{where} is not {name}: byte 0x{content[position]:02x} at position {position}, line {line}"
    likely = _likely(content) if name == "UTF-8" else None
    if not likely:
        return f"{found}; save it as UTF-8 (in Excel: CSV UTF-8)"
    start = max(content.rfind(end, 0, position) for end in b"\r\n") + 1
    reads = re.split(rb"[\r\n]", content[start : start + 200])[0].decode(likely, "replace")
    return (
        f"{found}. It is likely {LIKELY[likely]}, in which the line reads {reads!r}.\n"
        f"  Save it as UTF-8 (in Excel: CSV UTF-8; or: iconv -f {likely} -t UTF-8), and check its names"
    )


def _likely(content: bytes) -> str | None:
    """Return the encoding that decodes a text to the fewest odd words; None if none decodes it."""
    odd = {}
    for encoding in LIKELY:
        try:
            odd[encoding] = _oddities(content.decode(encoding))
        except UnicodeDecodeError:
            continue
    return min(odd, key=odd.__getitem__, default=None)


def _oddities(text: str) -> float:
    """Count what is rare within words: symbols, adjacent accented letters, mixed scripts, inner capitals.

    Nearly every pair of bytes decodes to some Chinese character, so each of these counts a little.
    """
    words = re.sub(r"[^A-Za-z\x80-\U0010ffff]+", " ", text).split()
    sample = " ".join(word for word in words if not word.isascii())[:SAMPLE]
    signs = sum(each > "\x7f" and not each.isalpha() for each in sample)
    pairs = sum(_oddity(*pair) for pair in zip(sample, sample[1:], strict=False) if " " not in pair)
    return signs + pairs + sum(each > "\u2e80" for each in sample) / 10


def _oddity(one: str, other: str) -> int:
    latin = one < "\u0250", other < "\u0250"
    if latin[0] != latin[1]:
        return 3
    return (all(latin) and one > "\x7f" and other > "\x7f") + (one.islower() and other.isupper())


def is_utf8(text: str) -> bool:
    """Tell whether a text, such as a file name, can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
