"""Everything a user can get wrong in the input files, checked before any model loads.

summary = check_inputs(settings)       # a table: file, rows, what it is
"""

from __future__ import annotations

import pandas as pd

from .categories import labels_of, read_categories
from .judging import FILE as CONTROL
from .judging import read_control
from .prompts import CHAT, template_for
from .reviews import read_labelled, read_reviews, read_texts
from .settings import Settings
from .tables import read_table


def check_inputs(settings: Settings) -> pd.DataFrame:
    """Read every input once; the first thing wrong raises a UserError that says what to do."""
    folder = settings.data
    taxonomy = read_categories(folder)
    rows = [
        ("train.csv", len(read_reviews(folder / "train.csv")), "reviews to label and learn from"),
        ("test.csv", len(read_texts(folder / "test.csv")), "reviews to classify"),
        ("categories", len(taxonomy), ", ".join(labels_of(taxonomy))),
    ]
    if settings.labels:
        rows.append((settings.labels.name, len(read_labelled(settings.labels, taxonomy)), "ready-made labels"))
    human = folder / "human_labels.csv"
    if human.exists():
        rows.append((human.name, len(read_labelled(human, taxonomy)), "human labels, read by the evaluation only"))
    control = read_control(folder)  # the project's own, where the folder brings none
    if (folder / CONTROL).exists():
        rows.append((CONTROL, len(control), "texts with a known answer that the judge is tried on"))
    corrections = settings.folder / "corrections.csv"
    if corrections.exists():
        rows.append((corrections.name, len(read_table(corrections, ["category"])), "your corrections of the labels"))
    for name in CHAT:  # a broken prompt shows here rather than after a download
        template_for(name, settings.labeler.chat, settings.prompts)
    return pd.DataFrame(rows, columns=["file", "rows", "what"])
