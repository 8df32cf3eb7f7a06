"""The part `labels` of peers.py: one prompt and one set of weights, four ways to an answer that is a category.

llama.cpp has the 4-bit file as it is and rounds activations too; the others have the same weights unpacked to bf16.
"""

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
from sirius_helpers.llm.labelers import label_prompt
from sirius_helpers.llm.questions import ClosedQuestion, closed_question
from sirius_helpers.loaders import causal_lm
from sirius_helpers.prompts import one_line, split_prompt
from sirius_helpers.settings import CHAT_LM, ModelSpec, Settings

ROUNDS, LONGEST = 4, 40  # LONGEST: tokens of an answer
Texts = Sequence[str]
Answers = Callable[[Texts], list[str]]
Found = Iterator[tuple[list[dict], pd.DataFrame]]  # every figure so far, and the table of them


def labels(originals: pd.DataFrame, settings: Settings, given: argparse.Namespace) -> Found:
    chat = given.model == CHAT_LM
    taxonomy, spec = read_categories(settings.data), ModelSpec(given.model, weights="bf16", chat=chat)
    settings, names = replace(settings, labeler=spec), labels_of(taxonomy)
    texts = [one_line(text) for text in originals["text"]]
    with (
        llama_server.running(*[llama_server.CHAT] * chat) as (_, address),
        causal_lm(spec, "cpu") as (model, tokenizer),
    ):
        template, values = label_prompt(taxonomy, settings), {"categories": described(taxonomy)}
        frame = split_prompt(template, tokenizer, chat, **values)
        # Without what is done about the model's lean: the others have nothing like it.
        question = closed_question(template, spec, names, model, tokenizer, settings, (), **values)
        start = question.prompt.prefix_ids[: min(question.prompt.with_text(text)[0] for text in texts)]
        answers = names if chat else [f" {name}" for name in names]  # a base model goes on with a blank
        ways = {
            "closed question": lambda: lambda texts: [names[i] for i in question.log_probs(texts).argmax(1)],
            "llama.cpp, grammar": lambda: with_grammar(Server(replace(spec, server=address)), question, answers),
            "outlines, prefix kept by hand": lambda: with_outlines(model, tokenizer, frame, answers, start),
            "outlines": lambda: with_outlines(model, tokenizer, frame, answers),
        }
        said, times = pd.DataFrame({"given": originals["category"].tolist()}), {}
        for name, make in ways.items():
            way, made = timed(make)
            _, first = timed(way, texts[:1])  # warm-up: the fixed part of the prompt is read, and kept where it can be
            found = [timed(way, part) for part in np.array_split(np.array(texts, dtype=object), ROUNDS)]
            said[name] = [answer.strip() for part, _ in found for answer in part]
            times[name] = {"first s": made + first, "s a review": [took / len(part) for part, took in found]}
            table = agreement(said)
            for column, of in (("first s", np.sum), ("s a review", np.median)):
                table.insert(0, column, pd.Series({name: of(took[column]) for name, took in times.items()}))
            rows = [{"way": name, **times.get(name, {}), "answers": said[name].tolist()} for name in said]
            yield rows, table.round(3)


def agreement(answers: pd.DataFrame) -> pd.DataFrame:
    """The share of rows on which two columns say the same."""
    names = answers.columns
    return pd.DataFrame({a: {b: (answers[a] == answers[b]).mean() for b in names} for a in names})


def with_outlines(model, tokenizer, frame: tuple[str, str], allowed: list[str], start: Sequence[int] = ()) -> Answers:
    """outlines on the rendered prompt, one at a time; the tokens of its `start` are read only once."""
    import outlines

    asked = outlines.from_transformers(model, tokenizer)
    asked.type_adapter.has_chat_template = False  # the prompt has gone through it
    # outlines 1.3 puts a blank in front of Gemma's pieces, whose text has it already: no answer could begin.
    asked.tokenizer.convert_token_to_string = lambda token: tokenizer.convert_tokens_to_string([token])
    generate, kept = outlines.Generator(asked, Literal[tuple(allowed)]), None
    if start:
        with torch.inference_mode():
            kept = model(torch.tensor([start]), use_cache=True, logits_to_keep=1).past_key_values
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}

    prefix, tail = frame[0].removeprefix(tokenizer.bos_token or "\0"), frame[1]  # outlines adds it

    def answer(text: str) -> str:
        cache = {"past_key_values": copy.deepcopy(kept)} if kept else {}
        return generate(prefix + text + tail, max_new_tokens=LONGEST, do_sample=False, **ends, **cache)

    return lambda texts: [answer(text) for text in texts]


def with_grammar(server: Server, question: ClosedQuestion, allowed: list[str]) -> Answers:
    """llama.cpp's own way, one at a time: its slot keeps the beginning of the prompt, a grammar allows the answers."""
    grammar = "root ::= " + " | ".join(json.dumps(name, ensure_ascii=False) for name in allowed)

    def answer(text: str) -> str:
        shared, rest = question.prompt.with_text(text)
        ids = [*question.prompt.prefix_ids[:shared], *rest]
        return server.complete(ids, max_tokens=LONGEST, temperature=0.0, grammar=grammar)["text"]

    return lambda texts: [answer(text) for text in texts]
