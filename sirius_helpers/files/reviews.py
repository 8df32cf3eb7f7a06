"""Reviews in, submission out: check tables of reviews, give each review a stable id, write CSV files.

Every complaint names the file, the row and what to do. Row numbers count the table's rows from 1 without the
header, because a review may hold line breaks.

    train = read_reviews(settings.data / "train.csv")      # columns id, text
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..errors import UserError
from .categories import Category, by_any_name, label_named
from .journal import read_records, write_atomically
from .runs import Run
from .tables import listed, read_table

EXPORTED = "category"  # the submission's single column


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


def read_labels(run: Run) -> pd.DataFrame:
    """What the labeler said: columns id, text, category, labeler, probabilities (a dictionary), margin."""
    return pd.DataFrame(read_records(run.need("labels.jsonl")))


def read_texts(path: Path) -> list[str]:
    """Texts to classify: every row, in order, empty ones too, because each gets a prediction."""
    return read_table(path, ["text"])["text"].tolist()


def review_ids(texts: Iterable[str]) -> list[str]:
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
        raise UserError(f"{path} needs a column 'category' beside 'text'; it has {listed(list(table.columns))}.")
    column = "category" if "category" in others else others[0]
    names = by_any_name(taxonomy)
    found: dict[str, str] = {}
    renamed: Counter[str] = Counter()
    for row, (text, name) in enumerate(zip(table["text"], table[column].str.strip(), strict=True), start=1):
        key, label = normalised(text), label_named(name, names, f"{path}, row {row}")
        if found.setdefault(key, label) != label:
            raise UserError(
                f"{path}, row {row}: the same text has two categories, {found[key]!r} and {label!r}; keep one."
            )
        renamed[name] += name != label
    for name, count in renamed.items():
        if count:
            print(f"{path.name}: {count} x {name!r} filed under {names[name]!r} (its alias).")
    return found


def write_submission(path: Path, categories: Iterable[str]) -> None:
    """The single column `category`, a row for each test row, in order."""
    write_csv(path, pd.DataFrame({EXPORTED: list(categories)}))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table in one step, so that a killed run leaves no half of it."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # Python before 3.13 leaves a cell with a lone carriage return unquoted
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_atomically(path, text.encode("utf-8", "surrogatepass"))
