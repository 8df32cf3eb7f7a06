"""Labels set right by a person: `corrections.csv` (id or text, category) goes on top of what the labeler said.

Writes `labels.csv` (id, text, category, labeler), which is what the later stages read. A person may write the
corrections in any editor, or leave it to `correct`; both can be mixed.

    correct(settings, "3f2a90b1c7d4", "обувь")      # kept at once
    labels = review(settings)                       # stage "review": picks it up
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from .errors import UserError
from .files.categories import by_any_name, label_named, read_categories
from .files.journal import fingerprint
from .files.lock import run_lock
from .files.reviews import (
    BY_HAND,
    CORRECTIONS,
    key_column,
    normalised,
    read_corrections,
    read_csv,
    read_labels,
    write_csv,
)
from .files.runs import Run, digest
from .files.tables import read_table
from .settings import Settings


def review(settings: Settings) -> pd.DataFrame:
    """Stage "review": the labels with the corrections on top, if there are any."""
    run = Run(settings.folder)
    source, corrections = run.need("labels.jsonl"), run.path(CORRECTIONS)
    names = by_any_name(read_categories(settings.data)) if corrections.exists() else None
    mark = fingerprint("review", digest(source), digest(corrections), names)
    if not run.is_finished("review", mark):
        with run.stage("review", mark, ["labels.csv"]):
            labels = read_labels(run)[["id", "text", "category", "labeler"]]
            right = labels["id"].map(corrected(settings))
            labels.loc[right.notna(), "category"] = right.dropna()
            labels.loc[right.notna(), "labeler"] = BY_HAND
            write_csv(run.path("labels.csv"), labels)
    return read_csv(run.path("labels.csv"))


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
