import re

import pandas as pd
import pytest

from sirius_helpers.augment import keep, reject
from sirius_helpers.errors import UserError
from sirius_helpers.files.journal import Journal
from sirius_helpers.files.runs import Run
from sirius_helpers.show import widgets
from sirius_helpers.show.widgets import correct_labels, drop_downs, reject_buttons

NASTY = "<script>alert(1)</script> сапоги"
ROWS = pd.DataFrame(
    {
        "id": ["a", "b"],
        "text": [NASTY, "тарелка"],
        "category": ["обувь", "обувь"],
        "probabilities": [{"обувь": 0.55, "посуда": 0.45}, {"обувь": 0.3, "посуда": 0.7}],
    }
)

PAIRS = pd.DataFrame(
    {
        "id": ["a~1", "b~1"],
        "category": ["обувь", "<b>посуда</b>"],
        "original": [NASTY, "тарелка"],
        "text": ["сапоги жмут", "тарелка цела"],
        "p_yes": 0.9,
        "attempt": 0,
    }
)


@pytest.fixture
def kept(monkeypatch):
    """What was corrected."""
    calls = []
    monkeypatch.setattr(widgets, "correct", lambda settings, *what: calls.append(what))
    return calls


def lines(settings, rows=ROWS):
    return [line.children for line in drop_downs(settings, rows).children]


def buttons(settings, reject=reject, keep=keep):
    return [line.children for line in reject_buttons(settings, PAIRS, reject, keep).children]


def test_each_row_has_its_text_escaped_and_the_categories_with_the_likeliest_first(settings):
    (choice, text, _), (other, *_) = lines(settings)
    assert "&lt;script&gt;" in text.value and "<script" not in text.value
    assert choice.options == (("обувь  0.55 (now)", "обувь"), ("посуда  0.45", "посуда")) and choice.value is None
    assert other.options[0] == ("посуда  0.70", "посуда") and other.value is None


def test_a_choice_is_kept_at_once_and_says_so_also_one_that_confirms(settings, kept):
    (choice, _, said), _ = lines(settings)
    choice.value = "посуда"
    assert kept == [("a", "посуда")] and said.value == "kept in corrections.csv"
    choice.value = "обувь"
    assert kept[1:] == [("a", "обувь")]


@pytest.fixture
def labelled(settings):
    """Settings of a run whose labels are the rows, with a third one."""
    Journal(Run(settings.folder).path("labels.jsonl"), "x").append(
        [*ROWS.to_dict("records"), {"id": "c", "text": "чашка", "category": "посуда", "labeler": "x"}]
    )
    return settings


def corrections(settings, content):
    (settings.folder / "corrections.csv").write_text(content, encoding="utf-8")


def test_what_was_corrected_before_is_shown(labelled):
    corrections(labelled, "id,category\na,посуда\nc,обувь\n")
    assert [line[0].value for line in lines(labelled)] == ["посуда", None]
    corrections(labelled, "text,category\n ТАРЕЛКА ,посуда\n")
    assert [line[0].value for line in lines(labelled)] == [None, "посуда"]


def test_corrections_by_id_are_kept_and_drop_downs_shown_for_as_many_labels_as_asked_for(labelled):
    assert correct_labels(labelled, {"b": "посуда"}, n=0) is None
    assert "b,посуда" in (labelled.folder / "corrections.csv").read_text(encoding="utf-8")


def test_contradicted_rare_labels_come_before_the_least_certain(labelled, monkeypatch):
    rows = [{"id": i, "text": i, "category": "обувь", "labeler": "x", "probabilities": None} for i in "abc"]
    Run(labelled.folder).path("labels.jsonl").unlink()
    Journal(Run(labelled.folder).path("labels.jsonl"), "x").append(
        row | {"margin": margin} for row, margin in zip(rows, (0.3, 0.2, 0.9), strict=True)
    )
    monkeypatch.setattr(widgets, "contradicted", lambda *_: {"c"})
    shown = [line.children[1].value for line in correct_labels(labelled, {}, n=2).children]
    assert [re.sub("<.*?>", "", text)[-1] for text in shown] == ["c", "b"]


def test_a_correction_that_does_not_fit_is_named_with_its_row(labelled):
    corrections(labelled, "id,category\nb,обувь\na,мебель\n")
    with pytest.raises(UserError, match="corrections.csv, row 2: 'мебель' is not a category"):
        lines(labelled)


def test_rows_without_probabilities_have_plain_names(settings):
    (choice, *_), _ = lines(settings, ROWS.drop(columns="probabilities"))
    assert choice.options == (("обувь (now)", "обувь"), ("посуда", "посуда"))


def test_a_refused_correction_is_shown_beside_the_choice(settings, monkeypatch):
    def refuse(*_):
        raise UserError("no room left")

    monkeypatch.setattr(widgets, "correct", refuse)
    (choice, _, said), _ = lines(settings)
    choice.value = "посуда"
    assert said.value == "Error: no room left"


def test_each_pair_has_a_button_and_both_texts_with_differing_words_marked(settings):
    (button, text, said), (_, other, _) = buttons(settings)
    assert (button.description, button.tooltip, said.value) == ("reject", "a~1", "")
    assert "&lt;<mark>script</mark>&gt;" in text.value and "сапоги <mark>жмут</mark>" in text.value
    assert "&lt;b&gt;посуда" in other.value


def test_a_click_rejects_that_review_at_once_and_another_keeps_it(settings):
    clicks = []
    acts = [lambda _, name, what=what: clicks.append((what, name)) for what in ("reject", "keep")]
    _, (button, _, said) = buttons(settings, *acts)
    button.click()
    assert (button.description, said.value) == ("keep", "rejected")
    button.click()
    assert (button.description, said.value) == ("reject", "kept")
    assert clicks == [("reject", "b~1"), ("keep", "b~1")]


def test_a_rejection_that_fails_is_said_beside_the_button_and_can_be_tried_again(settings):
    (button, _, said), _ = buttons(settings)
    button.click()
    assert said.value.startswith("Error: no synthetic review is called 'a~1'") and button.description == "reject"


def test_without_the_widget_library_the_plain_calls_are_shown(settings, monkeypatch):
    monkeypatch.setattr(widgets, "ipywidgets", None)
    assert "correct(settings, &quot;its id&quot;" in drop_downs(settings, ROWS).html
    html = reject_buttons(settings, PAIRS, reject, keep).html
    assert "reject(settings, &quot;its id&quot;" in html and "сапоги <mark>жмут</mark>" in html


def test_no_rows_are_said_to_be_none(settings):
    assert "nothing to correct" in drop_downs(settings, ROWS.head(0)).html
    assert "nothing to reject" in reject_buttons(settings, PAIRS.head(0), reject, keep).html
