"""The part `labels` of peers.py: one prompt and one set of weights, four ways to an answer that is a category.

llama.cpp has the 4-bit file as it is and rounds activations too; the others have the same weights unpacked to bf16.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import llama_server
import numpy as np
import pandas as pd
import torch
from common import timed

from sirius_helpers.extras.server import Server
from sirius_helpers.files.categories import described, labels_of, read_categories
from sirius_helpers.llm.labelers import label_prompt, label_question
from sirius_helpers.llm.questions import ClosedQuestion
from sirius_helpers.loaders import causal_lm
from sirius_helpers.prompts import one_line, split_prompt
from sirius_helpers.settings import CHAT_LM, ModelSpec, Settings

ROUNDS, LONGEST = 4, 40  # LONGEST: tokens of an answer
Texts = Sequence[str]
Answers = Callable[[Texts], list[str]]
Found = Iterator[tuple[list[dict], pd.DataFrame]]  # every figure so far, and the table of them


def labels(originals: pd.DataFrame, settings: Settings, _: argparse.Namespace) -> Found:
    taxonomy, spec = read_categories(settings.data), ModelSpec(CHAT_LM, weights="bf16", chat=True)
    settings, names = replace(settings, labeler=spec), labels_of(taxonomy)
    texts = [one_line(text) for text in originals["text"]]
    with (
        llama_server.running(llama_server.CHAT) as (_, address),
        causal_lm(spec, "cpu") as (model, tokenizer),
    ):
        question = label_question(model, tokenizer, taxonomy, settings)
        frame = split_prompt(label_prompt(taxonomy, settings), tokenizer, True, categories=described(taxonomy))
        ways = {
            "closed question": closed(question, names),
            "outlines": with_outlines(model, tokenizer, frame, names),
            "outlines, prefix kept": with_outlines(model, tokenizer, frame, names, question),
            "llama.cpp grammar": with_grammar(Server(replace(spec, server=address)), question, names),
        }
        answers, times = pd.DataFrame({"given": originals["category"].tolist()}), {}
        for name, way in ways.items():
            first = timed(way, texts[:1])[1]  # warm-up: each reads the fixed part of the prompt
            found = [timed(way, texts[n::ROUNDS]) for n in range(ROUNDS)]
            for n, (said, _) in enumerate(found):
                answers.loc[n::ROUNDS, name] = said
            times[name] = {"first s": first, "s a review": [took / len(said) for said, took in found]}
            print(name, times[name], flush=True)
    table = agreement(answers)
    table.insert(0, "s a review", pd.Series({name: np.median(took["s a review"]) for name, took in times.items()}))
    rows = [{"way": name, **times.get(name, {}), "answers": answers[name].tolist()} for name in answers]
    yield rows, table.round(3)


def agreement(answers: pd.DataFrame) -> pd.DataFrame:
    """The share of rows on which two columns say the same."""
    names = answers.columns
    return pd.DataFrame({a: {b: (answers[a] == answers[b]).mean() for b in names} for a in names})


def closed(question: ClosedQuestion, names: list[str]) -> Answers:
    """Without what is done about the model's lean, so that the answers are comparable."""

    def answers(texts: Texts) -> list[str]:
        rows = question.log_probs(texts) + question.prior  # but for a constant of each row
        return [names[i] for i in rows.argmax(1)]

    return answers


def with_outlines(model, tokenizer, frame: tuple[str, str], names: list[str], question=None) -> Answers:
    """outlines on the rendered prompt, one at a time; a `question` says which beginning of it to read only once."""
    import outlines

    asked = outlines.from_transformers(model, tokenizer)
    asked.type_adapter.has_chat_template = False  # the prompt has gone through it
    generate, kept = outlines.Generator(asked, Literal[tuple(names)]), None
    if question:
        with torch.inference_mode():
            kept = model(torch.tensor([question.prompt.first_ids]), use_cache=True, logits_to_keep=1).past_key_values
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}

    def answer(text: str) -> str:
        cache = {"past_key_values": copy.deepcopy(kept)} if kept else {}
        return generate(text.join(frame), max_new_tokens=LONGEST, do_sample=False, **ends, **cache)

    return lambda texts: [answer(text) for text in texts]


def with_grammar(server: Server, question: ClosedQuestion, names: list[str]) -> Answers:
    """llama.cpp's own way, one at a time: its slot keeps the beginning of the prompt, a grammar allows the answers."""
    grammar = "root ::= " + " | ".join(json.dumps(name, ensure_ascii=False) for name in names)

    def answer(text: str) -> str:
        shared, rest = question.prompt.with_text(text)
        ids = [*question.prompt.prefix_ids[:shared], *rest]
        return server.complete(ids, max_tokens=LONGEST, temperature=0.0, grammar=grammar)["text"]

    return lambda texts: [answer(text) for text in texts]
