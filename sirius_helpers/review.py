"""Labels set right by a person: `corrections.csv` (id or text, category) goes on top of what the labeler said.

Writes `labels.csv` (id, text, category, labeler), which is what the later stages read. A person may write the
corrections in any editor, or leave it to `files.reviews.correct`; both can be mixed.

    correct(settings, "3f2a90b1c7d4", "обувь")      # kept at once
    labels = review(settings)                       # stage "review": picks it up
"""

from __future__ import annotations

import pandas as pd

from .files.categories import by_any_name, read_categories
from .files.reviews import BY_HAND, CORRECTIONS, corrected, read_csv, read_labels, write_csv
from .files.runs import Run, digest, stage_mark, told
from .settings import Settings


@told
def review(settings: Settings) -> pd.DataFrame:
    """Stage "review": the labels with the corrections on top, if there are any."""
    run = Run(settings.folder, settings)
    source, corrections = run.need("labels.jsonl"), run.path(CORRECTIONS)
    names = by_any_name(read_categories(settings.data)) if corrections.exists() else None
    mark = stage_mark("review", digest(source), digest(corrections), names)
    if not run.is_finished("review", mark):
        with run.stage("review", mark, ["labels.csv"]):
            labels = read_labels(run)[["id", "text", "category", "labeler"]]
            right = labels["id"].map(corrected(settings))
            labels.loc[right.notna(), "category"] = right.dropna()
            labels.loc[right.notna(), "labeler"] = BY_HAND
            write_csv(run.path("labels.csv"), labels)
    return read_csv(run.path("labels.csv"))
