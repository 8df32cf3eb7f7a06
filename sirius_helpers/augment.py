"""Synthetic reviews for rare categories: quotas, paraphrases, filters, a judge asked twice, another try.

Writes `judge.jsonl` (the judge on texts whose answer is known), `synthetic.jsonl` (kept) and `rejected.jsonl` (refused,
with the reason). No text that the judge or a person refused is kept, nor a near-duplicate, also for another original.

    kept = augment(settings)               # stage "augment"
    reject(settings, "3f2a90b1c7d4~2")     # `augment` then writes another; keep(settings, …) takes that back
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import pandas as pd

from .errors import UserError
from .files.journal import Journal, fingerprint, read_records
from .files.lock import run_lock
from .files.reviews import read_labels
from .files.runs import Run, digest, pinned, stage_mark, told
from .files.tables import records_of
from .kinds import Json, JsonView
from .llm.candidates import BY_HAND, COLUMNS, Writer, fill, keep_to_plan, open_round, stop_if_hopeless
from .llm.judge import control_file, read_control
from .llm.quotas import Wanted, plan
from .loaders import causal_lm
from .prompts import template_for
from .review import contradicted, opinions, review
from .settings import Settings

FILES = ("synthetic.jsonl", "rejected.jsonl")


@told
def augment(settings: Settings) -> pd.DataFrame:
    """Stage "augment": fill the quota; finished attempts are not made again."""
    run, settings = Run(settings.folder, settings), pinned(settings, "writer")
    wanted, writer_mark = planned(settings), stage_mark("augment", *_identity(settings))
    items = [(item.key, item.category, item.original) for item in wanted]
    control = digest(control_file(settings.data))
    mark = fingerprint(writer_mark, items, settings.max_attempts, control)
    if run.is_finished("augment", mark):
        print(f"augment: all {len(wanted)} wanted texts were dealt with earlier; reused.")
        return _named(read_records(run.path("synthetic.jsonl")))
    with run.stage("augment", mark) as facts:
        judged = Journal(run.path("judge.jsonl"), stage_mark("augment", "judge", *_judge_identity(settings), control))
        kept, refused = (Journal(run.path(name), writer_mark) for name in FILES)
        if kept.set_aside:
            print(f"augment: model, prompt or settings changed; earlier texts are kept in {kept.set_aside.name}.")
        keep_to_plan(wanted, kept, refused, settings.max_attempts)
        stop_if_hopeless(wanted, kept, refused, settings)
        try:
            if not judged.records or open_round(wanted, kept, refused, settings.max_attempts):
                with causal_lm(settings.writer, settings.device) as (model, tokenizer):
                    writer = Writer(model, tokenizer, settings)
                    if not judged.records:
                        texts = read_control(settings.data)
                        judged.append(records_of(texts.assign(p_yes=writer.p_yes(texts["text"]).round(4))))
                    fill(wanted, writer, kept, refused, read_labels(run)["text"].tolist(), settings)
        finally:
            keep_to_plan(wanted, kept, refused, settings.max_attempts)  # one order, however many runs it took
        facts["revision"] = settings.writer.revision
    return _named(read_records(run.path("synthetic.jsonl")))


def planned(settings: Settings) -> list[Wanted]:
    """The quota: paraphrases of the labels as they are corrected, but of none that is contradicted and unconfirmed."""
    labels, rare = review(settings), opinions(settings)
    if not settings.multiply_contradicted:
        labels = labels[~labels["id"].isin(contradicted(rare, labels))]
    return plan(labels, settings.max_synthetic)


def read_refused(run: Run) -> pd.DataFrame:
    """The refused attempts: the columns of the kept ones without id, and reason."""
    return pd.DataFrame(read_records(run.need("rejected.jsonl")), columns=[*COLUMNS, "reason"])


def read_judged(run: Run) -> pd.DataFrame:
    """The control texts: columns text, is_review, p_yes."""
    return pd.DataFrame(read_records(run.need("judge.jsonl")))


def reject(settings: Settings, *ids: str) -> pd.DataFrame:
    """Take synthetic reviews out for good; `augment` writes others in their place. Returns what is left."""
    with _by_hand(settings) as (kept, refused):
        gone = _called(ids, kept.records, "no synthetic review is called {}; see the column id of the pairs.")
        # This first here, and last in `keep`: after a kill in between the texts are rejected.
        refused.append({k: record[k] for k in COLUMNS} | {"reason": BY_HAND} for record in gone)
        kept.replace([record for record in kept.records if record not in gone])
        return _named(kept.records)


def keep(settings: Settings, *ids: str) -> pd.DataFrame:
    """Take rejections back, as long as `augment` wrote nothing in their place. Returns what is kept then."""
    with _by_hand(settings) as (kept, refused):
        by_hand = [record for record in refused.records if record["reason"] == BY_HAND]
        back = _called(ids, by_hand, "{} was not rejected by hand.")
        if again := [name for name in map(_id_of, kept.records) if name in ids]:
            raise UserError(f"{', '.join(again)}: another text was written in its place since; look at that one.")
        kept.append({k: record[k] for k in COLUMNS} for record in back)
        refused.replace([record for record in refused.records if record not in back])
        return _named(kept.records)


@contextmanager
def _by_hand(settings: Settings) -> Iterator[tuple[Journal, Journal]]:
    """The kept and the refused texts for a person's choice, while no stage is at work on them."""
    run, mark = Run(settings.folder), stage_mark("augment", *_identity(pinned(settings, "writer")))
    with run_lock(run.folder):
        if any(r.get("fingerprint") != mark for name in FILES for r in read_records(run.path(name))):
            raise UserError(
                f"the texts in {run.folder} were written under other settings: model, prompt, seed, sampling or a "
                "threshold changed since. Take those back to reject one of these texts, or run the stage 'augment' "
                "first: it sets them aside and writes others."
            )
        kept, refused = (Journal(run.path(name), mark) for name in FILES)
        yield kept, refused


def _called(ids: Sequence[str], records: list[Json], otherwise: str) -> list[Json]:
    """The records of these names, each once; of two with a name the later."""
    known = {_id_of(record): record for record in records}
    if unknown := [name for name in ids if name not in known]:
        raise UserError(otherwise.format(", ".join(map(repr, unknown))))
    return [known[name] for name in dict.fromkeys(ids)]


def _id_of(record: JsonView) -> str:
    """What a synthetic review is called: its original's id and its number."""
    return f"{record['source_id']}~{record['copy']}"


def _named(records: list[Json]) -> pd.DataFrame:
    """Kept texts: columns source_id, copy, attempt, category, text, original, p_yes, id."""
    return pd.DataFrame(records, columns=COLUMNS).assign(id=list(map(_id_of, records)))


def _identity(settings: Settings) -> list[object]:
    """Everything a synthetic review depends on beside its original."""
    return [
        settings.writer.identity,
        asdict(template_for("paraphrase", settings.prompts)),
        settings.seed,
        [settings.temperature, settings.top_p, settings.max_new_tokens, settings.max_review_chars],
        [_judge_identity(settings), settings.judge_draws],
        [settings.min_chars, settings.min_length_ratio, settings.max_length_ratio, settings.length_slack],
        [settings.min_cyrillic, settings.max_repeated, settings.leak_words, settings.max_copy_similarity],
    ]


def _judge_identity(settings: Settings) -> list[object]:
    """Everything the judge's probability of a text depends on."""
    template = asdict(template_for("judge", settings.prompts))
    return [settings.writer.identity, template, settings.judge_temperature, settings.prior_correction]
