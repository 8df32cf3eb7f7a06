"""Who gives a review its category: an LLM asked a closed question, or a few examples and their embeddings.

with loaded_labeler(taxonomy, settings) as labeler:
    labeler(texts, on_batch)               # probabilities of every category, a batch at a time
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np
from scipy.special import softmax
from transformers import PreTrainedModel

from ..files.categories import Category, described, example_turns, labels_of, need_examples, phrases
from ..kinds import LanguageModel, OnBatch, Tokenizer
from ..loaders import causal_lm, encoder
from ..models.batching import Batcher
from ..prompts import Template, one_line, template_for
from ..settings import ModelSpec, Settings
from .questions import ClosedQuestion, closed_question

SHOTS = 2  # example turns of each category
UNSEEN = 4  # phrases of each category that tell how the model leans
CALIBRATED = "on unseen phrases"  # what the fingerprint of few-shot labels says of their probabilities
TINY = 1e-9  # a probability of 0 would forbid what the other labeler says
Labeler: TypeAlias = Callable[[Sequence[str], OnBatch], None]  # hands over the probabilities of each finished batch


@contextmanager
def loaded_labeler(taxonomy: list[Category], settings: Settings) -> Iterator[Labeler]:
    """The labeler that the settings ask for, its models in memory until the block ends."""
    asked = settings.labeler_kind == "llm"
    by_examples = pooled_with(settings) if asked else settings.labeler
    with ExitStack() as models:
        labelers: list[Labeler] = []
        if by_examples:
            need_examples(taxonomy, settings.data)
            loaded = models.enter_context(encoder(by_examples, settings.device))
            labelers.append(FewShotLabeler(taxonomy, *loaded, by_examples.text_prefix, settings))
        if asked:
            language_model = models.enter_context(causal_lm(settings.labeler, settings.device, "labeler"))
            labelers.append(LlmLabeler(taxonomy, *language_model, settings))
        first, *then = labelers
        yield Pool(first, then[0], settings.second_weight) if then else first


def pooled_with(settings: Settings) -> ModelSpec | None:
    """The second labeler, where it has a say in an LLM's labels."""
    return settings.second_labeler if settings.second_weight else None


@dataclass(frozen=True)
class Pool:
    """Two labelers as one: the weighted geometric mean of their probabilities (a logarithmic opinion pool, Genest and
    Zidek 1986, doi:10.1214/ss/1177013825). Where one is undecided, the other decides."""

    first: Labeler
    then: Labeler
    weight: float  # of the first

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Hand over the probabilities of each finished batch of the slower labeler."""
        known: dict[int, np.ndarray] = {}
        self.first(texts, lambda batch, rows: known.update(zip(batch, rows, strict=True)))

        def pool(batch: Sequence[int], rows: np.ndarray) -> None:
            mine, other = (np.log(np.maximum(p, TINY)) for p in (np.stack([known[i] for i in batch]), rows))
            on_batch(batch, softmax(self.weight * mine + (1 - self.weight) * other, axis=1))

        self.then(texts, pool)


class LlmLabeler:
    """Probabilities of every category from a causal language model, by closed question, no generation."""

    def __init__(
        self, taxonomy: list[Category], model: LanguageModel, tokenizer: Tokenizer, settings: Settings
    ) -> None:
        self.question = label_question(model, tokenizer, taxonomy, settings)
        self.max_chars = settings.max_review_chars

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Hand over the probabilities of each finished batch."""
        cut = [one_line(text)[: self.max_chars] for text in texts]
        self.question.log_probs(cut, on_batch=lambda batch, rows: on_batch(batch, softmax(rows, axis=1)))


def label_question(
    model: LanguageModel, tokenizer: Tokenizer, taxonomy: list[Category], settings: Settings
) -> ClosedQuestion:
    """The question "which category?"."""
    template, labels, said = label_prompt(taxonomy, settings), labels_of(taxonomy), described(taxonomy)
    # A text without content is no measure of how the model leans: it may well have a category of its own. As many
    # phrases of each category as the poorest has beside those that the prompt shows are.
    unseen = min(UNSEEN, min(len(category.examples) for category in taxonomy) - SHOTS)
    fair = [text for text, _ in example_turns(taxonomy, unseen, skip=SHOTS)]
    return closed_question(template, settings.labeler, labels, model, tokenizer, settings, fair, categories=said)


def label_prompt(taxonomy: list[Category], settings: Settings) -> Template:
    """The label prompt in force; where it has no examples of its own, those of the taxonomy."""
    template = template_for("label", settings.prompts)
    return template if template.examples else replace(template, examples=example_turns(taxonomy, SHOTS))


class FewShotLabeler:
    """Probabilities from a logistic regression on the embeddings of each category's phrases, calibrated out of fold."""

    def __init__(
        self, taxonomy: list[Category], model: PreTrainedModel, tokenizer: Tokenizer, prefix: str, settings: Settings
    ) -> None:
        from ..encoder.embedding import embed, logistic_regression  # the LLM's labeler does without
        from ..encoder.label_noise import out_of_fold
        from ..encoder.scores import calibrated, fit_temperature

        batcher = Batcher(settings.tokens_per_batch)
        self.embed = partial(embed, model=model, tokenizer=tokenizer, prefix=prefix, batcher=batcher)
        known, names = zip(*phrases(taxonomy), strict=True)
        vectors, labels = self.embed(known), labels_of(taxonomy)
        head = logistic_regression(vectors, names, settings.few_shot_c, class_weight="balanced")
        columns = [list(head.classes_).index(name) for name in labels]
        # As it comes, the strongly regularised model is far less sure than it is right.
        unseen = out_of_fold(vectors, names, np.arange(len(names)), labels, settings.few_shot_c, seed=0)
        temperature = fit_temperature(unseen, np.array([labels.index(name) for name in names]))
        self.chances: Callable[[np.ndarray], np.ndarray] = lambda rows: calibrated(
            head.predict_proba(rows)[:, columns], temperature
        )

    def __call__(self, texts: Sequence[str], on_batch: OnBatch) -> None:
        """Hand over the probabilities of each finished batch."""
        self.embed(texts, on_batch=lambda batch, vectors: on_batch(batch, self.chances(vectors)))


def labeler_fingerprint(settings: Settings, taxonomy: list[Category]) -> list[object]:
    """What the labeler's own answer to any text depends on, wherever the labels come from."""
    shown = [(category.label, category.description, category.examples) for category in taxonomy]
    common: list[object] = [settings.labeler_kind, settings.labeler.identity, shown]
    if settings.labeler_kind == "few-shot":
        return [*common, settings.few_shot_c, CALIBRATED]
    second = pooled_with(settings)
    pooled = second and [second.identity, settings.second_weight, settings.few_shot_c, CALIBRATED]
    asked = [asdict(label_prompt(taxonomy, settings)), settings.max_review_chars]
    return [*common, pooled, asked]
