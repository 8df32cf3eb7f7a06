from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from tiny_models import tiny_gemma3, tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.llm.judge import judge_question, judge_report, p_yes, read_control, verdicts
from sirius_helpers.prompts import PROMPTS, split_prompt, template_for
from sirius_helpers.settings import BUNDLED, PROJECT, ModelSpec

SHORT = {"judge": {"system": "Отзыв?", "user": "$review", "yes": "да", "no": "нет", "examples": []}}


def judge_settings(settings, chat, temperature):
    changes = {"writer": ModelSpec("tiny", chat=chat), "judge_temperature": temperature}
    changes |= {"prompts": SHORT, "prior_correction": False}  # what `generate` knows nothing of
    return replace(settings, **changes)


def share_of_yes_by_generate(model, tokenizer, prompt, answers, temperature, calls):
    """What sampled decoding says that may write nothing but one of the answers."""
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    paths = [tokenizer(answer, add_special_tokens=False)["input_ids"] for answer in answers]

    def allowed(_, written):
        done = written[ids.shape[1] :].tolist()
        return sorted({path[len(done)] for path in paths if path[: len(done)] == done and len(path) > len(done)})

    torch.manual_seed(0)
    out = model.generate(
        ids.repeat(calls, 1),
        attention_mask=torch.ones(calls, ids.shape[1], dtype=torch.long),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        max_new_tokens=min(map(len, paths)),
        prefix_allowed_tokens_fn=allowed,
    )
    yes = torch.tensor(paths[0][: min(map(len, paths))])
    return float((out[:, ids.shape[1] :] == yes).all(1).float().mean())


@pytest.mark.parametrize("temperature", [0.7, 1.5])
@pytest.mark.parametrize(("make", "seed", "chat"), [(tiny_qwen2, 0, True), (tiny_gemma3, 3, False)])
def test_draws_follow_the_distribution_that_generate_samples_from(settings, make, seed, chat, temperature):
    """For each text: neither 1,000 sampled generations nor 1,000 seeded draws contradict P(yes)."""
    model, tokenizer = make(seed)
    asked = judge_settings(settings, chat, temperature)
    question = judge_question(model, tokenizer, asked)
    prefix, tail = split_prompt(template_for("judge", SHORT), tokenizer, chat)
    answers = ["да<|im_end|>", "нет<|im_end|>"] if chat else [" да\n", " нет\n"]
    texts = ["Сапоги промокают", "Извините, не могу", "да"]
    calls, probabilities = 1000, p_yes(question, texts, asked)
    assert np.ptp(probabilities) > 0.1
    for text, p in zip(texts, probabilities, strict=True):
        generated = share_of_yes_by_generate(model, tokenizer, prefix + text + tail, answers, temperature, calls)
        drawn = np.mean([verdicts(p, 1, f"{text}:{n}")[0] for n in range(calls)])
        for share in (generated, drawn):
            assert binomtest(round(share * calls), calls, p).pvalue > 0.001, (text, p, share)


def test_verdicts_are_seeded_draws_from_the_judges_probability():
    assert verdicts(0.5, 8, "a") == verdicts(0.5, 8, "a")
    assert verdicts(1.0, 5, "a") == [True] * 5 and verdicts(0.0, 5, "a") == [False] * 5
    share = np.mean([verdicts(0.3, 1, f"seed {n}")[0] for n in range(4000)])
    assert share == pytest.approx(0.3, abs=0.03)


def test_the_two_draws_of_a_text_are_independent():
    pairs = np.array([verdicts(0.5, 2, f"seed {n}") for n in range(4000)])
    assert abs(np.corrcoef(pairs.T)[0, 1]) < 0.05


@pytest.mark.parametrize(("folder", "each"), [("sample", 65), ("tickets", 30)])  # the package's own, the example's
def test_the_control_set_holds_as_many_reviews_as_refusals(folder, each):
    control = read_control(PROJECT / "data" / folder)
    assert control["is_review"].sum() == (~control["is_review"]).sum() == each
    assert control["text"].is_unique


def test_the_texts_that_the_prompt_was_chosen_by_are_not_reported_and_none_is_an_example():
    table = pd.read_csv(BUNDLED / "judge_control.csv")
    chosen_by = set(table["text"][table["half"] == "choose"])
    reported = set(read_control(PROJECT / "data" / "sample")["text"])
    assert reported == set(table["text"]) - chosen_by and len(table) == len(chosen_by) + len(reported) == 260
    assert not reported & {text for text, _ in PROMPTS["judge"].examples}


