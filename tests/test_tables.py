"""Messy CSV files: each is read right, with a line on what was repaired, or refused with the place and a remedy."""

import csv
import io
import time
import tracemalloc

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sirius_helpers.errors import UserError
from sirius_helpers.files.tables import read_table
from sirius_helpers.settings import PROJECT

# Long enough to be certain: capitals, every case of "я", and over forty letters.
LONG = ["Заказала пальто, а прислали куртку", "Моя дочка в восторге, ткань мягкая и тёплая", "Очень мало, Яна вернула"]
TEXT = "text\n" + "".join(f'"{text}"\n' for text in LONG)

SPOILT = "Отлично".encode().decode("latin-1")

READ = {  # what it is: (bytes, texts, what is said)
    "plain": (b"text\na\nb\n", ["a", "b"], None),
    "no newline at the end": (b"text\na\nb", ["a", "b"], None),
    "one row": (b"text\na\n", ["a"], None),
    "quotes, commas and line breaks in quotes": (b'text\n"a ""b"", c\r\nd"\n', ['a "b", c\r\nd'], None),
    "UTF-8 with a byte order mark": (b"\xef\xbb\xbf" + TEXT.encode(), LONG, None),
    "two byte order marks": (b"\xef\xbb\xbf" * 2 + b"text\na\n", ["a"], r"column '\ufefftext' taken as 'text'"),
    "UTF-16 LE with a byte order mark": (b"\xff\xfe" + TEXT.encode("utf-16-le"), LONG, "read as utf-16"),
    "UTF-16 BE with a byte order mark": (b"\xfe\xff" + TEXT.encode("utf-16-be"), LONG, "read as utf-16"),
    "Windows-1251": (TEXT.encode("cp1251"), LONG, "read as cp1251"),
    "Russian Excel: Windows-1251, semicolons, CRLF": (
        ("id;text\r\n" + "".join(f"{n};{text}\r\n" for n, text in enumerate(LONG))).encode("cp1251"),
        LONG,
        "read as cp1251; separated by ';'",
    ),
    "Excel's Unicode text: UTF-16, tabs": (
        b"\xff\xfe" + "text\tid\r\nда, но\t1\r\n".encode("utf-16-le"),
        ["да, но"],
        r"read as utf-16; separated by '\t'",
    ),
    "semicolons, commas in the text": (b"text;n\na, b;1\n", ["a, b"], "separated by ';'"),
    "tabs, commas and semicolons in the text": (b"n\ttext\n1\ta, b; c\n", ["a, b; c"], r"separated by '\t'"),
    "quoted header, semicolons": (b'"text";"n"\n"a;b";1\n', ["a;b"], "separated by ';'"),
    "Excel's line that names the separator": (b"sep=;\r\ntext;n\r\na;1\r\n", ["a"], "separated by ';'"),
    "one column, commas unquoted": (b'text\na, b\n"c; d"\n', ["a, b", "c; d"], "a single column, so commas are text"),
    "one column, quotes beside unquoted commas": (b'text\na, "b"\n', ['a, "b"'], "a single column, so commas are text"),
    "CRLF": (b"text,n\r\na,1\r\nb,2\r\n", ["a", "b"], None),
    "CR only": (b"text,n\ra,1\rb,2\r", ["a", "b"], None),
    "CR only, LF inside quotes": (b'text\r"a\nb"\rc\r', ["a\nb", "c"], None),
    "CRLF and LF mixed": (b"text\r\na\nb\r\n", ["a", "b"], None),
    "all three inside quotes": (b'text\n"a\rb\nc\r\nd"\n', ["a\rb\nc\r\nd"], None),
    "other line separators are text": ("text\na\x0bb\x0cc\x85d\u2028e\n".encode(), ["a\x0bb\x0cc\x85d\u2028e"], None),
    "stray quotes inside unquoted cells": (b'text,n\na "b" c",1\n', ['a "b" c"'], None),
    "inches": (b'text\n27" \xc3\x97 15"\n', ['27" × 15"'], None),
    "extra columns": (b"id,text,stars\n1,a,5\n", ["a"], None),
    "index column without a name": (b",text\n0,a\n1,b\n", ["a", "b"], None),
    "several columns without names": (b"text;;\na;;\nb;;\n", ["a", "b"], "separated by ';'"),
    "header in capitals with spaces": (b" Text ,N\na,1\n", ["a"], "column ' Text ' taken as 'text', 'N' taken as 'n'"),
    "header with a zero-width space": ("text\u200b\na\n".encode(), ["a"], r"column 'text\u200b' taken as 'text'"),
    "empty lines above the header": (b"\n\r\ntext\na\n", ["a"], None),
    "empty cells among several columns": (b"text,n\n,1\na,\n,\n", ["", "a", ""], None),
    "quoted empty cells": (b'text\n""\na\n""\n', ["", "a", ""], None),
    "blank line between rows of one column": (b"text\na\n\nb\n", ["a", "", "b"], "blank lines taken as empty cells: 1"),
    "blank line below the header of one column": (b"text\n\na\n", ["", "a"], "blank lines taken as empty cells: 1"),
    "blank lines at the end of one column": (b"text\na\n\n\n", ["a"], "blank lines at the end left out: 2"),
    "blank lines among several columns": (b"text,n\n\na,1\n\n", ["a"], "blank lines left out: 2"),
    "doubled line ends": (b"text\r\r\na\r\r\nb\r\r\nc\r\r\n", list("abc"), "every second line is blank and left out"),
    "doubled line ends, several columns": (b"text,n\r\r\na,1\r\r\n", ["a"], "blank lines left out: 2"),
    "only white space in a cell": (b"text\n  \n\t\n", ["  ", "\t"], None),
    "spaces around a text": (b"text,n\n  a ,1\n", ["  a "], None),
    "NUL characters": (b"text\na\0b\nlong enough a text\n", ["ab", "long enough a text"], "NUL characters removed: 1"),
    "control characters": (b"text\na\x01\x1b\x7fb\n", ["a\x01\x1b\x7fb"], None),
    "a review of 100,000 characters": (b"text\n" + b"a" * 100_000 + b"\n", ["a" * 100_000], None),
    "emoji": ("text\n👍🏽👨‍👩‍👧\n".encode(), ["👍🏽👨‍👩‍👧"], None),
    "decomposed letters": (
        'text,n\n"чаи\u0306, е\u0308ж",1\n'.encode(),
        ["чай, ёж"],
        "letters written as two characters composed: 2",
    ),
    "marks that make no other letter": ("text\nза\u0301мок\n".encode(), ["за\u0301мок"], None),
    "a title, a date and a blank line above the header": (
        "Отзывы за май;;\n;;\n\ntext;n;\nмала;1;\n".encode(),
        ["мала"],
        "left out above the header: 'Отзывы за май;;\\n;;'; separated by ';'",
    ),
    "lines quoted as a whole": (
        '"text,n"\n"мала,1"\n"""да, но"",2"\n'.encode(),
        ["мала", "да, но"],
        "quotes around whole lines left out",
    ),
    "the header once more, where files were joined": (
        b"text,n\na,1\ntext,n\nb,2\n",
        ["a", "b"],
        "the header once more, left out: 1",
    ),
    "separators at the end of rows, not of the header": (
        b"text;n\na;1;;\nb;2;\n",
        ["a", "b"],
        "separated by ';'; rows with empty cells beyond the header's, left out: 2",
    ),
    "one column, a separator behind each row": (
        b"text\n" + b"a, b;\n" * 10,
        ["a, b"] * 10,
        "a single column, so commas are text; every row ends in ';', which is left out",
    ),
    "one column, a few rows that end in a comma": (
        b"text\na,\nb,\n",
        ["a,", "b,"],
        "a single column, so commas are text",
    ),
    "pandas's index column": (b"Unnamed: 0,text\n0,a\n", ["a"], None),
    "error values in columns that are not read": (b"text,n\na,#N/A\n", ["a"], None),
    "hashes and marks that are no error value": ("text\n#супер!\n#1\n##\n".encode(), ["#супер!", "#1", "##"], None),
    "right-to-left marks and zero-width characters": (
        "text\n\u202bа\u200bб\u200f\n".encode(),
        ["\u202bа\u200bб\u200f"],
        None,
    ),
    "not Russian": ("text\nçok güzel\n很好\n".encode(), ["çok güzel", "很好"], None),
    "duplicates": (b"text\na\na\nA\n", ["a", "a", "A"], None),
    "numbers as text": (b"text\n007\n1.50\n1e5\n", ["007", "1.50", "1e5"], None),
    "words for nothing": (b"text\nNA\nnull\nNone\nnan\nTrue\n", ["NA", "null", "None", "nan", "True"], None),
    "formula-like cells": (b"text\n=1+1\n@SUM\n+7\n-1\n", ["=1+1", "@SUM", "+7", "-1"], None),
    "comment-like cells": (b"text\n# a\n// b\n", ["# a", "// b"], None),
    "a backslash escapes nothing": (b'text\n"a\\"\nb\\n\n', ["a\\", "b\\n"], None),
    "one review spoilt long ago": (
        (TEXT * 4 + SPOILT).encode(),
        [*LONG, "text"] * 3 + [*LONG, SPOILT],
        "letters spoilt by a wrong encoding kept as they are (first in line 17)",
    ),
}


