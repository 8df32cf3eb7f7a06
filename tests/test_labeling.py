import contextlib
import json

import numpy as np
import pytest
from tiny_models import tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import label_variables, read_categories
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import Run
from sirius_helpers.label import label
from sirius_helpers.llm import labelers, questions
from sirius_helpers.review import review
from sirius_helpers.settings import CAUSAL_LM, ModelSpec, Settings


class FakeQuestion:
    """Answers "обувь" to whatever names boots; remembers what was asked."""

    asked: list = []
    batch = 3
    dies_after = None

    def __init__(self, model, tokenizer, prefix, tail, answers, *, end, token_budget, **_):
        self.answers = list(answers)

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
    return change(settings, labeler=ModelSpec(CAUSAL_LM, chat=True), labeler_kind="llm")


def change(settings, **values):
    return Settings(**{**vars(settings), **values})


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
    label(change(llm, prompts={"label": {"user": "Что это? $review"}}))
    assert "earlier labels are kept in labels." in capsys.readouterr().out
    assert len(FakeQuestion.asked) == 3


class BiasedQuestion(FakeQuestion):
    """Favours the category that the prompt lists first."""

    def __init__(self, model, tokenizer, prefix, tail, answers, **options):
        super().__init__(model, tokenizer, prefix, tail, answers, **options)
        self.first = min(answers, key=prefix.index)

    def log_probs(self, texts, on_batch=None):
        rows = np.log([[0.9 if name == self.first else 0.1 for name in self.answers] for _ in texts])
        if on_batch:
            on_batch(range(len(texts)), rows)
        return rows


def test_averaging_over_orders_takes_out_a_love_for_the_first_place(llm, monkeypatch):
    monkeypatch.setattr(questions, "ClosedQuestion", BiasedQuestion)
    assert label(llm)["probabilities"][0] == {"обувь": 0.9, "посуда": 0.1}
    averaged = label(change(llm, category_orders=2))
    assert averaged["probabilities"][0] == {"обувь": 0.5, "посуда": 0.5}


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
        for part in tiny_qwen2():
            part.save_pretrained(tmp_path / "labeler")
        changes |= {"labeler": ModelSpec(str(tmp_path / "labeler"), chat=True)}
    labels = label(change(settings, **changes))
    assert set(labels["category"]) <= set(TICKETS)
    assert all(
        set(p) == set(TICKETS) and sum(p.values()) == pytest.approx(1, abs=1e-4) for p in labels["probabilities"]
    )
    if kind == "few-shot":
        assert labels["category"].tolist() == ["billing", "login"]


def test_imported_labels_have_no_made_up_probabilities(settings, data):
    lines = ["text,cat"] + [f'"{r["text"]}",туфли' for r in reviews(data)]
    (data / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    labels = label(change(settings, labels=data / "mine.csv"))
    assert set(labels["category"]) == {"обувь"}  # through its alias
    assert labels["probabilities"].isna().all() and labels["margin"].isna().all()


def test_imported_labels_must_cover_every_review(settings, data):
    (data / "mine.csv").write_text("text,category\nчто-то другое,обувь\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"has no label for 8 of the reviews in .*train.csv.*'Сапоги номер один"):
        label(change(settings, labels=data / "mine.csv"))


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


def test_examples_in_the_label_prompt_look_as_its_own_question_does(data):
    values = label_variables(read_categories(data), "Ticket: $review\nTopic:", shots=1)
    assert values["examples"].startswith("Ticket: сапоги промокают\nTopic: обувь\n\nTicket: ")


def test_label_variables_list_categories_with_descriptions_and_examples(data):
    values = label_variables(read_categories(data), "Отзыв: $review\nКатегория:", shots=1)
    assert values["categories"] == "- обувь: всё, что носят на ногах\n- посуда"
    assert values["examples"] == (
        "Отзыв: сапоги промокают\nКатегория: обувь\n\nОтзыв: тарелка разбилась\nКатегория: посуда"
    )


def reviews(data):
    import csv

    with open(data / "train.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_labels_jsonl_is_plain_json_lines_in_russian(llm):
    label(llm)
    line = Run(llm.folder).path("labels.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert "Сапоги номер один" in line and json.loads(line)["category"] == "обувь"
