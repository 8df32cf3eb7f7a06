"""CSV in, CSV out: read and check tables of reviews, give each review a stable id, write the submission.

Every complaint names the file, the row and what to do. Row numbers count the table's rows from 1 without the
header, because a review may hold line breaks.

    train = read_reviews(settings.data / "train.csv")      # columns id, text
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .categories import Category, by_any_name, labels_of
from .errors import UserError
from .journal import write_atomically

EXPORTED = "category"  # the submission's single column


def read_table(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """A UTF-8, comma-separated file as text columns; empty cells are empty strings."""
    if not path.exists():
        raise UserError(f"{path} does not exist; put the file there, or correct DATA (or LABELS).")
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a CSV file is needed.")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; it needs a header line with {_columns(required)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as CSV in UTF-8.") from None
    except pd.errors.ParserError as error:
        raise UserError(
            f"{path} cannot be read as CSV: {str(error).strip()}. Put texts with commas in double quotes and "
            "double the quotes inside them."
        ) from None
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column {_columns(missing)}; it has {_columns(table.columns)}. "
            "Rename the column in the header line."
        )
    if table.empty:
        raise UserError(f"{path} has a header but no rows; add reviews below it.")
    return table


def read_reviews(path: Path) -> pd.DataFrame:
    """Training reviews: columns id, text. Rows without text are left out, and it says so."""
    table = read_table(path, ["text"])[["text"]]
    blank = table["text"].str.strip() == ""
    if blank.all():
        raise UserError(f"{path}: every cell of the column 'text' is empty.")
    if blank.any():
        rows = ", ".join(str(row + 1) for row in table.index[blank][:5])
        print(f"{path.name}: {int(blank.sum())} rows without text left out (row {rows}).")
    table = table[~blank].reset_index(drop=True)
    return pd.DataFrame({"id": review_ids(table["text"]), "text": table["text"]})


def read_texts(path: Path) -> list[str]:
    """Texts to classify: every row, in order, empty ones too, because each gets a prediction."""
    return read_table(path, ["text"])["text"].tolist()


def review_ids(texts: Sequence[str]) -> list[str]:
    """An id for each text, from the text alone, so that adding rows changes no other row's id.

    A repeated text gets -2, -3, … behind it.
    """
    seen: Counter[str] = Counter()
    ids = []
    for text in texts:
        stem = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        seen[stem] += 1
        ids.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return ids


def normalised(text: str) -> str:
    """A text without case and spacing: what makes two copies of one review equal."""
    return " ".join(text.casefold().split())


def read_labelled(path: Path, taxonomy: list[Category]) -> dict[str, str]:
    """Labels somebody else made: normalised text -> category.

    The category stands in the column `category`, or in the only column beside `text`. Aliases of the taxonomy
    are taken as their label; any other unknown name is refused.
    """
    table = read_table(path, ["text"])
    others = [name for name in table.columns if name != "text"]
    if "category" not in others and len(others) != 1:
        raise UserError(f"{path} needs a column 'category' beside 'text'; it has {_columns(table.columns)}.")
    column = "category" if "category" in others else others[0]
    names = by_any_name(taxonomy)
    found: dict[str, str] = {}
    renamed: Counter[str] = Counter()
    for row, (text, name) in enumerate(zip(table["text"], table[column].str.strip(), strict=True), start=1):
        if name not in names:
            raise UserError(
                f"{path}, row {row}: {name!r} is not a category; allowed are {', '.join(labels_of(taxonomy))}. "
                "Correct the row, or name it under aliases of a category in categories.toml."
            )
        key = normalised(text)
        if found.setdefault(key, names[name]) != names[name]:
            raise UserError(
                f"{path}, row {row}: the same text has two categories, {found[key]!r} and {names[name]!r}; keep one."
            )
        renamed[name] += name != names[name]
    for name, count in renamed.items():
        if count:
            print(f"{path.name}: {count} x {name!r} filed under {names[name]!r} (its alias).")
    return found


def write_submission(path: Path, categories: Sequence[str]) -> None:
    """The single column `category`, a row for each test row, in order."""
    write_csv(path, pd.DataFrame({EXPORTED: list(categories)}))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table in one step, so that a killed run leaves no half of it."""
    write_atomically(path, table.to_csv(index=False, lineterminator="\n").encode("utf-8", "surrogatepass"))


def _columns(names: Sequence[str]) -> str:
    return ", ".join(repr(str(name)) for name in names)
