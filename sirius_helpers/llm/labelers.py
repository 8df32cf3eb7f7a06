"""Who gives a review its category: an LLM asked a closed question, or a few examples and their embeddings.

with loaded_labeler(taxonomy, settings) as labeler:
    labeler(texts, on_batch)               # probabilities of every category, a batch at a time
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
from scipy.special import softmax
from transformers import PreTrainedModel

from ..encoder.embedding import embed, logistic_regression
from ..files.categories import Category, label_variables, labels_of, need_examples, phrases
from ..kinds import LanguageModel, OnBatch, Tokenizer
from ..loaders import causal_lm, encoder
from ..models.batching import Batcher
from ..prompts import one_line, template_for
from ..settings import Settings
from .asking import closed_question
from .questions import ClosedQuestion


class Labeler(Protocol):
    """Gives probabilities of every category, a batch at a time."""

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Label the texts; every finished batch goes to `on_batch`."""


@contextmanager
def loaded_labeler(taxonomy: list[Category], settings: Settings) -> Iterator[Labeler]:
    """The labeler that the settings ask for, its model in memory until the block ends."""
    if settings.labeler_kind == "llm":
        with causal_lm(settings.labeler, settings.device, "labeler") as (model, tokenizer):
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
        self, taxonomy: list[Category], model: LanguageModel, tokenizer: Tokenizer, settings: Settings
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
    model: LanguageModel, tokenizer: Tokenizer, taxonomy: list[Category], settings: Settings, turn: int = 0
) -> ClosedQuestion:
    """The question "which category?"; the prompt lists them from number `turn` on, the answers keep their order."""
    template = template_for("label", settings.labeler.chat, settings.prompts)
    values = label_variables(taxonomy[turn:] + taxonomy[:turn], template.user)
    return closed_question("label", settings.labeler, labels_of(taxonomy), model, tokenizer, settings, **values)


class FewShotLabeler:
    """Probabilities from a logistic regression on the embeddings of each category's example phrases."""

    def __init__(
        self, taxonomy: list[Category], model: PreTrainedModel, tokenizer: Tokenizer, settings: Settings
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.prefix, self.batcher = settings.labeler.text_prefix, Batcher(settings.tokens_per_batch)
        known, names = zip(*phrases(taxonomy), strict=True)
        self.head = logistic_regression(self._embedded(known), names, settings.few_shot_c, class_weight="balanced")
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


def labeler_fingerprint(settings: Settings, taxonomy: list[Category]) -> list[object]:
    """What the labeler's own answer to any text depends on, wherever the labels come from."""
    shown = [(category.label, category.description, category.examples) for category in taxonomy]
    common = [settings.labeler_kind, settings.labeler.identity, shown]
    if settings.labeler_kind == "few-shot":
        return [*common, settings.few_shot_c]
    template = template_for("label", settings.labeler.chat, settings.prompts)
    asked = [settings.category_orders, settings.prior_correction, settings.max_review_chars]
    return [*common, template.identity, asked]