def test_a_data_folder_brings_its_own_control_texts(data):
    assert len(read_control(data)) == 130
    (data / "judge_control.csv").write_text("is_review,text,from\nYes ,The lamp is broken,me\nno,I cannot,bot\n")
    rows = read_control(data)
    assert rows.to_dict("list") == {"text": ["The lamp is broken", "I cannot"], "is_review": [True, False]}


@pytest.mark.parametrize(
    ("yes", "no"),
    [("ИСТИНА", "ЛОЖЬ"), ("TRUE", "FALSE"), ("True", "False"), ("Да", "нет "), ("1", "0"), ("YES", "No")],
)
def test_the_answers_may_be_what_people_and_spreadsheets_write(settings, yes, no):
    rows = f"text;is_review\nЛампа разбилась;{yes}\nЯ не могу;{no}\n"
    for encoding in ("utf-8", "utf-16"):  # as 'CSV UTF-8' and as 'Unicode text' are saved
        (settings.data / "judge_control.csv").write_text(rows, encoding=encoding)
        assert read_control(settings.data)["is_review"].tolist() == [True, False]
    (settings.data / "judge_control.csv").write_text(rows.replace(no, yes), encoding="utf-8")
    with pytest.raises(UserError, match="is_review is 'yes' in every row"):
        read_control(settings.data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,is_review\nLamp,yes\nBulb,maybe\n", r"judge_control.csv, row 2: is_review is 'maybe'; write a text and"),
        ("text,is_review\nLamp,yes\nBulb,\n", "judge_control.csv, row 2: is_review is ''"),
        ("text,is_review\nLamp,ИСТИНА\nBulb,ВРАНЬЁ\n", "judge_control.csv, row 2: is_review is 'враньё'"),
        ("text,is_review\n ,yes\nBulb,no\n", "judge_control.csv, row 1: text is empty"),
        ("text,is_review\nLamp,yes\nBulb,yes\n", "is_review is 'yes' in every row"),
        ("text,is_review,half\nLamp,no,choose\nBulb,yes,report\n", "is_review is 'yes' in every row that"),
        ("text,is_review,half\nLamp,no,choose\nBulb,yes,choose\n", "half is 'choose' in every row that"),
        ("text,is_review,half\nLamp,no,choose\nBulb,so,report\n", "judge_control.csv, row 2: is_review is 'so'"),
        ("text,genuine\nLamp,yes\n", "judge_control.csv has no column 'is_review'"),
    ],
)
def test_control_texts_that_try_nothing_are_refused(settings, content, message):
    (settings.data / "judge_control.csv").write_text(content)
    for read in (lambda: read_control(settings.data), lambda: check_inputs(settings)):
        with pytest.raises(UserError, match=message):
            read()


def test_the_judge_answers_in_the_words_of_its_prompt(settings):
    model, tokenizer = tiny_gemma3(3)
    own = judge_settings(settings, False, 1.0)

    def asked(**answers):
        changed = replace(own, prompts={"judge": SHORT["judge"] | answers})
        return p_yes(judge_question(model, tokenizer, changed), ["Lamp", "I cannot"], changed)

    assert np.allclose(asked(yes="нет", no="да"), 1 - asked())
    assert np.allclose(asked(yes="fake", no="real"), 1 - asked(yes="real", no="fake"))
    assert np.abs(asked(yes="real", no="fake") - asked()).min() > 0.01


def test_a_judge_that_sees_the_difference_is_told_from_one_that_guesses():
    def report(p_yes):
        return judge_report(pd.DataFrame({"is_review": [True] * 10 + [False] * 10, "p_yes": p_yes}), draws=2)

    good = report([0.9] * 10 + [0.2] * 10)
    assert good == {
        "texts": 20, "accuracy": 1.0, "kappa": 1.0, "reviews_pass": pytest.approx(0.81),
        "refusals_pass": pytest.approx(0.04), "beats_chance": True,
    }  # fmt: skip
    coin = report([0.9, 0.1] * 10)
    assert coin["accuracy"] == 0.5 and coin["kappa"] == 0 and not coin["beats_chance"]
    always_yes = report([0.99] * 20)
    assert always_yes["kappa"] == 0 and always_yes["refusals_pass"] > 0.9 and not always_yes["beats_chance"]
