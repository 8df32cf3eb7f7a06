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
from sirius_helpers.llm.asking import closed_question
from sirius_helpers.llm.labelers import label_prompt
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
        template, values = label_prompt(taxonomy, settings), {"categories": described(taxonomy)}
        frame = split_prompt(template, tokenizer, True, **values)
        # Without what is done about the model's lean: the others have nothing like it.
        question = closed_question(template, spec, names, model, tokenizer, settings, (), **values)
        ways = {
            "closed question": lambda: lambda texts: [names[i] for i in question.log_probs(texts).argmax(1)],
            "llama.cpp, grammar": lambda: with_grammar(Server(replace(spec, server=address)), question, names),
            "outlines, prefix kept by hand": lambda: with_outlines(model, tokenizer, frame, names, question),
            "outlines": lambda: with_outlines(model, tokenizer, frame, names),
        }
        answers, times = pd.DataFrame({"given": originals["category"].tolist()}), {}
        for name, make in ways.items():
            way, made = timed(make)
            _, first = timed(way, texts[:1])  # warm-up: the fixed part of the prompt is read, and kept where it can be
            found = [timed(way, part) for part in np.array_split(np.array(texts, dtype=object), ROUNDS)]
            answers[name] = [answer for said, _ in found for answer in said]
            times[name] = {"first s": made + first, "s a review": [took / len(said) for said, took in found]}
            table = agreement(answers)
            for column, of in (("first s", np.sum), ("s a review", np.median)):
                table.insert(0, column, pd.Series({name: of(took[column]) for name, took in times.items()}))
            rows = [{"way": name, **times.get(name, {}), "answers": answers[name].tolist()} for name in answers]
            yield rows, table.round(3)


def agreement(answers: pd.DataFrame) -> pd.DataFrame:
    """The share of rows on which two columns say the same."""
    names = answers.columns
    return pd.DataFrame({a: {b: (answers[a] == answers[b]).mean() for b in names} for a in names})


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