@pytest.mark.parametrize("what", READ)
def test_a_messy_file_is_read_right_and_a_repair_is_said_in_one_line(tmp_path, capsys, what):
    content, texts, said = READ[what]
    path = tmp_path / "test.csv"
    path.write_bytes(content)
    assert read_table(path, ["text"])["text"].tolist() == texts
    assert capsys.readouterr().out == (f"test.csv: {said}.\n" if said else "")


REFUSED = {  # what it is: (bytes, message)
    "empty": (b"", "is empty; it needs a header line with 'text'"),
    "only a byte order mark": (b"\xef\xbb\xbf", "is empty"),
    "only blank lines": (b"\r\n\r\n", "is empty"),
    "header only": (b"text\n", "has a header but no rows; add reviews"),
    "header and blank lines": (b"text\n\n\n", "has a header but no rows"),
    "header only, several columns": (b"text,n\n", "has a header but no rows"),
    "no header": ("Сапоги малы\nТкань\n".encode(), "has no column 'text'; it has 'Сапоги малы'. Rename the column"),
    "another name": ("Отзыв;n\na;1\n".encode(), "has no column 'text'; it has 'Отзыв', 'n'. Rename"),
    "another separator": (b"text|n\na|1\n", r"has no column 'text'; it has 'text\|n'"),
    "a long first line": (b"a" * 5_000, "it has 'a{40}'. Rename"),
    "the column twice": (b"text,text\na,b\n", "several columns 'text'; rename or delete"),
    "the column twice but for case": (b"text,n,TEXT \na,1,b\n", "several columns 'text'"),
    "another column twice": (b"text,n,n\na,1,2\n", "several columns 'n'"),
    "too many cells": (b"text,n\na,1\nb,c,2\n", "row 2 .* has 3 cells between ',', and the header has 2. Put cells"),
    "too few cells": (b"text,n\na,1\n\nb\n", "row 2 .* has 1 cells between ',', and the header has 2"),
    "too many cells between semicolons": (b"text;n\na;b;1\n", "row 1 .* has 3 cells between ';'"),
    "a quote that never closes": (b'text\na\n"b\nc\n', "row 2 cannot be read as CSV: a cell opens with a double quote"),
    "a quote that another cell's quote closes": (b'text,n\n"a,1\n"b",2\n', "row 1 cannot be read as CSV"),
    "text behind a closing quote": (b'text\na\n"b" c\n', "row 2 cannot be read as CSV.*double the quotes inside"),
    "quotes not doubled": (b'text\n"a "b" c"\n', "row 1 cannot be read as CSV"),
    "a quote that swallows the file": (b'text\na\n"b\n' + b"cc\n" * 50_000, "row 2 .* over 131,072 characters"),
    "a quote that never closes in the header": (b'"text\na\n', "the header line cannot be read as CSV"),
    "CR and LF mixed": (b"text\na\nb\rc\n", "row 2 ends in another line break.*Put cells"),
    "LF after CR": (b"text\ra\rb\nc\r", "row 2 ends in another line break"),
    "Russian too short to be certain": ("text\nотзыв\n".encode("cp1251"), r"is not UTF-8 \(line 2\).*'CSV UTF-8'"),
    "Latin-1": ("text\ncafé très agréable à côté\n".encode("latin-1"), "is not UTF-8"),
    "Latin-1, lone letters": (("text\n" + "il est à Paris\n" * 60).encode("latin-1"), "is not UTF-8"),
    **{name: (TEXT.encode(name), "is not UTF-8") for name in ("iso8859-5", "koi8-r", "cp866", "mac-cyrillic")},
    "UTF-8 cut within a letter": (TEXT.encode()[:-3], r"is not UTF-8 \(line 4\)"),
    "UTF-8 with a broken byte": (TEXT.encode() + b"\xff\n", r"is not UTF-8 \(line 5\)"),
    "Windows-1251 with a row of UTF-8": (TEXT.encode("cp1251") * 20 + "Отлично\n".encode(), "is not UTF-8"),
    "UTF-16 cut within a letter": (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], "begins as UTF-16 and is damaged"),
    "UTF-16 without a byte order mark": (TEXT.encode("utf-16-le"), "UTF-16 without a byte order mark"),
    "UTF-8 saved as if it were Windows-1251": (
        TEXT.replace("И", "и").encode().decode("cp1251", "replace").encode(),
        "line 2: .* was once read in a wrong encoding; export the file",
    ),
    "UTF-8 saved as if it were Latin-1": (TEXT.encode().decode("latin-1").encode(), "read in a wrong encoding"),
    "a picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\0\xff\xfe", "is not UTF-8 .*line 1"),
    "zero bytes": (b"\0" * 512, "is a binary file"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "is a gzip archive; unpack it"),
    "an error value of a Russian Excel": (
        "text;n\nмала;1\n#ИМЯ?;2\n #ЗНАЧ! ;3\n".encode(),
        r"rows 2, 3: '#ИМЯ\?', ' #ЗНАЧ! ' is a spreadsheet's error and no text. Put what stood there back",
    ),
    "error values in many rows": (b"text\n" + b"#REF!\n" * 20, "rows 1, 2, 3, 4, 5, 6, 7, 8 and 12 more: '#REF!' is"),
    "a column too narrow for its number": (b"text\n########\n", "row 1: '########' is a spreadsheet's error"),
    "a header far below": (b"a\n" * 10 + b"text\nb\n", "has no column 'text'; it has 'a'"),
    "an .xlsx under another name": (b"PK\x03\x04\x14\0\x06\0", "is an Excel workbook .*save the sheet as 'CSV UTF-8'"),
    "an .xls under another name": (b"\xd0\xcf\x11\xe0\xa1\xb1", "is an old Excel workbook"),
    "JSON": (b'[{"text": "a"}]', "is JSON, and a CSV file is needed; save its records as CSV"),
    "JSON Lines": (b'\xef\xbb\xbf\n{"text": "a"}\n', "is JSON"),
    "a web page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "is a web page .*download the file itself again"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is a Git LFS pointer and not the file itself.*'git lfs pull'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_uncertain_file_is_refused_in_one_line_with_place_and_remedy(tmp_path, capsys, what):
    content, message = REFUSED[what]
    path = tmp_path / "test.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"test.csv.*{message}") as refusal:
        read_table(path, ["text"])
    assert "\n" not in str(refusal.value) and len(str(refusal.value)) < len(str(path)) + 400
    assert capsys.readouterr().out == ""


