"""Labels set right by hand: `corrections.csv` (id or text, category), which the stage "review" puts over the labels.

A person may write the file in any editor, or leave it to `correct`; both can be mixed.

    correct(settings, "3f2a90b1c7d4", "обувь")      # kept at once; the stage "review" picks it up
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from .categories import Category, labels_of, read_categories
from .errors import UserError
from .journal import read_records
from .locks import held
from .reviews import write_csv
from .runs import Run
from .settings import Settings
from .tables import read_table

FILE = "corrections.csv"
BY_HAND = "corrected by hand"  # the labeler of a corrected label


def correct(settings: Settings, id: str, category: str) -> pd.DataFrame:
    """Write a review's right category down; a later correction of the same review replaces the earlier one.

    Returns all corrections, columns as in the file. Raises UserError for an unknown id or category.
    """
    run = Run(settings.folder)
    labels = pd.DataFrame(read_records(run.need("labels.jsonl")))[["id", "text"]]
    known = labels[labels["id"] == id]
    if known.empty:
        raise UserError(f"no review has the id {id!r}; see the column id of the labels.")
    allowed = labels_of(read_categories(settings.data))
    if category not in allowed:
        raise UserError(f"{category!r} is not a category; allowed are {', '.join(allowed)}.")
    path = run.path(FILE)
    with held(run.folder):
        table = read_table(path, ["category"]) if path.exists() else pd.DataFrame(columns=["id", "category"])
        key = key_column(table, path)
        row = {"id": id, "text": known["text"].iloc[0], "category": category}
        table = table[table[key] != row[key]]
        added = pd.DataFrame([{name: row.get(name, "") for name in table.columns}])
        whole: pd.DataFrame = pd.concat([table, added], ignore_index=True)
        write_csv(path, whole)
    return whole


def corrected(labels: pd.DataFrame, path: Path, taxonomy: list[Category]) -> pd.DataFrame:
    """The labels with a file's corrections on top; every row of the file must fit a review and a category."""
    table = read_table(path, ["category"])
    key = key_column(table, path)
    labels = labels.copy()
    allowed = labels_of(taxonomy)
    for number, row in enumerate(table.to_dict("records"), start=1):
        hit = labels[key] == row[key]
        if row["category"] not in allowed:
            raise UserError(
                f"{path}, row {number}: {row['category']!r} is not a category; allowed are {', '.join(allowed)}."
            )
        if not hit.any():
            raise UserError(f"{path}, row {number}: no review has the {key} {row[key][:60]!r}; correct the row.")
        labels.loc[hit, ["category", "labeler"]] = [row["category"], BY_HAND]
    return labels


def read_corrections(path: Path) -> dict[str, str]:
    """A review's id, or its text where the file has no ids -> the category it was given by hand."""
    if not path.exists():
        return {}
    table = read_table(path, ["category"])
    return dict(zip(table[key_column(table, path)], table["category"], strict=True))


def key_column(table: pd.DataFrame, path: Path) -> str:
    """The column that says which review a row is about."""
    key = next((name for name in ("id", "text") if name in table.columns), None)
    if key is None:
        raise UserError(f"{path} needs a column 'id' or 'text' beside 'category'.")
    return key
