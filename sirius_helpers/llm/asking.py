"""A named prompt and its allowed answers as a closed question: what labels and verdicts share.

Knows prompts and how an answer begins and ends; not what the answers mean.

    question = closed_question(template, settings.writer, ["yes", "no"], model, tokenizer, settings)
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kinds import LanguageModel, Tokenizer
from ..prompts import Template, answer_end, split_prompt
from ..settings import ModelSpec, Settings
from .questions import ClosedQuestion, question_to


def closed_question(
    template: Template,
    spec: ModelSpec,
    answers: Sequence[str],
    model: LanguageModel,
    tokenizer: Tokenizer,
    settings: Settings,
    prior_texts: Sequence[str],
    **values: str,
) -> ClosedQuestion:
    """A prompt, filled with `values`, and the answers, each ended as `spec` ends it.

    A base model goes on behind the prompt's colon with a blank.
    """
    prefix, tail = split_prompt(template, tokenizer, spec.chat, **values)
    return question_to(
        model,
        tokenizer,
        prefix,
        tail,
        answers=answers if spec.chat else [f" {answer}" for answer in answers],
        end=answer_end(tokenizer, spec.chat),
        prior_texts=prior_texts,
        token_budget=settings.tokens_per_batch,
    )
