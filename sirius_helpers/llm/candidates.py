"""Candidates for synthetic reviews: written in batches, filtered, judged, and tried again until the quota is filled.

writer = Writer(model, tokenizer, settings)
fill(wanted, writer, kept, refused, originals, settings)
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import UserError
from ..files.journal import Journal
from ..kinds import Json, JsonView, LanguageModel, Prompt, Tokenizer
from ..models.batching import Batcher, progress
from ..models.text_tokens import PromptTokens
from ..prompts import one_line, split_prompt, template_for
from ..settings import Settings
from .filters import bare, cleaned, first_reason, word_runs
from .judge import judge_question, p_yes, verdicts
from .quotas import Wanted
from .sampler import sampler_of

COLUMNS = ["source_id", "copy", "attempt", "category", "text", "original", "p_yes"]  # of a kept text
ACCEPTED, BY_HAND = "accepted", "by_hand"  # reasons beside those of the filters and "judge"
HOPELESS = 100  # attempts without one accepted text: with 95 % certainty fewer than 3 in 100 would ever be


class Writer:
    """The model in its two roles: it writes candidates and judges them."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, settings: Settings) -> None:
        self.settings, chat = settings, settings.writer.chat
        template = template_for("paraphrase", settings.prompts)
        self.tokens = PromptTokens(tokenizer, *split_prompt(template, tokenizer, chat))
        sampling: Json = {name: getattr(settings, name) for name in ("temperature", "top_p", "max_new_tokens")}
        self.sampler = sampler_of(model, tokenizer, self.tokens.prefix_ids, **sampling, stop=None if chat else "\n")
        self.lines = [*template.system.splitlines(), *(text for turn in template.examples for text in turn)]
        self.judge = judge_question(model, tokenizer, settings)

    def prompt(self, original: str) -> Prompt:
        """The paraphrase prompt: how many tokens of the fixed part it begins with, and its other tokens."""
        return self.tokens.with_text(one_line(original)[: self.settings.max_review_chars])

    def write(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """A candidate for each prompt, cleaned; equal seeds give equal texts."""
        return [cleaned(text) for text in self.sampler(prompts, seeds)]

    def p_yes(self, texts: Iterable[str]) -> np.ndarray:
        """The judge's probability that each text is a review, (texts,)."""
        return p_yes(self.judge, texts, self.settings)


def fill(
    wanted: list[Wanted], writer: Writer, kept: Journal, refused: Journal, originals: list[str], settings: Settings
) -> None:
    """Rounds over everything still open, until the quota is filled or each item had its attempts.

    A writer of which nothing is accepted is stopped after a round (`stop_if_hopeless`).
    A round's batches follow from the items open at its start, so a rerun cuts them as the unbroken run did; a
    batch with a missing attempt is made again as a whole, and only what is missing is recorded. Where the missing
    one is an earlier try of a kept text (`refused` was emptied) and is now accepted, a person had rejected it.
    """
    batcher = Batcher(settings.tokens_per_batch)
    prompts = {item.source_id: writer.prompt(item.original) for item in wanted}
    # What a candidate must not repeat: any review, any line of the prompt, any text that was judged before, whatever
    # became of it: what was refused for one original must not be kept for another.
    before = [r["text"] for r in kept.records + refused.records if r["p_yes"] is not None]
    known = [bare(text) for text in originals + before + writer.lines]
    prompt = frozenset(run for line in writer.lines for run in word_runs(line, settings.leak_words))

    def work(batch: list[int]) -> None:
        """A candidate for each of these items of the round, filtered, judged and recorded.

        Each is compared with all that passed the filters before it, in this batch too and whatever the judge then says,
        so that it does not matter where a batch ends.
        """
        items = [todo[i] for i in batch]
        if all((*item.key, attempt) in tried for item in items):
            return
        names = [f"{settings.seed}:{item.source_id}:{item.copy}:{attempt}" for item in items]
        seeds = [random.Random(name).getrandbits(63) for name in names]
        texts = writer.write([prompts[item.source_id] for item in items], seeds)
        records: list[Json] = []
        so_far = list(known)
        for item, text in zip(items, texts, strict=True):
            reason = first_reason(text, item.original, so_far, settings, prompt)
            so_far += [bare(text)] if reason is None else []
            found = (item.source_id, item.copy, attempt, item.category, text, item.original, None, reason)
            records.append(dict(zip([*COLUMNS, "reason"], found, strict=True)))
        passed = [(record, name) for record, name in zip(records, names, strict=True) if record["reason"] is None]
        chances = writer.p_yes([record["text"] for record, _ in passed])
        for (record, name), p in zip(passed, map(float, chances), strict=True):
            accepted = BY_HAND if key_of(record) in done else ACCEPTED
            yes = verdicts(p, settings.judge_draws, name)
            record |= {"p_yes": round(p, 4), "reason": accepted if all(yes) else "judge"}
        fresh = [record for record in records if attempt_of(record) not in tried]
        good = [{k: r[k] for k in COLUMNS} for r in fresh if r["reason"] == ACCEPTED]
        refused.append(r for r in fresh if r["reason"] != ACCEPTED)
        kept.append(good)
        known.extend(bare(r["text"]) for r in fresh if r["p_yes"] is not None)
        bar.update(len(good))

    with progress(len(wanted), "augment") as bar:
        bar.update(len(kept.records))
        while found := open_round(wanted, kept, refused, settings.max_attempts):
            attempt, todo = found
            done = set(map(key_of, kept.records))  # the items that have a text
            tried = set(map(attempt_of, kept.records + refused.records))
            batcher.run([len(prompts[item.source_id][1]) + settings.max_new_tokens for item in todo], work)
            stop_if_hopeless(wanted, kept, refused, settings)
        bar.total = bar.n  # a text that none of its attempts gave will not come
        bar.refresh()
    if len(kept.records) < len(wanted):
        print(f"augment: {len(kept.records)} of {len(wanted)} texts; for the others every attempt was refused.")


def stop_if_hopeless(wanted: list[Wanted], kept: Journal, refused: Journal, settings: Settings) -> None:
    """UserError, with the commonest reason and a sample, where whole rounds of 100 attempts or more gave no text.

    It follows from the records alone, and of them from whole rounds: a run that was killed and goes on stops where an
    unbroken one does, and one that is begun again unchanged stops before a model is loaded.
    """
    reasons, tries = Counter(r["reason"] for r in refused.records), Counter(map(key_of, refused.records))
    rounds = min((tries[item.key] for item in wanted), default=0)
    if kept.records or reasons[BY_HAND] or rounds * len(wanted) < HOPELESS:
        return
    reason, times = reasons.most_common(1)[0]
    sample = next(r for r in refused.records if r["reason"] == reason)
    raise UserError(
        f"augment: none of the {len(refused.records)} texts that {settings.writer.name} wrote was accepted. The "
        f"commonest reason ({times / len(refused.records):.0%}): {reason}, as {sample['text'][:80]!r} for "
        f"{sample['original'][:80]!r}. Choose another writer or prompt, or change what refuses them; MAX_SYNTHETIC=0 "
        f"goes on without synthetic reviews. What was written is kept in {refused.path}."
    )


def open_round(
    wanted: list[Wanted], kept: Journal, refused: Journal, max_attempts: int
) -> tuple[int, list[Wanted]] | None:
    """The first attempt that an item lacks, and all items that have or need it; None where nothing is open.

    An item has attempts up to that of its kept text; a text rejected by hand costs it none.
    """
    by_hand = Counter(key_of(r) for r in refused.records if r["reason"] == BY_HAND)
    allowed = {item.key: max_attempts + by_hand[item.key] for item in wanted}
    allowed |= {key_of(r): r["attempt"] + 1 for r in kept.records}
    tried = set(map(attempt_of, kept.records + refused.records))
    for attempt in range(max(allowed.values(), default=0)):
        todo = [item for item in wanted if attempt < allowed[item.key]]
        if any((*item.key, attempt) not in tried for item in todo):
            return attempt, todo
    return None


def keep_to_plan(wanted: list[Wanted], kept: Journal, refused: Journal, max_attempts: int) -> None:
    """Leave in both files what a run with this plan and limit makes, in the plan's order; what is refused isn't kept.

    An original that left, or changed its category, takes its copies along; a lower limit what came after it.
    """
    place = {(*item.key, item.category): n for n, item in enumerate(wanted)}
    failed: dict[tuple[str, int], list[int]] = defaultdict(list)
    for record in refused.records:
        if record["reason"] != BY_HAND:
            failed[key_of(record)].append(record["attempt"])
    last = {key: sorted(tries)[max_attempts - 1] for key, tries in failed.items() if len(tries) >= max_attempts}
    gone = set(map(attempt_of, refused.records))

    def in_order(records: list[Json]) -> list[Json]:
        found = []
        for record in records:
            item, attempt = (*key_of(record), record["category"]), record["attempt"]
            if item in place and (attempt <= last.get(key_of(record), attempt) or record.get("reason") == BY_HAND):
                found.append((place[item], attempt, record))
        return [record for *_, record in sorted(found, key=lambda entry: entry[:2])]

    kept.replace(in_order([r for r in kept.records if attempt_of(r) not in gone]))
    refused.replace(in_order(refused.records))


def key_of(record: JsonView) -> tuple[str, int]:
    """The item that a text was written for: `Wanted.key`."""
    return record["source_id"], record["copy"]


def attempt_of(record: JsonView) -> tuple[str, int, int]:
    """The item, and which attempt at it this was."""
    return (*key_of(record), record["attempt"])
