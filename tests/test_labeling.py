import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import saved, tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import Category, described, example_turns, read_categories
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import Run
from sirius_helpers.label import label
from sirius_helpers.llm import labelers, questions
from sirius_helpers.review import review
from sirius_helpers.settings import CAUSAL_LM, ENCODER, ModelSpec


class FakeQuestion:
    """Answers "обувь" to whatever names boots; remembers what was asked."""

    asked: list = []
    batch = 3
    dies_after = None
    prefix, prior_texts = "", ()

    def __init__(self, model, tokenizer, prefix, tail, answers, *, end, token_budget, prior_texts):
        FakeQuestion.prefix, FakeQuestion.prior_texts = prefix, prior_texts

    def log_probs(self, texts, on_batch):
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for start in range(0, len(order), self.batch):
            if self.dies_after is not None and len(FakeQuestion.asked) >= self.dies_after:
                raise KeyboardInterrupt
            rows = order[start : start + self.batch]
            FakeQuestion.asked.append([texts[i] for i in rows])
            probability = [0.9 if "Сапоги" in texts[i] else 0.2 for i in rows]
            on_batch(rows, np.log([[p, 1 - p] for p in probability]))


class FakeTokenizer:
    eos_token, bos_token = "<end>", ""

    def apply_chat_template(self, messages, **_):
        return "\n".join(message["content"] for message in messages)


@pytest.fixture
def llm(settings, monkeypatch):
    """Settings with an LLM labeler whose model is scripted."""
    FakeQuestion.asked, FakeQuestion.dies_after = [], None
    model = type("Model", (), {"config": object()})()
    monkeypatch.setattr(questions, "ClosedQuestion", FakeQuestion)
    monkeypatch.setattr(labelers, "causal_lm", lambda *_: contextlib.nullcontext((model, FakeTokenizer())))
    return replace(settings, labeler=ModelSpec(CAUSAL_LM, chat=True), labeler_kind="llm")


def test_llm_labels_keep_all_probabilities_and_stand_in_the_tables_order(llm):
    labels = label(llm)
    assert labels["category"].tolist() == ["обувь"] * 5 + ["посуда"] * 3
    assert labels["probabilities"][0] == {"обувь": 0.9, "посуда": 0.1}
    assert labels["margin"][0] == pytest.approx(0.8)
    assert set(labels["labeler"]) == {CAUSAL_LM}
    record = read_records(Run(llm.folder).path("labels.jsonl"))[0]
    assert {"id", "text", "category", "probabilities", "margin", "labeler"} <= set(record)


def test_a_second_run_asks_nothing(llm):
    label(llm)
    FakeQuestion.asked.clear()
    label(llm)
    assert FakeQuestion.asked == []


def test_only_added_reviews_are_labelled(llm, data):
    label(llm)
    FakeQuestion.asked.clear()
    with open(data / "train.csv", "a", encoding="utf-8") as file:
        file.write("новая тарелка\n")
    assert len(label(llm)) == 9
    assert FakeQuestion.asked == [["новая тарелка"]]


@pytest.mark.parametrize("dies_after", [0, 1, 2])
def test_an_interrupted_run_continues_on_the_same_batches(llm, dies_after):
    label(llm)
    path = Run(llm.folder).path("labels.jsonl")
    whole, batches = path.read_bytes(), list(FakeQuestion.asked)
    path.unlink()
    FakeQuestion.asked.clear()
    FakeQuestion.dies_after = dies_after
    with pytest.raises(KeyboardInterrupt):
        label(llm)
    FakeQuestion.dies_after = None
    label(llm)
    assert FakeQuestion.asked == batches and path.read_bytes() == whole


def test_a_changed_prompt_labels_anew_and_says_where_the_old_labels_are(llm, capsys):
    label(llm)
    FakeQuestion.asked.clear()
    label(replace(llm, prompts={"label": {"user": "Что это? $review"}}))
    assert "earlier labels are kept in labels." in capsys.readouterr().out
    assert len(FakeQuestion.asked) == 3


