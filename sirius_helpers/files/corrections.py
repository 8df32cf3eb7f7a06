"""Labels set right by hand: `corrections.csv` (id or text, category), which the stage "review" puts over the labels.

A person may write the file in any editor, or leave it to `correct`; both can be mixed.

    correct(settings, "3f2a90b1c7d4", "обувь")      # kept at once; the stage "review" picks it up
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..errors import UserError
from ..settings import Settings
from .categories import Category, by_any_name, label_named, read_categories
from .lock import held
from .reviews import normalised, read_labels, write_csv
from .runs import Run
from .tables import read_table

FILE = "corrections.csv"
BY_HAND = "corrected by hand"  # the labeler of a corrected label


def correct(settings: Settings, id: str, category: str) -> pd.DataFrame:
    """Write a review's right category down; a later correction of the same review replaces the earlier one.

    Returns all corrections, columns as in the file. Raises UserError for an unknown id or category.
    """
    run = Run(settings.folder)
    labels = read_labels(run)
    known = labels[labels["id"] == id]
    if known.empty:
        raise UserError(f"no review has the id {id!r}; see the column id of the labels.")
    path = run.path(FILE)
    right = label_named(category.strip(), by_any_name(read_categories(settings.data)), f"review {id}")
    with held(run.folder):
        table = read_table(path, ["category"]) if path.exists() else pd.DataFrame(columns=["id", "category"])
        key = key_column(table, path)
        row = {"id": id, "text": known["text"].iloc[0], "category": right}
        table = table[table[key].map(normalised) != normalised(row[key])]
        added = pd.DataFrame([{name: row.get(name, "") for name in table.columns}])
        whole: pd.DataFrame = pd.concat([table, added], ignore_index=True)
        write_csv(path, whole)
    return whole


def correct_new(settings: Settings, right: Mapping[str, str]) -> None:
    """`correct` for each id that has no correction yet: done once more, this undoes nobody's later choice."""
    given = given_by_hand(settings)
    for name, category in right.items():
        if name not in given:
            correct(settings, name, category)
        elif given[name] != category:
            print(f"{name} stays {given[name]!r}: it was corrected before, and CORRECT does not undo that.")


def given_by_hand(settings: Settings) -> dict[str, str]:
    """The id of each review that was corrected so far -> its category by hand."""
    run = Run(settings.folder)
    if not run.path(FILE).exists():
        return {}
    return read_corrections(run.path(FILE), read_categories(settings.data), read_labels(run))


def corrected(labels: pd.DataFrame, path: Path, taxonomy: list[Category]) -> pd.DataFrame:
    """The labels with a file's corrections on top."""
    given = labels["id"].map(read_corrections(path, taxonomy, labels))
    labels = labels.copy()
    labels.loc[given.notna(), "category"] = given.dropna()
    labels.loc[given.notna(), "labeler"] = BY_HAND
    return labels


def read_corrections(path: Path, taxonomy: list[Category], reviews: pd.DataFrame) -> dict[str, str]:
    """The id of each corrected review -> its category by hand; of two rows on one review the later holds.

    `reviews` have id and text; every row of the file must fit one of them and a category. As with imported labels,
    a text may differ in case and spacing, and a category may go by an alias.
    """
    table = read_table(path, ["category"])
    key, names = key_column(table, path), by_any_name(taxonomy)
    ids = reviews["id"].groupby(reviews[key].map(normalised)).agg(list)
    found: dict[str, str] = {}
    for number, (name, value) in enumerate(zip(table["category"], table[key], strict=True), start=1):
        place = f"{path}, row {number}"
        label = label_named(name.strip(), names, place)
        if normalised(value) not in ids:
            raise UserError(f"{place}: no review has the {key} {value[:60]!r}; correct the row.")
        found |= dict.fromkeys(ids[normalised(value)], label)
    return found


def key_column(table: pd.DataFrame, path: Path) -> str:
    """The column that says which review a row is about."""
    key = next((name for name in ("id", "text") if name in table.columns), None)
    if key is None:
        raise UserError(f"{path} needs a column 'id' or 'text' beside 'category'.")
    return key
