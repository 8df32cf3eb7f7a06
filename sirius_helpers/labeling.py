"""A category, with probabilities, for every review: from an LLM, from a few examples, or from a file.

Writes `labels.jsonl` (id, text, category, probabilities, margin, labeler) and, with a person's corrections on
top, `labels.csv`, which is what the later stages read. No label outside the taxonomy can occur.

    labels = label(settings)               # stage "label"
    labels = review(settings)              # stage "review"
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from transformers import PreTrainedModel

from .batching import Batcher, progress
from .categories import (
    Category,
    by_any_name,
    label_variables,
    labels_of,
    need_examples,
    phrases,
    read_categories,
)
from .choices import ClosedQuestion
from .corrections import FILE, corrected
from .encoding import embed
from .errors import UserError
from .journal import Journal, fingerprint, read_records
from .kinds import Json, JsonView, Tokenizer
from .loaders import causal_lm, encoder, loaded_revision
from .prompts import one_line, template_for
from .questions import closed_question
from .reviews import normalised, read_labelled, read_reviews, write_csv
from .runs import Run, digest
from .server import Server
from .settings import Settings
from .tables import read_table, records_of

OnBatch = Callable[[Sequence[int], np.ndarray], None]  # positions of the texts, their rows of probabilities


class Labeler(Protocol):
    """Gives probabilities of every category, a batch at a time."""

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Label the texts; every finished batch goes to `on_batch`."""


def label(settings: Settings) -> pd.DataFrame:
    """Stage "label": every training review gets a category; finished reviews are not done again."""
    run = Run(settings.folder)
    train = read_reviews(settings.data / "train.csv")
    taxonomy = read_categories(settings.data)
    labeler = fingerprint("label", labeler_identity(settings, taxonomy))
    mark = fingerprint(labeler, train["id"].tolist())
    if run.is_finished("label", mark):
        print(f"label: all {len(train)} reviews were labelled earlier; reused.")
        return pd.DataFrame(read_records(run.path("labels.jsonl")))
    with run.stage("label", mark, ["labels.jsonl"]) as facts:
        journal = Journal(run.path("labels.jsonl"), labeler)
        if journal.set_aside:
            print(f"label: labeler, prompt or categories changed; earlier labels are kept in {journal.set_aside.name}.")
        known = {record["id"] for record in journal.records}
        missing = train[~train["id"].isin(known)].reset_index(drop=True)
        if len(missing):
            _label_missing(missing, taxonomy, settings, journal)
        facts["revision"] = None if settings.labels else loaded_revision(settings.labeler)
        by_id = {record["id"]: record for record in journal.records}
        journal.replace(by_id[i] for i in train["id"])  # batches finish in order of length
    return pd.DataFrame(journal.records)


def review(settings: Settings) -> pd.DataFrame:
    """Stage "review": apply `corrections.csv` (id or text, category), if there is one; write `labels.csv`."""
    run = Run(settings.folder)
    source = run.need("labels.jsonl")
    labels = pd.DataFrame(read_records(source))[["id", "text", "category", "labeler"]]
    corrections = run.path(FILE)
    taxonomy = read_categories(settings.data)
    names = by_any_name(taxonomy) if corrections.exists() else None
    mark = fingerprint("review", digest(source), digest(corrections), names)
    if not run.is_finished("review", mark):
        with run.stage("review", mark, ["labels.csv"]):
            if corrections.exists():
                labels = corrected(labels, corrections, taxonomy)
            write_csv(run.path("labels.csv"), labels)
    return read_table(run.path("labels.csv"), ["id", "text", "category"])


@contextmanager
def loaded_labeler(taxonomy: list[Category], settings: Settings) -> Iterator[Labeler]:
    """The labeler that the settings ask for, its model in memory until the block ends."""
    if settings.labeler_kind == "llm":
        with causal_lm(settings.labeler, settings.device) as (model, tokenizer):
            yield LlmLabeler(taxonomy, model, tokenizer, settings)
    else:
        need_examples(taxonomy, settings.data)
        with encoder(settings.labeler, settings.device) as (model, tokenizer):
            yield FewShotLabeler(taxonomy, model, tokenizer, settings)