WORDS = {"обувь": "сапог", "посуда": "тарелка", "нет": "ой"}
PHRASES = {name: [f"{word} {n}" for n in range(1, 8)] for name, word in WORDS.items()}


def seven_phrases(data):
    """Three categories with seven example phrases each."""
    parts = [f'[[category]]\nlabel = "{name}"\nexamples = {json.dumps(texts)}' for name, texts in PHRASES.items()]
    (data / "categories.toml").write_text("\n".join(parts), encoding="utf-8")
    return read_categories(data)


def test_the_prompt_shows_two_phrases_of_each_category_and_the_prior_is_taken_from_others(llm):
    taxonomy = seven_phrases(llm.data)
    model, tokenizer = type("Model", (), {})(), FakeTokenizer()
    labelers.label_question(model, tokenizer, taxonomy, llm)
    shown = [text for texts in PHRASES.values() for text in texts if text in FakeQuestion.prefix]
    assert shown == [text for texts in PHRASES.values() for text in texts[:2]]
    answers = [line for line in FakeQuestion.prefix.splitlines() if line in PHRASES]
    assert answers == [*PHRASES] * 2  # one of each category, then the next of each
    others = [texts[n] for n in range(2, 6) for texts in PHRASES.values()]
    assert list(FakeQuestion.prior_texts) == others


@pytest.mark.parametrize("poorest", [0, 1, 2, 3])
def test_the_prior_hears_as_many_phrases_of_each_category(llm, poorest):
    first, *rest = seven_phrases(llm.data)
    few = replace(first, examples=first.examples[:poorest])
    labelers.label_question(type("Model", (), {})(), FakeTokenizer(), [few, *rest], llm)
    assert len(FakeQuestion.prior_texts) == 3 * max(0, poorest - 2)


def test_examples_of_the_users_own_prompt_take_the_place_of_the_taxonomys(llm):
    own = replace(llm, prompts={"label": {"examples": [["Чашка без ручки", "посуда"]]}})
    template = labelers.label_prompt(read_categories(llm.data), own)
    assert template.examples == (("Чашка без ручки", "посуда"),)
    assert labelers.label_prompt(read_categories(llm.data), llm).examples == (
        ("сапоги промокают", "обувь"), ("тарелка разбилась", "посуда"),
        ("ботинки малы", "обувь"), ("чашка красивая", "посуда"),
    )  # fmt: skip


def scripted(rows, size=None, backwards=False):
    """A labeler that hands over these rows in batches of `size`, from the end or from the beginning."""
    rows = np.array(rows)

    def labeler(texts, on_batch):
        order = list(range(len(texts)))[:: -1 if backwards else 1]
        for start in range(0, len(order), size or len(order)):
            batch = order[start : start + (size or len(order))]
            on_batch(batch, rows[batch])

    return labeler


def answers_of(labeler, count):
    """(texts, categories) of a labeler, whatever its batches."""
    found = {}
    labeler(["текст"] * count, lambda batch, rows: found.update(zip(batch, rows, strict=True)))
    return np.array([found[i] for i in range(count)])


