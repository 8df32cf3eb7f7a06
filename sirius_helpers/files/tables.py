"""A CSV file to a table of texts: what is certain is repaired and said in one line, anything else is refused.

The separator is whichever lets the header name the columns asked for. Under a header of one column commas are text
(Excel's are, where its list separator is the semicolon) and blank lines empty cells; among several they are no rows.

    table = read_table(Path("train.csv"), ["text"])        # every column is text, an empty cell is ""
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..kinds import Json
from .decoding import read_text, tell

SEPARATORS = (",", ";", "\t")
QUOTING = "Put cells with separators or line breaks into double quotes, and double the quotes inside them."
_PREAMBLE = re.compile(r"[\r\n]*(?:sep=.[\r\n]+)?[\r\n]*")  # `sep=;` tells Excel the separator; the header does too
_NAMELESS = re.compile(r"unnamed: ?\d+")  # what pandas calls the index column that it wrote
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
# What a spreadsheet shows in place of a value. A text that begins with =, +, - or @ was taken for a formula.
ERROR_VALUE = re.compile(
    r"#(N/A|NAME\?|VALUE!|REF!|DIV/0!|NUM!|NULL!|SPILL!|CALC!|ERROR!|"
    r"Н/Д|ИМЯ\?|ЗНАЧ!|ССЫЛКА!|ДЕЛ/0!|ЧИСЛО!|ПУСТО!|ПЕРЕНОС!|ВЫЧИСЛ!)|#{3,}|Err:\d{3}"
)


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """A CSV file as text columns, their names trimmed and in lower case; columns without a name are left out.

    One line says what was repaired. UserError where a `required` column or all rows are lacking, or it is not certain.
    """
    text, notes = read_text(path)
    text = _unquoted(_PREAMBLE.sub("", text, count=1), required, notes)
    separator, header, start = _header(path, text, required)
    if above := text[:start].strip():
        notes.append(f"left out above the header: {above[:40]!r}")
    names = [_plain(name) for name in header]
    renamed = [f"{a!r} taken as {b!r}" for a, b in zip(header, names, strict=True) if b not in ("", a)]
    notes += ["column " + ", ".join(renamed)] * bool(renamed)
    if len(header) == 1:
        rows = _single_column(path, text[start:], notes)
    else:
        notes += [f"separated by {separator!r}"] * (separator != ",")
        rows = _rows(path, text[start:], separator, len(header), notes)
        if again := rows.count(header):
            notes.append(f"the header once more, left out: {again}")
            rows = [row for row in rows if row != header]
    if not rows:
        raise UserError(f"{path} has a header but no rows; add reviews below it.")
    table = pd.DataFrame(rows, columns=names, dtype=str)[[name for name in names if name]]
    for name in required:
        if wrong := {row: cell for row, cell in enumerate(table[name], 1) if ERROR_VALUE.fullmatch(cell.strip())}:
            raise UserError(
                f"{path}, {numbered(wrong)}: {listed([*dict.fromkeys(wrong.values())])} is a spreadsheet's error and "
                f"no {name}. Put what stood there back (as text: = + - @ begin a formula), or empty the cell."
            )
    tell(path, notes)
    return table


def records_of(table: pd.DataFrame) -> list[Json]:
    """The rows of a table, a name for each value."""
    return table.to_dict("records")  # type: ignore[return-value]  # the stubs allow other names than text


def listed(names: Sequence[str]) -> str:
    """Names of columns for a message: long ones and long lists are cut."""
    return ", ".join([*(repr(str(name)[:40]) for name in names[:8]), *["…"] * (len(names) > 8)])


def numbered(rows: Iterable[int]) -> str:
    """Numbers of rows for a message; a long list is cut."""
    numbers = list(rows)
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"row{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:8]))}{more}"


def _unquoted(text: str, required: Sequence[str], notes: list[str]) -> str:
    """The text without quotes around whole lines: they come from a spreadsheet that took each line for one cell."""
    with suppress(csv.Error):
        header = next(_records(text, ","))[0] if text.startswith('"') else []
        if len(header) == 1 and any({*required} < {*map(_plain, header[0].split(mark))} for mark in SEPARATORS):
            rows = [cells for cells, _ in _records(text, ",")]
            if all(len(cells) < 2 for cells in rows):
                notes.append("quotes around whole lines left out")
                return "".join(f"{cells[0] if cells else ''}\n" for cells in rows)
    return text


def _header(path: Path, text: str, required: Sequence[str]) -> tuple[str, list[str], int]:
    """The separator, the header's cells under it, and where in the text the header begins."""
    if text.lstrip()[:1] in ("{", "["):
        raise UserError(f"{path} is JSON, and a CSV file is needed; save its records as CSV.")
    starts = [0, *(line.end() for line in islice(_LINE.finditer(text), 9))]  # exports put a title and a date above it
    for start in starts:
        found = _first_cells(text[start:])
        if any({*required} <= {*map(_plain, cells)} for cells in found.values()):
            break
    else:
        start, found = 0, _first_cells(text)
    if not found:
        raise UserError(f"{path}: the header line cannot be read as CSV. {QUOTING}")
    missing = {s: [name for name in required if name not in map(_plain, cells)] for s, cells in found.items()}
    separator = min(found, key=lambda s: (len(missing[s]), -len(found[s])))
    header, absent = found[separator], listed(missing[separator])
    if not header:
        raise UserError(f"{path} is empty; it needs a header line with {listed(required)}.")
    if absent:
        raise UserError(f"{path} has no column {absent}; it has {listed(header)}. Rename the column in the header.")
    names = Counter(map(_plain, header))
    if twice := [name for name, times in names.items() if name and times > 1]:
        raise UserError(f"{path} has several columns {listed(twice)}; rename or delete all but one.")
    return separator, header, start


