"""A category, with probabilities, for every review: from an LLM, from a few examples, or from a file.

Writes `labels.jsonl` (id, text, category, probabilities, margin, labeler). No label outside the taxonomy can occur.

    labels = label(settings)               # stage "label"
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .errors import UserError
from .files.categories import Category, by_any_name, labels_of, read_categories
from .files.journal import Journal, fingerprint, read_records
from .files.reviews import normalised, read_labelled, read_reviews
from .files.runs import Run, digest, pinned, stage_mark, told
from .files.tables import records_of
from .kinds import Json, JsonView
from .llm.labelers import labeler_fingerprint, loaded_labeler
from .models.batching import progress
from .settings import Settings


@told
def label(settings: Settings) -> pd.DataFrame:
    """Stage "label": every training review gets a category; finished reviews are not done again."""
    run, settings = Run(settings.folder, settings), pinned(settings, "labeler", "second_labeler")
    train = read_reviews(settings.data / "train.csv")
    taxonomy = read_categories(settings.data)
    labeler = stage_mark("label", labeler_identity(settings, taxonomy))
    mark = fingerprint(labeler, train["id"].tolist())
    if run.is_finished("label", mark):
        print(f"label: all {len(train)} reviews were labelled earlier; reused.")
        return pd.DataFrame(read_records(run.path("labels.jsonl")))
    with run.stage("label", mark) as facts:
        journal = Journal(run.path("labels.jsonl"), labeler)
        if journal.set_aside:
            print(f"label: labeler, prompt or categories changed; earlier labels are kept in {journal.set_aside.name}.")
        known = {record["id"] for record in journal.records}
        missing = records_of(train[~train["id"].isin(known)])
        if missing and settings.labels:
            journal.append(_imported(missing, settings.labels, settings, taxonomy))
        elif missing:
            _ask(missing, taxonomy, settings, journal)
        facts["revision"] = None if settings.labels else settings.labeler.revision
        by_id = {record["id"]: record for record in journal.records}
        journal.replace(by_id[i] for i in train["id"])  # batches finish in order of length
    return pd.DataFrame(journal.records)


def _ask(reviews: list[Json], taxonomy: list[Category], settings: Settings, journal: Journal) -> None:
    """Have the reviews labelled, and record each finished batch."""
    labels, name = labels_of(taxonomy), settings.labeler.name
    with loaded_labeler(taxonomy, settings) as labeler, progress(len(reviews), "label") as bar:

        def on_batch(batch: Sequence[int], rows: np.ndarray) -> None:
            journal.append(label_record(reviews[i], labels, row, name) for i, row in zip(batch, rows, strict=True))
            bar.update(len(batch))

        labeler([review["text"] for review in reviews], on_batch)


def label_record(review: JsonView, labels: list[str], row: np.ndarray, labeler: str) -> Json:
    """What is written of a labelled review (id, text); `row` holds the probabilities in the order of `labels`."""
    second, best = np.sort(row)[-2:]
    return {
        "id": review["id"],
        "text": review["text"],
        "category": labels[int(row.argmax())],
        "probabilities": {name: round(float(p), 6) for name, p in zip(labels, row, strict=True)},
        "margin": round(float(best - second), 6),
        "labeler": labeler,
    }


def _imported(reviews: list[Json], source: Path, settings: Settings, taxonomy: list[Category]) -> list[Json]:
    """Imported labels have no probabilities, and none are made up."""
    given = read_labelled(source, taxonomy)
    if absent := [review["text"] for review in reviews if normalised(review["text"]) not in given]:
        raise UserError(
            f"{source} has no label for {len(absent)} of the reviews in {settings.data / 'train.csv'}, "
            f"the first being {absent[0][:60]!r}. Add rows for them, or leave LABELS empty."
        )
    rest = {"probabilities": None, "margin": None, "labeler": f"imported:{source.name}"}
    return [review | {"category": given[normalised(review["text"])]} | rest for review in reviews]


def labeler_identity(settings: Settings, taxonomy: list[Category]) -> list[object]:
    """Everything a label depends on beside the review's own text."""
    if settings.labels:
        return [f"imported:{settings.labels.name}", digest(settings.labels), by_any_name(taxonomy)]
    return labeler_fingerprint(settings, taxonomy)
