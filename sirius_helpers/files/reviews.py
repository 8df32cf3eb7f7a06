"""Reviews in, tables out: what a table of reviews, labels or corrections must hold, and CSV files of our own.

Every complaint names the file, the row and what to do. Row numbers count the table's rows from 1 without the
header, because a review may hold line breaks.

    train = read_reviews(settings.data / "train.csv")      # columns id, text
    labels = read_csv(run.need("labels.csv"))              # what `write_csv` wrote
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..settings import Settings
from .categories import Category, by_any_name, label_named, read_categories
from .journal import read_records, write_atomically
from .lock import run_lock
from .runs import Run
from .tables import listed, read_table

CORRECTIONS = "corrections.csv"  # id or text, category: a run's labels set right by hand
BY_HAND = "corrected by hand"  # the labeler of a corrected label
TRAIN, VALIDATION, TEST = PARTS = ("train", "validation", "test")  # of split.csv
EXAMPLE = "example"  # the source_id of a category's own phrase
# Columns of our own tables that hold text, also where it looks like a number or like nothing.
WORDS = ("id", "text", "category", "labeler", "source_id", "part", "predicted", "suggested")


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

    A repeated text gets -2, -3, … after it.
    """
    stems = pd.Series([hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12] for text in texts])
    earlier = stems.groupby(stems).cumcount()
    return [stem if not n else f"{stem}-{n + 1}" for stem, n in zip(stems, earlier, strict=True)]


def normalised(text: str) -> str:
    """A text without case and spacing: what makes two copies of one review equal."""
    return " ".join(text.casefold().split())


def read_labelled(path: Path, taxonomy: list[Category]) -> dict[str, str]:
    """Labels somebody else made: normalised text -> category.

    The category stands in the column `category`, or in the only column beside `text`; it may go by an alias.
    """
    table = read_table(path, ["text"])
    others = [name for name in table.columns if name != "text"]
    if "category" not in others and len(others) != 1:
        raise UserError(f"{path} needs a column 'category' beside 'text'; it has {listed(list(table.columns))}.")
    given = table["category" if "category" in others else others[0]].str.strip()
    names = by_any_name(taxonomy)
    found: dict[str, str] = {}
    for row, (text, name) in enumerate(zip(table["text"], given, strict=True), start=1):
        key, label = normalised(text), label_named(name, names, f"{path}, row {row}")
        if found.setdefault(key, label) != label:
            both = f"{found[key]!r} and {label!r}"
            raise UserError(f"{path}, row {row}: the same text has two categories, {both}; keep one.")
    for name, count in Counter(given).items():
        if names[name] != name:
            print(f"{path.name}: {count} x {name!r} filed under {names[name]!r} (its alias).")
    return found


def read_corrections(path: Path, taxonomy: list[Category], reviews: pd.DataFrame) -> dict[str, str]:
    """The id of each corrected review -> its category by hand; of two rows on one review the later holds.

    `reviews` have id and text; every row of the file must fit one of them and a category, as imported labels do.
    """
    table = read_table(path, ["category"])
    key, names = key_column(table, path), by_any_name(taxonomy)
    ids = reviews["id"].groupby(reviews[key].map(normalised)).agg(list)
    found: dict[str, str] = {}
    for row, (name, value) in enumerate(zip(table["category"], table[key], strict=True), start=1):
        label = label_named(name.strip(), names, f"{path}, row {row}")
        if normalised(value) not in ids:
            raise UserError(f"{path}, row {row}: no review has the {key} {value[:60]!r}; correct the row.")
        found |= dict.fromkeys(ids[normalised(value)], label)
    return found


def key_column(corrections: pd.DataFrame, path: Path) -> str:
    """The column that says which review a row is about."""
    for name in ("id", "text"):
        if name in corrections.columns:
            return name
    raise UserError(f"{path} needs a column 'id' or 'text' beside 'category'.")


def corrected(settings: Settings) -> dict[str, str]:
    """The id of each review that was corrected so far -> its category by hand."""
    run = Run(settings.folder)
    if not run.path(CORRECTIONS).exists():
        return {}
    return read_corrections(run.path(CORRECTIONS), read_categories(settings.data), read_labels(run))


def correct(settings: Settings, id: str, category: str) -> pd.DataFrame:
    """Write a review's right category down; a later correction of the same review replaces the earlier one.

    Returns all corrections, columns as in the file. Raises UserError for an unknown id or category.
    """
    run = Run(settings.folder)
    texts = read_labels(run).set_index("id")["text"]
    if id not in texts:
        raise UserError(f"no review has the id {id!r}; see the column id of the labels.")
    right = label_named(category.strip(), by_any_name(read_categories(settings.data)), f"review {id}")
    path, row = run.path(CORRECTIONS), {"id": id, "text": texts[id], "category": right}
    with run_lock(run.folder):
        table = read_table(path, ["category"]) if path.exists() else pd.DataFrame(columns=["id", "category"])
        key = key_column(table, path)
        table = table[table[key].map(normalised) != normalised(row[key])].reset_index(drop=True)
        table.loc[len(table)] = [row.get(name, "") for name in table.columns]
        write_csv(path, table)
    return table


def correct_new(settings: Settings, right: Mapping[str, str]) -> None:
    """`correct` for each id that has no correction yet: done once more, this undoes nobody's later choice."""
    given = corrected(settings)
    for id, category in right.items():
        if id not in given:
            correct(settings, id, category)
        elif given[id] != category:
            print(f"{id} stays {given[id]!r}: it was corrected before, and CORRECT does not undo that.")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table in one step, so that a killed run leaves no half of it."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # Python before 3.13 leaves a cell with a lone carriage return unquoted
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_atomically(path, text.encode("utf-8", "surrogatepass"))


def read_csv(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """A table that `write_csv` wrote: texts to the letter (WORDS), the rest as numbers and truth values."""
    return pd.read_csv(path, usecols=columns, keep_default_na=False, dtype=dict.fromkeys(WORDS, str))