def _first_cells(text: str) -> dict[str, list[str]]:
    """The first record's cells under each separator that does not tear a quoted one."""
    found = {}
    for separator in SEPARATORS:
        with suppress(csv.Error):
            found[separator] = next(_records(text, separator), ([], ""))[0]
    return found


def _plain(name: str) -> str:
    """A column name without case, invisible characters and spaces around it; nothing where it is none."""
    plain = "".join(letter for letter in name if letter.isprintable()).strip().casefold()
    return "" if _NAMELESS.fullmatch(plain) else plain


def _single_column(path: Path, text: str, notes: list[str]) -> list[list[str]]:
    """The rows below a header of one column."""
    try:
        rows = _rows(path, text, ",", 1, notes)
    except UserError:
        rows = _rows(path, text, "\ud800", 1, notes)  # no decoded text holds a lone surrogate
        notes.append("a single column, so commas are text")
    last = max((number for number, row in enumerate(rows, start=1) if row), default=0)
    if last >= 6 and not any(rows[:last:2]) and all(rows[1:last:2]):
        notes.append("every second line is blank and left out")
        return rows[1:last:2]
    if last < len(rows):
        notes.append(f"blank lines at the end left out: {len(rows) - last}")
    if blank := rows[:last].count([]):
        notes.append(f"blank lines taken as empty cells: {blank}")
    cells = [row[0] if row else "" for row in rows[:last]]
    mark = cells[0][-1:] if cells else ""
    if mark in SEPARATORS and len(cells) >= 10 and all(cell.endswith(mark) for cell in cells):  # by no chance
        notes.append(f"every row ends in {mark!r}, which is left out")
        cells = [cell.removesuffix(mark) for cell in cells]
    return [[cell] for cell in cells]


def _rows(path: Path, text: str, separator: str, width: int, notes: list[str]) -> list[list[str]]:
    """The rows below the header, `width` cells each; in a file of one column a blank line is a row without cells."""
    rows: list[list[str]] = []
    ends: dict[str, int] = {}  # line end -> the first row that has it; the header is row 0
    blank = surplus = 0
    try:
        for cells, end in _records(text, separator):
            if cells:
                ends.setdefault(end, len(rows))
                if 1 < width < len(cells) and not any(cells[width:]):
                    cells, surplus = cells[:width], surplus + 1
            elif width > 1:
                blank += 1
                continue
            rows.append(cells)
    except csv.Error as error:
        long = f"a cell of over {csv.field_size_limit():,} characters; its closing quote may be missing"
        reason = long if "field larger" in str(error) else "a cell opens with a double quote and does not end with one"
        raise UserError(f"{path}, row {len(rows)} cannot be read as CSV: {reason}. {QUOTING}") from None
    for number, cells in enumerate(rows):
        if cells and len(cells) != width:
            reason = f"it has {len(cells)} cells between {separator!r}, and the header has {width}"
            raise UserError(f"{path}, row {number} cannot be read as CSV: {reason}. {QUOTING}")
    lone, newlines = ends.pop("\r", None), [row for end, row in ends.items() if end]
    if lone is not None and newlines:  # a lone carriage return may be part of a text
        raise UserError(
            f"{path}, row {max(lone, min(newlines))} ends in another line break than the rows above it, so what ends a "
            f"row and what is text is not certain. {QUOTING}"
        )
    notes += [f"blank lines left out: {blank}"] * (blank > 0)
    notes += [f"rows with empty cells beyond the header's, left out: {surplus}"] * (surplus > 0)
    return rows[1:]


def _records(text: str, separator: str) -> Iterator[tuple[list[str], str]]:
    """The cells of each record, the header's first, and the line end behind them; a blank line has no cells."""
    line = ""

    def lines() -> Iterator[str]:
        nonlocal line
        for match in _LINE.finditer(text):
            line = match.group()
            yield line

    for cells in csv.reader(lines(), delimiter=separator, strict=True):
        yield cells, line[len(line.rstrip("\r\n")) :]