def test_all_columns_asked_for_are_needed_and_the_lacking_ones_named(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(b"id;Text\n1;a\n")
    assert read_table(path, ["text", "id"]).columns.tolist() == ["id", "text"]
    with pytest.raises(UserError, match="has no column 'category', 'part'; it has 'id', 'Text'"):
        read_table(path, ["text", "category", "part"])


SAMPLE = pd.read_csv(PROJECT / "data" / "sample" / "train.csv", dtype=str, keep_default_na=False)["text"].tolist()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_the_sample_survives_every_encoding_and_separator(tmp_path, encoding, separator):
    texts = [text.encode(encoding, "replace").decode(encoding) for text in SAMPLE]
    table = pd.DataFrame({"text": texts, "n": "1"})
    table.to_csv(tmp_path / "train.csv", sep=separator, index=False, encoding=encoding)
    assert read_table(tmp_path / "train.csv", ["text"])["text"].tolist() == texts


def pandas_csv(table, **options):
    return table.to_csv(index=False, **options)


def csv_module(table, delimiter):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([table.columns, *table.itertuples(index=False)])
    return file.getvalue()


MARKS = "".join(map(chr, range(0x300, 0x370)))  # join the letter before them
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0" + MARKS), max_size=20) | st.text(
    "а,;\t\"\n\r '", max_size=8
)
# Python before 3.13 does not quote a lone carriage return that the line end does not hold.
WITHOUT_CR = CELLS.filter(lambda cell: "\r" not in cell)
WRITERS = {
    "pandas": (WITHOUT_CR, pandas_csv),
    "pandas, all quoted": (CELLS, lambda table: pandas_csv(table, quoting=csv.QUOTE_ALL)),
    "csv module, commas": (CELLS, lambda table: csv_module(table, ",")),
    "csv module, semicolons": (CELLS, lambda table: csv_module(table, ";")),
    "csv module, tabs": (CELLS, lambda table: csv_module(table, "\t")),
}


