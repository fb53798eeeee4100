import bz2
import csv
import gzip
import io
import logging
import lzma
import os
import re
import time
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kfold_ens.errors import DataError
from kfold_ens.user_tables import SEPARATORS, read_user_table

COLUMNS = {"data.id_column": "id", "data.label_column": "label"}


@pytest.fixture
def read(in_folder, caplog):
    """Read a table of some bytes or text; ``read.said`` is what the log says of it."""
    caplog.set_level(logging.INFO)

    def read(content: bytes | str, columns=COLUMNS, name="train.csv") -> list[list[str]]:
        caplog.clear()
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        table = read_user_table(name, columns, "data.train")
        read.said = [record.getMessage() for record in caplog.records]
        return table[list(columns.values())].to_numpy().tolist()

    return read


def refusal(read, content, columns=COLUMNS) -> str:
    with pytest.raises(DataError) as refused:
        read(content, columns)
    assert str(refused.value).startswith("data.train: train.csv")
    return str(refused.value)


# --- separators ------------------------------------------------------------------------------------------


def test_a_plain_table_is_read_without_a_log_line(read):
    text = 'id,label,more\n007,NA,x\n1e3,"two\nlines",\n\n 1.0 ,"say ""so""",y\n'
    assert read(text) == [["007", "NA"], ["1e3", "two\nlines"], [" 1.0 ", 'say "so"']]
    assert read.said == []


@pytest.mark.parametrize(("separator", "words"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_separator_is_read_and_logged(read, separator, words):
    text = 'id;label;width\r\na.png;"x;1,5";1,5\r\nb.png;y, z;2,5\r\n'.replace(";", separator)
    assert read(text) == [["a.png", f"x{separator}1,5"], ["b.png", "y, z"]]
    assert read.said == [f"data.train: train.csv is read as separated by {words}; results are written with commas"]


def test_one_column_needs_no_separator(read):
    assert read("id\na;b\nc\td\n", {"data.id_column": "id"}) == [["a;b"], ["c\td"]]
    assert read.said == []
    assert read("id;x\na;1\n", {"data.id_column": "id"}) == [["a"]]


def test_a_separator_within_a_column_name_is_ignored(read):
    columns = {"data.id_column": "id, of the image", "data.label_column": "a;b"}
    assert read('"id, of the image",a;b\n1,2;3\n', columns) == [["1", "2;3"]]
    assert read('id, of the image;"a;b"\n1;2\n', columns) == [["1", "2"]]


def test_a_header_that_two_separators_fit_is_refused(read):
    assert "can be read as separated by commas or semicolons" in refusal(read, "id,x;id\n1,2;3\n", {"key": "id"})


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "sep=;;\r"])
def test_the_line_for_excel_that_states_the_separator_is_heeded(read, first):
    assert read(f"{first}id;label\na,b;c\n") == [["a,b", "c"]]
    assert "line 3" in refusal(read, f"{first}id;label\na;b;c\n")
    assert read(f"{first}id,x;id\n1,2;3\n", {"key": "id"}) == [["3"]]


def test_rows_of_more_cells_than_the_header_are_all_listed(read):
    message = refusal(read, 'id,label\n\na,b, c\nd,"two\nlines"\nf,1,\n')
    assert "put cells that contain commas in quotation marks" in message
    assert message.splitlines()[1:] == ["  line 3: 3 cells", "  line 6: 3 cells"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old mac"])
def test_rows_without_text_are_ignored_as_spreadsheets_write_them(read, end):
    assert read(end.join(["", ",", "id,label", "a,1", " ", ",", "b", "c,", "", ""])) == [
        ["a", "1"],
        ["b", ""],
        ["c", ""],
    ]
    assert read(end.join(["id", "a", '""', ""]), {"key": "id"}) == [["a"], [""]]


# --- columns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (" id,label", ["has ' id', config.yaml needs 'id' (data.id_column)"]),
        ("id, Label", ["has ' Label', config.yaml needs 'label' (data.label_column)"]),
        ("ID;LABEL", ["has 'ID', config.yaml needs 'id'", "has 'LABEL', config.yaml needs 'label'"]),
        ("id\u200b,label", ["has 'id\\u200b', config.yaml needs 'id'"]),
        ("id,labels", ["has 'labels', config.yaml needs 'label'"]),
        ("file,label", ["  config.yaml needs 'id'"]),
        ("a.png,cat", ["  config.yaml needs 'id'", "  config.yaml needs 'label'"]),
        ("file;class", ["Separated by semicolons, it has ['file', 'class']"]),
        ("id label", ["Separated by commas, it has ['id label']"]),
    ],
)
def test_missing_columns_are_refused_with_the_existing_ones(read, header, found):
    message = refusal(read, f"{header}\n1,2\n")
    assert "lacks columns" in message
    assert all(each in message for each in found), message