ONE = [[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [0.9, 0.1, 0.0], [0.6, 0.3, 0.1]]
OTHER = [[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.8, 0.0], [1 / 3, 1 / 3, 1 / 3]]


@pytest.mark.parametrize("weight", [0.25, 0.5, 0.9])
def test_a_pool_is_the_weighted_geometric_mean_of_its_two_labelers(weight):
    pooled = answers_of(labelers.Pool(scripted(ONE), scripted(OTHER), weight), 4)
    product = np.array(ONE) ** weight * np.array(OTHER) ** (1 - weight)
    assert pooled == pytest.approx(product / product.sum(1, keepdims=True), abs=1e-6)


def test_in_a_pool_agreement_stays_and_where_one_is_undecided_the_other_decides():
    pooled = answers_of(labelers.Pool(scripted(ONE), scripted(OTHER), 0.5), 4)
    assert pooled.argmax(1).tolist() == [0, 1, 0, 0]
    agreeing = answers_of(labelers.Pool(scripted(ONE), scripted(ONE), 0.5), 4)
    assert agreeing == pytest.approx(np.array(ONE), abs=1e-6)


@pytest.mark.parametrize(("weight", "single"), [(1.0, ONE), (0.0, OTHER)])
def test_a_pool_in_which_one_labeler_has_all_the_weight_says_what_that_one_says(weight, single):
    pooled = answers_of(labelers.Pool(scripted(ONE), scripted(OTHER), weight), 4)
    assert pooled == pytest.approx(np.array(single), abs=1e-6)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sizes", [(1, 3), (3, 1), (2, 4)])
def test_the_batches_of_a_pools_labelers_change_nothing(sizes, backwards):
    first, then = scripted(ONE, sizes[0], backwards), scripted(OTHER, sizes[1], not backwards)
    whole = answers_of(labelers.Pool(scripted(ONE), scripted(OTHER), 0.5), 4)
    assert (answers_of(labelers.Pool(first, then, 0.5), 4) == whole).all()


@pytest.fixture
def pooled(llm, monkeypatch):
    """The scripted LLM and a scripted second labeler that says "посуда" with 0.8."""
    loaded = contextlib.nullcontext((None, None))
    monkeypatch.setattr(labelers, "encoder", lambda spec, device: loaded)
    monkeypatch.setattr(labelers, "FewShotLabeler", lambda *_: scripted([[0.2, 0.8]] * 8))
    return replace(llm, second_labeler=ModelSpec(ENCODER), second_weight=0.5)


def test_labels_of_two_labelers_are_pooled_and_a_change_of_the_second_labels_anew(pooled):
    labels = label(pooled)
    boots, dishes = labels["probabilities"][0], labels["probabilities"][7]
    assert boots["обувь"] == pytest.approx(0.6, abs=1e-4)  # √(0.9 · 0.2) : √(0.1 · 0.8) = 3 : 2
    assert dishes["обувь"] == pytest.approx(0.2, abs=1e-4)
    FakeQuestion.asked.clear()
    label(pooled)
    assert FakeQuestion.asked == []
    other = ModelSpec(ENCODER, text_prefix="query: ")
    for changed in ({"second_weight": 0.4}, {"second_labeler": other}, {"second_labeler": None}):
        label(replace(pooled, **changed))
        assert len(FakeQuestion.asked) == 3, changed
        FakeQuestion.asked.clear()


def test_a_second_labeler_is_no_part_of_what_few_shot_labels_depend_on(settings, data):
    taxonomy = read_categories(data)
    other = replace(settings, second_labeler=ModelSpec(ENCODER), second_weight=0.1)
    assert labelers.labeler_fingerprint(other, taxonomy) == labelers.labeler_fingerprint(settings, taxonomy)


TICKETS = {
    "billing": "I was charged twice this month", "refund": "please return my money", "login": "cannot sign in",
    "password reset": "the reset link has expired", "shipping": "where is my parcel", "damage": "the box was crushed",
    "cancellation": "stop my subscription", "upgrade": "move me to the bigger plan", "downgrade": "a smaller plan",
    "invoice": "send me the bill as PDF", "discount": "the coupon does not work", "outage": "the site is down",
    "bug": "the button does nothing", "feature request": "please add dark mode", "security": "somebody used my account",
    "privacy": "delete my data", "integration": "the API returns 500", "training": "how do I use the editor",
    "hardware": "the reader does not turn on", "other": "just wanted to say hello",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llm", "few-shot"])
def test_another_taxonomy_needs_nothing_but_another_categories_toml(settings, data, tmp_path, kind):
    """Twenty English ticket categories, with the real closed question and with the real encoder."""
    lines = [f'[[category]]\nlabel = "{name}"\nexamples = ["{text}"]' for name, text in TICKETS.items()]
    (data / "categories.toml").write_text("\n".join(lines), encoding="utf-8")
    (data / "train.csv").write_text("text\nI was charged twice\ncannot sign in at all\n", encoding="utf-8")
    changes = {"labeler_kind": kind}
    if kind == "llm":
        saved(tmp_path / "labeler", tiny_qwen2())
        changes |= {"labeler": ModelSpec(str(tmp_path / "labeler"), chat=True)}
    labels = label(replace(settings, **changes))
    assert set(labels["category"]) <= set(TICKETS)
    assert all(
        set(p) == set(TICKETS) and sum(p.values()) == pytest.approx(1, abs=1e-4) for p in labels["probabilities"]
    )
    if kind == "few-shot":
        assert labels["category"].tolist() == ["billing", "login"]


def test_imported_labels_have_no_made_up_probabilities(settings, data):
    lines = ["text,cat"] + [f'"{r["text"]}",туфли' for r in reviews(data)]
    (data / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    labels = label(replace(settings, labels=data / "mine.csv"))
    assert set(labels["category"]) == {"обувь"}  # through its alias
    assert labels["probabilities"].isna().all() and labels["margin"].isna().all()


def test_imported_labels_must_cover_every_review(settings, data):
    (data / "mine.csv").write_text("text,category\nчто-то другое,обувь\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"has no label for 8 of the reviews in .*train.csv.*'Сапоги номер один"):
        label(replace(settings, labels=data / "mine.csv"))


def test_the_few_shot_labeler_wants_examples_for_every_category(settings, data, monkeypatch):
    (data / "categories.toml").write_text('[[category]]\nlabel="a"\nexamples=["x"]\n[[category]]\nlabel="b"\n')
    monkeypatch.setattr(labelers, "encoder", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(UserError, match="categories.toml: .* no example phrases for: b"):
        label(settings)


def test_few_shot_labels_follow_the_examples(settings):
    labels = label(settings)  # the embedded encoder
    assert labels["category"].tolist() == ["обувь"] * 5 + ["посуда"] * 3
    assert all(sum(p.values()) == pytest.approx(1, abs=1e-4) for p in labels["probabilities"])


def test_corrections_by_id_or_text_change_labels_csv_only(llm):
    labels = label(llm)
    run = Run(llm.folder)
    before = run.path("labels.jsonl").read_bytes()
    for key in ("id", "text"):
        run.path("corrections.csv").write_text(f'{key},category\n"{labels[key][0]}",посуда\n', encoding="utf-8")
        table = review(llm)
        assert table["category"].tolist() == ["посуда"] + ["обувь"] * 4 + ["посуда"] * 3
        assert table["labeler"].tolist() == ["corrected by hand"] + [CAUSAL_LM] * 7
    run.path("corrections.csv").unlink()
    assert review(llm)["category"].tolist() == labels["category"].tolist()
    assert run.path("labels.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,category\nnone,обувь\n", "row 1: no review has the id 'none'"),
        ("text,category\nСапоги номер один промокают,мебель\n", "row 1: 'мебель' is not a category"),
        ("category\nобувь\n", "needs a column 'id' or 'text'"),
    ],
)
def test_bad_corrections_are_refused_with_their_row(llm, content, message):
    label(llm)
    Run(llm.folder).path("corrections.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        review(llm)


def test_the_label_prompt_lists_the_categories_with_their_descriptions(data):
    assert described(read_categories(data)) == "- обувь: всё, что носят на ногах\n- посуда"


def test_example_turns_take_the_phrases_that_there_are(data):
    taxonomy = [*read_categories(data), Category("нет товара", "", ("не пришло",), ())]
    assert example_turns(taxonomy, 2, skip=1) == (("ботинки малы", "обувь"), ("чашка красивая", "посуда"))
    assert example_turns(taxonomy, 1)[-1] == ("не пришло", "нет товара")


def reviews(data):
    import csv

    with open(data / "train.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_labels_jsonl_is_plain_json_lines_in_russian(llm):
    label(llm)
    line = Run(llm.folder).path("labels.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert "Сапоги номер один" in line and json.loads(line)["category"] == "обувь"
