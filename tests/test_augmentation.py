import contextlib
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import labelled

from sirius_helpers import augment as augmentation
from sirius_helpers.augment import augment, keep, read_refused, reject
from sirius_helpers.errors import UserError
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import Run
from sirius_helpers.llm.filters import bare
from sirius_helpers.llm.judge import read_control
from sirius_helpers.review import review


class FakeWriter:
    """Writes "<seed>" texts; what it is scripted to do depends on the attempt it can see from its calls."""

    calls: list
    answers = staticmethod(lambda original, seed: f"совсем другой текст {seed}")
    opinion = staticmethod(lambda text: 1.0)
    stop_after = None
    lines = ["Куртка тёплая, но рукава коротковаты"]

    def __init__(self, model, tokenizer, settings):
        pass

    def prompt(self, original):
        return 0, [ord(letter) for letter in original]

    def write(self, prompts, seeds):
        if self.stop_after is not None and len(FakeWriter.calls) >= self.stop_after:
            raise KeyboardInterrupt
        FakeWriter.calls.append(len(prompts))
        originals = ["".join(map(chr, ids)) for _, ids in prompts]
        return [type(self).answers(original, seed) for original, seed in zip(originals, seeds, strict=True)]

    def p_yes(self, texts):
        return np.array([type(self).opinion(text) for text in texts])


@pytest.fixture
def writer(monkeypatch):
    """A scripted model in place of the real one."""

    class Scripted(FakeWriter):
        pass

    FakeWriter.calls = []
    model = type("Model", (), {"config": object()})()
    monkeypatch.setattr(augmentation, "Writer", Scripted)
    monkeypatch.setattr(augmentation, "causal_lm", lambda *_: contextlib.nullcontext((model, None)))
    return Scripted