@pytest.mark.parametrize(
    ("header", "is_advised"), [("id,cat,dog", True), ("id;cat;dog;cow", True), ("id,cat", False), ("a,b,c", False)]
)
def test_a_table_with_a_column_per_class_gets_advice(read, header, is_advised):
    assert ("idxmax" in refusal(read, f"{header}\n1,0,0\n")) == is_advised


@pytest.mark.parametrize(
    ("header", "names"), [("id,label,id", "id"), ("id;label;label", "label"), ("id,label,x,y,y,x", "xy")]
)
def test_repeated_columns_are_all_refused_by_name(read, header, names):
    message = refusal(read, f"{header}\n1\n")
    assert "has these columns more than once" in message
    assert message.splitlines()[1:] == [f"  {name!r}" for name in ([names] if names in COLUMNS.values() else names)]


def test_columns_without_a_name_may_be_several(read):
    assert read("id,label,,\na,b,,\n") == [["a", "b"]]


# --- encodings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "name"), [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-32", "UTF-32")])
def test_text_with_a_byte_order_mark_is_read_and_logged(read, encoding, name):
    assert read("id,label\né,猫\n".encode(encoding)) == [["é", "猫"]]
    assert read.said == [f"data.train: train.csv is read as {name}, by its byte order mark"]


def test_utf_16_of_the_other_byte_order_and_with_tabs_is_read(read):
    assert read(b"\xfe\xff" + "id\tlabel\né\t猫\n".encode("utf-16-be")) == [["é", "猫"]]  # Excel's "Unicode text"
    assert len(read.said) == 2
    assert read(b"\xef\xbb\xbf\xef\xbb\xbfid,label\na,b\n") == [["a", "b"]]  # by a program that adds one to its own


@pytest.mark.parametrize(
    ("encoding", "text", "likely"),
    [
        ("cp1252", "Müller, café, élève", "Windows-1252, Western Europe"),
        ("cp1250", "żółty, šťastný, łąka", "Windows-1250, Central Europe"),
        ("cp1251", "кошка, собака", "Windows-1251, Cyrillic"),
        ("cp1253", "γάτα, σκύλος", "Windows-1253, Greek"),
        ("cp932", "ネコ, いぬ", "Shift-JIS, Japanese"),
        ("gb18030", "猫, 狗, 动物", "GB 18030, Chinese"),
    ],
)
def test_another_encoding_is_refused_with_its_place_and_how_it_likely_reads(read, encoding, text, likely):
    content = b"id,label\r\na,e\r\nb," + f'"{text}"\r\n'.encode(encoding)
    message = refusal(read, content)
    place = int(re.search(r"at position ([0-9]+), line 3", message)[1])
    assert f"byte 0x{content[place]:02x}" in message
    assert content[:place].decode().startswith("id,label\r\na,e\r\nb,")
    assert f"likely {likely}" in message
    assert repr(f'b,"{text}"') in message
    assert "Save it as UTF-8" in message


def test_how_a_line_likely_reads_is_shown(read):
    assert "likely Windows-1252, Western Europe, in which the line reads '1,caf\u00e9'" in refusal(
        read, b"id,label\n1,caf\xe9\n2,x\n"
    )


