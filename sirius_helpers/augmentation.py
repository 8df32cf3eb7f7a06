"""Synthetic reviews for rare categories: quotas, paraphrases, filters, a judge asked twice, another try.

Writes `synthetic.jsonl` (kept) and `rejected.jsonl` (every refused attempt with its reason); a text stands in
one of them, never in both.

    kept = augment(settings)               # stage "augment"
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .batching import Batcher, progress
from .filters import bare, cleaned, first_reason, word_runs
from .generation import Sampler
from .journal import Journal, fingerprint, read_records
from .judging import judge_question, one_line, p_yes, verdicts
from .loaders import causal_lm, loaded_revision
from .prompts import split_prompt, template_for
from .reviews import read_table
from .runs import Run
from .settings import Settings

MOST_COPIES = 9  # the reference's figure for the rarest of its nine categories
ACCEPTED = "accepted"


@dataclass(frozen=True)
class Wanted:
    """One synthetic review to be made: the n-th paraphrase of an original."""

    source_id: str
    copy: int  # from 1
    category: str
    original: str

    @property
    def key(self) -> tuple[str, int]:
        return self.source_id, self.copy


def copies_per_category(categories: Sequence[str]) -> dict[str, int]:
    """Paraphrases for each original, by rarity: the most frequent category 1, the next 2, … at most 9.

    Method: the reference solution's quota; on its counts it gives 2,798 in all.
    """
    counts = Counter(categories)
    by_frequency = sorted(counts, key=lambda name: (-counts[name], name))
    return {name: min(rank, MOST_COPIES) for rank, name in enumerate(by_frequency, start=1)}


def plan(labels: pd.DataFrame, max_synthetic: int | None) -> list[Wanted]:
    """Everything to be made, rarest categories first, in each the first paraphrases of all before the second."""
    copies = copies_per_category(labels["category"].tolist())
    wanted = [
        Wanted(row.id, copy, row.category, row.text)
        for row in labels.itertuples()
        for copy in range(1, copies[row.category] + 1)
    ]
    wanted.sort(key=lambda item: (-copies[item.category], item.category, item.copy))
    return wanted[:max_synthetic]


def augment(settings: Settings) -> pd.DataFrame:
    """Stage "augment": fill the quota; finished attempts are not made again."""
    run = Run(settings.folder)
    labels = read_table(run.need("labels.csv"), ["id", "text", "category"])
    wanted = plan(labels, settings.max_synthetic)
    writer_mark = fingerprint("augment", *_identity(settings))
    items = [(item.key, item.category, item.original) for item in wanted]
    mark = fingerprint(writer_mark, items, settings.max_attempts)
    if run.is_finished("augment", mark):
        print(f"augment: all {len(wanted)} wanted texts were dealt with earlier; reused.")
        return pd.DataFrame(read_records(run.path("synthetic.jsonl")), columns=_COLUMNS)
    kept, refused = (Journal(run.path(name), writer_mark) for name in ("synthetic.jsonl", "rejected.jsonl"))
    if kept.set_aside:
        print(f"augment: model, prompt or settings changed; earlier texts are kept in {kept.set_aside.name}.")
    categories = {item.key: item.category for item in wanted}
    for journal in (kept, refused):  # an original that left, or changed its category, takes its copies along
        current = [r for r in journal.records if categories.get((r["source_id"], r["copy"])) == r["category"]]
        if len(current) < len(journal.records) or not journal.path.exists():
            journal.replace(current)
    with run.stage("augment", mark, ["synthetic.jsonl", "rejected.jsonl"]) as facts:
        if _open_items(wanted, kept, refused, settings.max_attempts):
            with causal_lm(settings.writer, settings.device) as (model, tokenizer):
                facts["revision"] = loaded_revision(model)
                writer = _Writer(model, tokenizer, settings)
                _fill(wanted, writer, kept, refused, labels["text"].tolist(), settings)
    return pd.DataFrame(kept.records, columns=_COLUMNS)


_COLUMNS = ["source_id", "copy", "attempt", "category", "text", "original", "p_yes"]


class _Writer:
    """The model in its two roles: it writes candidates and judges them."""

    def __init__(self, model, tokenizer, settings: Settings) -> None:
        chat = settings.writer.chat
        self.settings, self.tokenizer = settings, tokenizer
        template = template_for("paraphrase", chat, settings.prompts)
        self.prefix, self.tail = split_prompt(template, tokenizer, chat)
        self.sampler = Sampler(
            model,
            tokenizer,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            stop=None if chat else "\n",
        )
        self.lines = [line.split(": ", 1)[-1] for line in template.system.splitlines() if line]
        self.judge = judge_question(model, tokenizer, settings)

    def prompt_ids(self, original: str) -> list[int]:
        """Token ids of the paraphrase prompt; markers inside the review stay plain text."""
        parts = [
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=data)["input_ids"]
            for text, data in (
                (self.prefix, False),
                (one_line(original)[: self.settings.max_review_chars], True),
                (self.tail, False),
            )
        ]
        return [token for part in parts for token in part]

    def write(self, prompts: list[list[int]], seeds: list[int]) -> list[str]:
        return [cleaned(text) for text in self.sampler(prompts, seeds)]

    def p_yes(self, texts: Sequence[str]) -> np.ndarray:
        return p_yes(self.judge, texts, self.settings)


def _fill(
    wanted: list[Wanted],
    writer: _Writer,
    kept: Journal,
    refused: Journal,
    originals: list[str],
    settings: Settings,
) -> None:
    """Rounds over everything still open, until the quota is filled or each item had `max_attempts`.

    A round's batches follow from the items open at its start, so a rerun cuts them as the unbroken run did; a
    batch with a missing attempt is made again as a whole, and only what is missing is recorded.
    """
    batcher = Batcher(settings.tokens_per_batch)
    prompts = {item.source_id: writer.prompt_ids(item.original) for item in wanted}
    # What a candidate must not repeat: any review, any text kept before, any line of the prompt.
    known = [bare(text) for text in originals + [record["text"] for record in kept.records] + writer.lines]
    prompt = frozenset(run for line in writer.lines for run in word_runs(line, settings.leak_words))
    with progress(len(wanted), "augment") as bar:
        bar.update(len(kept.records))
        for attempt in range(settings.max_attempts):
            done = {(r["source_id"], r["copy"]): r["attempt"] for r in kept.records}
            tried = set(done.items()) | {((r["source_id"], r["copy"]), r["attempt"]) for r in refused.records}
            todo = [item for item in wanted if done.get(item.key, attempt) >= attempt]
            lengths = [len(prompts[item.source_id]) + settings.max_new_tokens for item in todo]

            def work(batch: list[int], todo=todo, tried=tried, attempt=attempt) -> None:
                items = [todo[i] for i in batch]
                new = [(item.key, attempt) not in tried for item in items]
                if not any(new):
                    return
                tries = _attempt(items, attempt, prompts, writer, known, prompt, settings)
                fresh = [record for record, is_new in zip(tries, new, strict=True) if is_new]
                refused.append(r for r in fresh if r["reason"] != ACCEPTED)
                good = [{k: r[k] for k in _COLUMNS} for r in fresh if r["reason"] == ACCEPTED]
                kept.append(good)
                known.extend(bare(r["text"]) for r in good)
                bar.update(len(good))

            batcher.run(lengths, work)


def _attempt(
    items: list[Wanted],
    attempt: int,
    prompts: dict[str, list[int]],
    writer: _Writer,
    known: list[str],
    prompt: frozenset[str],
    settings: Settings,
) -> list[dict]:
    """One candidate for each item, judged: records with a reason, "accepted" among them."""
    names = [f"{settings.seed}:{item.source_id}:{item.copy}:{attempt}" for item in items]
    seeds = [random.Random(name).getrandbits(63) for name in names]
    texts = writer.write([prompts[item.source_id] for item in items], seeds)
    records, batch_texts = [], []
    for item, text in zip(items, texts, strict=True):
        reason = first_reason(text, item.original, known + batch_texts, settings, prompt)
        batch_texts += [bare(text)] if reason is None else []
        records.append(
            {
                "source_id": item.source_id,
                "copy": item.copy,
                "attempt": attempt,
                "category": item.category,
                "text": text,
                "original": item.original,
                "p_yes": None,
                "reason": reason,
            }
        )
    to_judge = [i for i, record in enumerate(records) if record["reason"] is None]
    if to_judge:
        for i, p in zip(to_judge, writer.p_yes([texts[i] for i in to_judge]), strict=True):
            yes = verdicts(float(p), settings.judge_draws, names[i])
            records[i] |= {"p_yes": round(float(p), 6), "reason": ACCEPTED if all(yes) else "judge"}
    return records


def _open_items(wanted: list[Wanted], kept: Journal, refused: Journal, max_attempts: int) -> int:
    done = {(r["source_id"], r["copy"]) for r in kept.records}
    tries = Counter((r["source_id"], r["copy"]) for r in refused.records)
    return sum(item.key not in done and tries[item.key] < max_attempts for item in wanted)


def _identity(settings: Settings) -> list:
    """Everything a synthetic review depends on beside its original."""
    chat = settings.writer.chat
    return [
        vars(settings.writer),
        [vars(template_for(name, chat, settings.prompts)) for name in ("paraphrase", "judge")],
        settings.seed,
        [settings.temperature, settings.top_p, settings.max_new_tokens, settings.max_review_chars],
        [settings.judge_temperature, settings.judge_draws, settings.prior_correction],
        [settings.min_chars, settings.min_length_ratio, settings.max_length_ratio, settings.length_slack],
        [settings.min_cyrillic, settings.max_repeated, settings.leak_words, settings.max_copy_similarity],
    ]
