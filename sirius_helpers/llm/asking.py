"""A named prompt and its allowed answers as a closed question: what labels and verdicts share.

Knows prompts and how an answer begins and ends; not what the answers mean.

    question = closed_question("judge", settings.writer, ["yes", "no"], model, tokenizer, settings)
"""

from __future__ import annotations

from collections.abc import Sequence

from ..kinds import LanguageModel, Tokenizer
from ..prompts import answer_end, split_prompt, template_for
from ..settings import ModelSpec, Settings
from .questions import ClosedQuestion, question_to


def closed_question(
    name: str,
    spec: ModelSpec,
    answers: Sequence[str],
    model: LanguageModel,
    tokenizer: Tokenizer,
    settings: Settings,
    **values: str,
) -> ClosedQuestion:
    """The prompt in force under that name, filled with `values`, and the answers, each ended as `spec` ends it.

    A base model goes on behind the prompt's colon with a blank.
    """
    prefix, tail = split_prompt(template_for(name, spec.chat, settings.prompts), tokenizer, spec.chat, **values)
    return question_to(
        model,
        tokenizer,
        prefix,
        tail,
        answers=answers if spec.chat else [f" {answer}" for answer in answers],
        end=answer_end(tokenizer, spec.chat),
        prior_correction=settings.prior_correction,
        token_budget=settings.tokens_per_batch,
    )