@pytest.fixture
def ready(settings):
    """Settings whose run has labels: five of one category, three of the other."""
    run = Run(settings.folder)
    labels = labelled({"обувь": 5, "посуда": 3})
    lines = [json.dumps(row | {"labeler": "x"}, ensure_ascii=False) for row in labels.to_dict("records")]
    run.folder.mkdir(parents=True)
    run.path("labels.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    review(settings)
    return settings


def test_the_whole_quota_is_filled_when_everything_is_accepted(ready, writer):
    kept = augment(ready)
    assert Counter(kept["category"]) == {"обувь": 5, "посуда": 6}
    assert len(FakeWriter.calls) == 1
    assert set(kept["p_yes"]) == {1.0} and kept["text"].is_unique


def test_both_verdicts_must_be_yes(ready, writer):
    writer.opinion = staticmethod(lambda text: 0.5)
    run = Run(ready.folder)
    kept = augment(ready)
    refused = read_records(run.path("rejected.jsonl"))
    attempts = len(kept) + len(refused)
    assert {record["reason"] for record in refused} == {"judge"}
    assert len(kept) / attempts == pytest.approx(0.25, abs=0.12)  # two draws of one half


def test_refused_attempts_are_logged_and_end_at_the_cap(ready, writer):
    writer.opinion = staticmethod(lambda text: 0.0)
    assert augment(replace(ready, max_attempts=3)).empty
    refused = read_records(Run(ready.folder).path("rejected.jsonl"))
    tries = Counter((record["source_id"], record["copy"]) for record in refused)
    assert len(tries) == 11 and set(tries.values()) == {3}
    assert all(record["text"] and record["reason"] == "judge" for record in refused)


def test_a_copy_of_the_original_never_reaches_the_judge(ready, writer):
    writer.answers = staticmethod(lambda original, seed: original)
    control = set(read_control(ready.data)["text"])
    writer.opinion = staticmethod(lambda text: 0.9 if text in control else pytest.fail("the judge was asked"))
    augment(replace(ready, max_attempts=1))
    refused = read_records(Run(ready.folder).path("rejected.jsonl"))
    assert {record["reason"] for record in refused} == {"copy_of_original"}
    assert {record["p_yes"] for record in refused} == {None}


def test_an_example_of_the_prompt_is_not_taken_for_a_paraphrase(ready, writer):
    writer.answers = staticmethod(lambda original, seed: "Куртка тёплая, но рукава коротковаты!")
    assert augment(replace(ready, max_attempts=1)).empty
    refused = read_records(Run(ready.folder).path("rejected.jsonl"))
    assert {record["reason"] for record in refused} == {"near_duplicate"}


def test_equal_candidates_in_one_batch_are_kept_once(ready, writer):
    writer.answers = staticmethod(lambda original, seed: "всегда одно и то же предложение")
    assert len(augment(replace(ready, max_attempts=2))) == 1


def texts_of(settings):
    """What the two files hold, but for where a batch ended."""
    files = [read_records(Run(settings.folder).path(name)) for name in ("synthetic.jsonl", "rejected.jsonl")]
    return [[{k: v for k, v in record.items() if k != "batch_left"} for record in records] for records in files]


def test_a_text_refused_for_one_review_is_not_kept_for_another_and_batches_make_no_difference(ready, writer):
    """Few different texts, written again and again; the judge refuses some of them."""
    ends = ["в первый день", "после стирки", "у мамы", "зимой", "на даче", "без причины"]
    words = [f"{what} {end}" for what in ("порвалось", "выцвело", "запахло", "не открылось") for end in ends]
    writer.answers = staticmethod(lambda original, seed: words[seed % len(words)] + "!" * (seed % 3))
    writer.opinion = staticmethod(lambda text: 0.7)
    seen = []
    for tokens in (1, 300, 16_384):
        small = replace(ready, tokens_per_batch=tokens, max_attempts=8)
        augment(small)
        kept, refused = texts_of(small)
        judged = {bare(r["text"]) for r in refused if r["reason"] == "judge"}
        assert kept and {r["reason"] for r in refused} == {"judge", "near_duplicate"}
        assert not judged & {bare(r["text"]) for r in kept}
        seen.append((kept, refused))
        Run(ready.folder).path("synthetic.jsonl").unlink(), Run(ready.folder).path("rejected.jsonl").unlink()
    assert seen[0] == seen[1] == seen[2]


def test_a_second_run_asks_the_model_nothing(ready, writer):
    first = augment(ready)
    FakeWriter.calls.clear()
    pd.testing.assert_frame_equal(augment(ready), first)
    assert FakeWriter.calls == []


def hopeless_texts(original, seed):
    return "[вставьте сюда\nтовар]" if seed % 5 else original


def test_a_writer_that_never_succeeds_is_stopped_with_the_commonest_reason_and_a_sample(ready, writer):
    writer.answers = staticmethod(hopeless_texts)
    six = replace(ready, max_synthetic=6, max_attempts=100)
    with pytest.raises(UserError) as error:
        augment(six)
    said = str(error.value)
    assert "none of the 102 texts that" in said and re.search(r"\((7|8)\d%\): placeholder, as '\[вставьте сюда", said)
    assert "for 'отзыв 0 о посуда'" in said and "\n" not in said
    assert len(read_records(Run(six.folder).path("rejected.jsonl"))) == 102 and len(FakeWriter.calls) == 17


def test_a_stopped_writer_is_stopped_again_before_a_model_is_loaded_and_other_settings_go_on(
    ready, writer, monkeypatch
):
    writer.answers = staticmethod(hopeless_texts)
    six = replace(ready, max_synthetic=6, max_attempts=100)
    with pytest.raises(UserError) as first:
        augment(six)
    with monkeypatch.context() as patched, pytest.raises(UserError) as again:
        patched.setattr(augmentation, "causal_lm", lambda *_: pytest.fail("was loaded"))
        augment(six)
    assert str(again.value) == str(first.value)
    assert augment(replace(ready, max_synthetic=0)).empty
    writer.answers = FakeWriter.answers
    assert len(augment(replace(six, temperature=0.7))) == 6


def interrupted(settings, writer, batches):
    """After so many batches, which `FakeWriter.calls` counts from here on."""
    FakeWriter.calls.clear()
    writer.stop_after = batches
    with pytest.raises(KeyboardInterrupt):
        augment(settings)
    writer.stop_after = None


def test_a_run_that_was_killed_stops_where_an_unbroken_one_does(ready, writer):
    writer.answers = staticmethod(hopeless_texts)
    small = replace(ready, tokens_per_batch=500, max_attempts=100)
    with pytest.raises(UserError) as unbroken:
        augment(small)
    run, batches = Run(small.folder), len(FakeWriter.calls)
    whole = run.path("rejected.jsonl").read_bytes()
    assert batches == 3 * 10
    for stop in (1, 2, batches // 2, batches - 1):
        run.path("rejected.jsonl").unlink()
        interrupted(small, writer, stop)
        with pytest.raises(UserError) as error:
            augment(small)
        assert str(error.value) == str(unbroken.value) and len(FakeWriter.calls) == batches
        assert run.path("rejected.jsonl").read_bytes() == whole


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_weak_writer_that_succeeded_once_has_all_its_attempts(ready, writer, by_hand):
    once = iter([True])
    writer.answers = staticmethod(
        lambda original, seed: f"другой {seed}" if next(once, None) else hopeless_texts(original, seed)
    )
    writer.opinion = staticmethod(lambda text: 1.0)
    weak = replace(ready, max_attempts=12)
    kept = augment(weak)
    if by_hand:
        reject(weak, *kept["id"])
    assert len(augment(weak)) == 1 - by_hand
    assert len(read_refused(Run(weak.folder))) >= 10 * 12


def test_an_interrupted_run_continues_to_the_same_result(ready, writer, tmp_path):
    writer.opinion = staticmethod(lambda text: 0.7)
    small = replace(ready, tokens_per_batch=300, max_attempts=6)
    whole = augment(small)
    run = Run(small.folder)
    expected = {name: run.path(name).read_bytes() for name in ("synthetic.jsonl", "rejected.jsonl")}
    batches = len(FakeWriter.calls)
    assert batches > 6
    for stop in range(1, batches, 2):
        for name in expected:
            run.path(name).unlink()
        interrupted(small, writer, stop)
        pd.testing.assert_frame_equal(augment(small), whole)
        assert len(FakeWriter.calls) == batches  # nothing was made twice
        assert {name: run.path(name).read_bytes() for name in expected} == expected


def test_a_kill_between_the_two_files_loses_and_doubles_nothing(ready, writer):
    writer.opinion = staticmethod(lambda text: 0.6)
    whole = augment(ready)
    run = Run(ready.folder)
    refused = run.path("rejected.jsonl").read_bytes()
    assert refused
    run.path("synthetic.jsonl").unlink()  # the refused half of every batch is on disk, the kept half is not
    pd.testing.assert_frame_equal(augment(ready), whole)
    assert run.path("rejected.jsonl").read_bytes() == refused


def test_a_corrected_label_takes_its_copies_along_and_leaves_the_others(ready, writer):
    before = augment(ready)
    run = Run(ready.folder)
    run.path("corrections.csv").write_text("id,category\nпосуда-0,обувь\n", encoding="utf-8")
    review(ready)
    FakeWriter.calls.clear()
    after = augment(ready)
    assert set(after[after["source_id"] == "посуда-0"]["category"]) == {"обувь"}
    same = [row for row in before.to_dict("records") if row["source_id"] != "посуда-0"]
    assert all(row in after.to_dict("records") for row in same)
    assert sum(FakeWriter.calls) < len(before)


def test_another_prompt_sets_the_old_texts_aside(ready, writer, capsys):
    augment(ready)
    changed = replace(ready, prompts={"judge": {"user": "Ну что? $review"}})
    kept = augment(changed)
    assert "earlier texts are kept in synthetic." in capsys.readouterr().out
    assert len(kept) == 11 and len(list(Run(ready.folder).folder.glob("synthetic.*.jsonl"))) == 1


def test_a_text_rejected_by_hand_never_comes_back_and_its_place_is_filled_again(ready, writer):
    kept = augment(ready)
    run = Run(ready.folder)
    gone = kept.iloc[3]
    left = reject(ready, gone["id"])
    assert gone["id"] not in set(left["id"]) and len(left) == len(kept) - 1
    (record,) = read_records(run.path("rejected.jsonl"))
    assert (record["reason"], record["text"]) == ("by_hand", gone["text"])
    again = augment(ready)
    (new,) = again[again["id"] == gone["id"]].to_dict("records")
    assert new["attempt"] == 1 and new["text"] != gone["text"]
    assert len(again) == len(kept) and gone["text"] not in set(again["text"])
    assert set(again["text"]) - {new["text"]} == set(kept["text"]) - {gone["text"]}


def test_a_text_rejected_by_hand_costs_no_attempt(ready, writer):
    once = replace(ready, max_attempts=1)
    first = augment(once)["id"][0]
    for attempt in (1, 2):
        reject(once, first)
        kept = augment(once)
        assert len(kept) == 11 and kept.set_index("id")["attempt"][first] == attempt
    reject(once, first)
    writer.opinion = staticmethod(lambda text: 0.0)
    assert first not in set(augment(once)["id"])
    reasons = [r["reason"] for r in read_records(Run(once.folder).path("rejected.jsonl"))]
    assert reasons == ["by_hand", "by_hand", "by_hand", "judge"]
    FakeWriter.calls.clear()
    assert len(augment(once)) == 10 and FakeWriter.calls == []


def test_a_text_of_other_settings_is_not_rejected_and_both_files_stay(ready, writer):
    kept = augment(ready)
    folder = Run(ready.folder).folder
    before = {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}
    with pytest.raises(UserError, match="under other settings: .* run the stage 'augment' first"):
        reject(replace(ready, temperature=0.9), kept["id"][0])
    assert {path.name: path.read_bytes() for path in folder.glob("*.jsonl")} == before


def test_a_kill_between_refusing_and_removing_does_not_bring_a_text_back(ready, writer):
    kept = augment(ready)
    path = Run(ready.folder).path("synthetic.jsonl")
    before = path.read_bytes()
    reject(ready, kept["id"][0])
    path.write_bytes(before)  # as it was before the text left the kept ones
    assert kept["text"][0] not in set(augment(ready)["text"])


def test_a_rejection_is_taken_back_until_another_text_stands_in_its_place(ready, writer):
    kept = augment(ready)
    first, second = kept["id"][:2]
    left = reject(ready, first, second)
    pd.testing.assert_frame_equal(keep(ready, second), pd.concat([left, kept.iloc[[1]]], ignore_index=True))
    new = augment(ready)
    assert set(new["text"]) - set(kept["text"]) == set(new.loc[new["id"] == first, "text"])
    with pytest.raises(UserError, match=f"{first}: another text was written in its place"):
        keep(ready, first)
    with pytest.raises(UserError, match=f"'{second}' was not rejected by hand"):
        keep(ready, second)
    pd.testing.assert_frame_equal(augment(ready), new)


def test_a_kill_while_a_rejection_is_taken_back_leaves_the_text_rejected(ready, writer):
    name = augment(ready)["id"][0]
    reject(ready, name)
    path = Run(ready.folder).path("rejected.jsonl")
    before = path.read_bytes()
    text = keep(ready, name).set_index("id")["text"][name]
    path.write_bytes(before)  # as it was before the rejection left it
    assert text not in set(augment(ready)["text"])


def test_what_is_rejected_by_hand_is_a_known_text_to_later_candidates(ready, writer):
    writer.answers = staticmethod(lambda original, seed: f"текст к отзыву {original}")
    one = replace(ready, max_synthetic=1, max_attempts=2)
    kept = augment(one)
    reject(one, kept["id"][0])
    assert augment(one).empty
    assert [r["reason"] for r in read_records(Run(one.folder).path("rejected.jsonl"))] == [
        "by_hand",
        *["near_duplicate"] * 2,
    ]


def test_what_was_rejected_by_hand_at_the_last_attempts_stays_out_when_the_refusals_are_lost(ready, writer):
    once = replace(ready, max_attempts=1)
    name = augment(once)["id"][0]
    for _ in range(2):
        reject(once, name)
        whole = augment(once)
    path = Run(once.folder).path("rejected.jsonl")
    lost = path.read_bytes()
    path.write_bytes(b"")
    pd.testing.assert_frame_equal(augment(once), whole)
    assert path.read_bytes() == lost


@pytest.mark.parametrize("harm", ["emptied", "half of it gone"])
def test_refused_attempts_that_were_lost_are_made_again_and_what_is_kept_stays(ready, writer, harm):
    """Also those of a full quota; what a person had rejected does not come back, though its record is gone too."""
    writer.opinion = staticmethod(lambda text: 0.6)
    reject(ready, augment(ready)["id"][2])
    whole = augment(ready)
    run = Run(ready.folder)
    path, kept = run.path("rejected.jsonl"), run.path("synthetic.jsonl").read_bytes()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"" if harm == "emptied" else b"".join(lines[: len(lines) // 2]))
    pd.testing.assert_frame_equal(augment(ready), whole)
    assert run.path("synthetic.jsonl").read_bytes() == kept
    tries = [Counter((r["source_id"], r["copy"], r["attempt"], r["text"]) for r in rows) for rows in (
        map(json.loads, lines), read_records(path)
    )]  # fmt: skip
    assert tries[0] == tries[1] and max(tries[1].values()) == 1
    assert [r["reason"] for r in read_records(path)].count("by_hand") == 1


def test_an_unknown_name_is_refused_and_nothing_is_taken_out(ready, writer):
    kept = augment(ready)
    with pytest.raises(UserError, match="no synthetic review is called 'nobody~1'"):
        reject(ready, kept["id"][0], "nobody~1")
    assert len(augment(ready)) == len(kept)


def test_the_judge_answers_the_control_texts_once(ready, writer):
    asked = []
    writer.opinion = staticmethod(lambda text: asked.append(text) or 0.9)
    augment(ready)
    records = read_records(Run(ready.folder).path("judge.jsonl"))
    assert [r["text"] for r in records] == read_control(ready.data)["text"].tolist() == asked[: len(records)]
    assert {r["p_yes"] for r in records} == {0.9} and sum(r["is_review"] for r in records) == 65
    asked.clear()
    augment(replace(ready, max_synthetic=3))
    assert asked == []


def test_other_control_texts_are_judged_and_no_text_is_written_again(ready, writer):
    asked = []
    writer.opinion = staticmethod(lambda text: asked.append(text) or 1.0)
    first = augment(ready)
    asked.clear()
    FakeWriter.calls.clear()
    own = "text,is_review\nThe lamp is broken,yes\nI cannot do that,no\n"
    (ready.data / "judge_control.csv").write_text(own, encoding="utf-8")
    pd.testing.assert_frame_equal(augment(ready), first)
    assert asked == ["The lamp is broken", "I cannot do that"] and FakeWriter.calls == []
    assert [r["is_review"] for r in read_records(Run(ready.folder).path("judge.jsonl"))] == [True, False]
    (ready.data / "judge_control.csv").unlink()
    augment(ready)
    assert len(read_records(Run(ready.folder).path("judge.jsonl"))) == 130 and len(asked) == 2  # they come back


def test_with_other_answers_the_judge_decides_anew(ready, writer):
    augment(ready)
    FakeWriter.calls.clear()
    asked = replace(ready, prompts={"judge": dict(ready.prompts["judge"])})
    augment(asked)
    assert FakeWriter.calls == []  # the default, only written out
    augment(replace(ready, prompts={"judge": {"yes": "yes", "no": "no", "examples": []}}))
    assert FakeWriter.calls == [11]