@pytest.mark.parametrize("writer", WRITERS)
@limits(deadline=None)
@given(data=st.data(), names=st.sampled_from([["text"], ["text", "n"], ["a", "text", "b"]]))
def test_any_table_of_texts_reads_back_equal(tmp_path_factory, writer, data, names):
    cells, write = WRITERS[writer]
    rows = data.draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), min_size=1, max_size=6))
    table = pd.DataFrame(rows, columns=names, dtype=str)
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(write(table).encode())
    assert read_table(path, ["text"]).to_dict("list") == table.to_dict("list")


@given(
    data=st.binary(max_size=60) | st.text('text,;\t"\n\r\0а\ufeff', max_size=40).map(str.encode), header=st.booleans()
)
@limits(deadline=None)
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, data, header):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(b"text\n" * header + data)
    try:
        table = read_table(path, ["text"])
    except UserError as refusal:
        assert str(path) in str(refusal) and "\n" not in str(refusal)
    else:
        assert len(table) and all(isinstance(text, str) for text in table["text"])


def test_a_million_rows_are_read_in_bounded_time(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text\n" + "".join(f'"Отзыв, {n}"\n' for n in range(1_000_000)), encoding="utf-8")
    start = time.process_time()
    table = read_table(path, ["text"])
    assert time.process_time() - start < 30  # seconds of one core; measured: 2.6
    assert len(table) == 1_000_000 and table["text"].iloc[-1] == "Отзыв, 999999"


def test_memory_stays_within_a_few_times_the_file(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text\n" + "Хороший отзыв с запятой, и не одной\n" * 50_000, encoding="utf-8")
    tracemalloc.start()
    try:
        read_table(path, ["text"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * path.stat().st_size
