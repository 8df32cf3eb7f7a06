"""Everything a user can get wrong in the input files, checked before any model loads.

summary = check_inputs(settings)       # a table: file, rows, what it is
"""

from __future__ import annotations

import pandas as pd

from .categories import Category, label_variables, labels_of, need_examples, read_categories
from .corrections import FILE as CORRECTIONS
from .corrections import read_corrections
from .errors import UserError
from .judging import FILE as CONTROL
from .judging import read_control
from .prompts import CHAT, read_prompts, template_for
from .prompts import FILE as PROMPTS
from .reviews import read_labelled, read_reviews, read_texts
from .settings import Settings


def check_inputs(settings: Settings) -> pd.DataFrame:
    """Read every input once; the first thing wrong raises a UserError that says what to do."""
    folder = settings.data
    taxonomy = read_categories(folder)
    reviews = read_reviews(folder / "train.csv")
    rows = [
        ("train.csv", len(reviews), "reviews to label and learn from"),
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
    corrections = settings.folder / CORRECTIONS
    if corrections.exists():
        corrected = read_corrections(corrections, taxonomy, reviews)
        rows.append((corrections.name, len(corrected), "your corrections of the labels"))
    if settings.labeler_kind == "few-shot" and (settings.category_check or not settings.labels):
        need_examples(taxonomy, folder)
    _check_prompts(settings, taxonomy)
    return pd.DataFrame(rows, columns=["file", "rows", "what"])


def _check_prompts(settings: Settings, taxonomy: list[Category]) -> None:
    """Fill each prompt for the model that it is for: a broken one shows here rather than after a download."""
    for name in CHAT:
        spec = settings.labeler if name == "label" else settings.writer
        try:
            template = template_for(name, spec.chat, settings.prompts)
            template.fill(**(label_variables(taxonomy, template.user) if name == "label" else {}), review="")
        except UserError as error:
            file = settings.data / PROMPTS
            places = [str(file)] * file.exists() + ["CHANGES"] * (settings.prompts != read_prompts(settings.data))
            raise UserError(f"{' or '.join(places)}: {error}") from None