@pytest.mark.parametrize("content", [b"id,label\na,\0b\n", *map("id,label\na,é\0\n".encode, ["utf-16-le", "utf-16"])])
def test_nul_bytes_are_refused(read, content):
    assert "has a NUL byte in line" in refusal(read, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is not UTF-16: byte 0x00 at position 2, line 1"),
        (b"\xff\xfei\x00\n\x00\x00\xd8i\x00", "is not UTF-16: byte 0x00 at position 6, line 2"),
        (b"\xef\xbb\xbfid,label\na,\xe9\n", "is not UTF-8: byte 0xe9 at position 14, line 2"),
    ],
)
def test_text_that_does_not_keep_what_its_byte_order_mark_says_is_refused(read, content, message):
    assert message in refusal(read, content)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \r\n,,\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"id,label\n\n", "has the columns ['id', 'label'], but no rows"),
        (b'id,label\na,b\n"c,d\ne,f\n', "starts in line 3: a quotation mark is never closed"),
        (b'id,label\na,"b"c\n', "starts in line 2: ',' expected after '\"'"),
        (b'"id,label\na,b\n', "starts in line 1: a quotation mark"),
        (b"PK\x03\x04\x14\x00", "a workbook or a zip file, not a CSV"),
        (b"\xd0\xcf\x11\xe0\xa1", "an Excel workbook"),
        (b"\x1f\x8b\x08", "compressed; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page, not a CSV"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_by_its_kind(read, content, message):
    assert message in refusal(read, content)


def test_a_missing_table_a_folder_and_a_device_are_refused(in_folder):
    os.mkfifo("pipe")
    Path("folder.csv").mkdir()
    for name, message in (
        ("gone", r"does not exist \(looked in"),
        ("folder.csv", "is a folder"),
        ("pipe", "is a device or a pipe"),
    ):
        with pytest.raises(DataError, match=f"^data.test: {name} {message}"):
            read_user_table(name, COLUMNS, "data.test")


def test_a_table_without_read_permission_is_refused(read, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    Path("train.csv").touch()
    with pytest.raises(DataError, match=r"data.train: train.csv cannot be read: .*Permission denied"):
        read_user_table("train.csv", COLUMNS, "data.train")


TEXT = b"id,label\na,b\n"


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv.gz", gzip.compress(TEXT)),
        ("t.csv.bz2", bz2.compress(TEXT)),
        ("t.xz", lzma.compress(TEXT)),
        ("t.zip", zipped("folder/", "folder/t.csv")),
    ],
    ids=["gz", "bz2", "xz", "zip"],  # the contents hold the time
)
def test_a_compressed_table_is_read_and_half_of_it_refused(read, name, content):
    assert read(content, name=name) == [["a", "b"]]
    for half in (content[: len(content) // 2], content[:-2] if "zip" not in name else zipped("a", "b"), TEXT):
        with pytest.raises(DataError, match=f"^data.train: {name} cannot be read: "):
            read(half, name=name)


# --- any table -------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(["", " ", "007", "NA", "1e3", ",", ";", "\t", '"', "\n", "\r\n", "x\ry", "\ufeff", "#"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)
ROWS = st.lists(st.tuples(CELLS, CELLS).filter(lambda row: "".join(row).strip()), min_size=1)


@given(
    ROWS,
    st.sampled_from(list(SEPARATORS)),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from([(csv.QUOTE_MINIMAL, "\r\n"), *((csv.QUOTE_ALL, end) for end in ("\n", "\r\n", "\r"))]),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_cell_is_read_as_written_by_any_program(tmp_path, rows, separator, encoding, form):
    file = io.StringIO(newline="")
    quoting, end = form
    csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end).writerows([("id", "label"), *rows])
    (tmp_path / "table.csv").write_bytes(file.getvalue().encode(encoding))
    table = read_user_table(tmp_path / "table.csv", COLUMNS, "data.train")
    assert table.to_numpy().tolist() == [list(row) for row in rows]


def test_a_cell_may_be_very_long(read):
    assert read(f"id,label\na,{'x' * 200_000}\n") == [["a", "x" * 200_000]]


def test_200_000_rows_are_read_in_seconds(read):
    text = "".join(["id;label\n", *(f"img_{index};{index % 9}\n" for index in range(200_000))])
    started = time.process_time()
    assert len(read(text)) == 200_000
    assert time.process_time() - started < 10