class LlmLabeler:
    """Probabilities of every category from a causal language model, by closed question, no generation.

    With `category_orders` n they are the mean over n rotations of the list of categories in the prompt, because
    models favour places in a list.
    """

    def __init__(
        self, taxonomy: list[Category], model: PreTrainedModel | Server, tokenizer: Tokenizer, settings: Settings
    ) -> None:
        size, orders = len(taxonomy), settings.category_orders
        turns = [size * n // orders for n in range(orders)]
        self.questions = [label_question(model, tokenizer, taxonomy, settings, turn) for turn in turns]
        self.max_chars = settings.max_review_chars

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Hand over the probabilities of each finished batch."""
        cut = [one_line(text)[: self.max_chars] for text in texts]
        first, *others = self.questions

        def combine(batch: Sequence[int], rows: np.ndarray) -> None:
            more = [question.log_probs([cut[i] for i in batch]) for question in others]
            on_batch(batch, np.mean([softmax(part, axis=1) for part in (rows, *more)], axis=0))

        first.log_probs(cut, on_batch=combine)


def label_question(
    model: PreTrainedModel | Server, tokenizer: Tokenizer, taxonomy: list[Category], settings: Settings, turn: int = 0
) -> ClosedQuestion:
    """The question "which category?"; the prompt lists them from number `turn` on, the answers keep their order."""
    values = label_variables(taxonomy[turn:] + taxonomy[:turn])
    return closed_question("label", settings.labeler, labels_of(taxonomy), model, tokenizer, settings, **values)


class FewShotLabeler:
    """Probabilities from a logistic regression on the embeddings of each category's example phrases."""

    def __init__(
        self, taxonomy: list[Category], model: PreTrainedModel, tokenizer: Tokenizer, settings: Settings
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.prefix, self.batcher = settings.labeler.text_prefix, Batcher(settings.tokens_per_batch)
        known, names = zip(*phrases(taxonomy), strict=True)
        self.head = LogisticRegression(C=settings.few_shot_c, class_weight="balanced", max_iter=1_000)
        self.head.fit(self._embedded(known), names)
        self.columns = [list(self.head.classes_).index(name) for name in labels_of(taxonomy)]

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Hand over the probabilities of each finished batch."""

        def classify(batch: Sequence[int], vectors: np.ndarray) -> None:
            on_batch(batch, self.head.predict_proba(vectors)[:, self.columns])

        self._embedded(texts, classify)

    def _embedded(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> np.ndarray:
        return embed(texts, self.model, self.tokenizer, prefix=self.prefix, batcher=self.batcher, on_batch=on_batch)


@contextmanager
def second_look(settings: Settings, taxonomy: list[Category]) -> Iterator[Callable[[Sequence[str]], list[str]]]:
    """The labeler as a function from texts to their categories, for texts that have one already."""
    labels = labels_of(taxonomy)
    with loaded_labeler(taxonomy, settings) as labeler:

        def categories(texts: Sequence[str]) -> list[str]:
            best = np.empty(len(texts), dtype=int)

            def on_batch(batch: Sequence[int], rows: np.ndarray) -> None:
                best[list(batch)] = rows.argmax(1)

            labeler(texts, on_batch)
            return [labels[i] for i in best]

        yield categories


def _label_missing(missing: pd.DataFrame, taxonomy: list[Category], settings: Settings, journal: Journal) -> None:
    """Label and record the reviews."""
    texts = missing["text"].tolist()
    if settings.labels:
        journal.append(_imported(missing, settings.labels, settings, taxonomy))
        return
    reviews, labels = records_of(missing), labels_of(taxonomy)
    with loaded_labeler(taxonomy, settings) as labeler, progress(len(texts), "label") as bar:

        def on_batch(batch: Sequence[int], rows: np.ndarray) -> None:
            journal.append(
                label_record(reviews[i], labels, row, settings.labeler.name) for i, row in zip(batch, rows, strict=True)
            )
            bar.update(len(batch))

        labeler(texts, on_batch)


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


def _imported(missing: pd.DataFrame, source: Path, settings: Settings, taxonomy: list[Category]) -> list[Json]:
    """Imported labels have no probabilities, and none are made up."""
    given = read_labelled(source, taxonomy)
    absent = missing[~missing["text"].map(normalised).isin(given)]
    if len(absent):
        raise UserError(
            f"{source} has no label for {len(absent)} of the reviews in {settings.data / 'train.csv'}, "
            f"the first being {absent['text'].iloc[0][:60]!r}. Add rows for them, or leave LABELS empty."
        )
    return [
        {
            "id": row["id"],
            "text": row["text"],
            "category": given[normalised(row["text"])],
            "probabilities": None,
            "margin": None,
            "labeler": f"imported:{source.name}",
        }
        for row in missing.to_dict("records")
    ]


def labeler_identity(settings: Settings, taxonomy: list[Category]) -> list[object]:
    """Everything a label depends on beside the review's own text."""
    if settings.labels:
        return ["imported", digest(settings.labels), by_any_name(taxonomy)]
    return opinion_identity(settings, taxonomy)


def opinion_identity(settings: Settings, taxonomy: list[Category]) -> list[object]:
    """What the labeler's own answer to any text depends on, wherever the labels come from."""
    shown = [(category.label, category.description, category.examples) for category in taxonomy]
    common = [settings.labeler_kind, settings.labeler.identity, shown]
    if settings.labeler_kind == "few-shot":
        return [*common, settings.few_shot_c]
    template = template_for("label", settings.labeler.chat, settings.prompts)
    asked = [settings.category_orders, settings.prior_correction, settings.max_review_chars]
    return [*common, template.identity, asked]
