import pandas as pd

from sirius_helpers import display

NASTY = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def synthetic(n):
    return pd.DataFrame(
        {
            "id": [f"id~{i}" for i in range(2 * n)],
            "category": ["обувь", "посуда"] * n,
            "original": [NASTY] * (2 * n),
            "text": [f"текст {i}" for i in range(2 * n)],
            "p_yes": 0.9,
            "attempt": 0,
        }
    )


def test_review_text_is_escaped_everywhere():
    html = display.pairs(synthetic(2)).html + display.table(pd.DataFrame({NASTY: [NASTY]}), NASTY).html
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html


def test_words_that_the_other_text_lacks_are_marked_and_escaped():
    rows = synthetic(1).head(1).assign(original="Сапоги <b>малы</b>, мне", text="сапоги жмут мне & всем")
    html = display.pairs(rows).html
    assert "Сапоги &lt;<mark>b</mark>&gt;<mark>малы</mark>&lt;/<mark>b</mark>&gt;, мне" in html
    assert "сапоги <mark>жмут</mark> мне &amp; <mark>всем</mark>" in html


def test_a_judge_no_better_than_chance_is_said_to_be_so():
    report = {"texts": 60, "accuracy": 0.5, "kappa": 0.0, "reviews_pass": 0.2, "refusals_pass": 0.2}
    assert "no better than chance" in display.judge(report | {"beats_chance": False}).html
    assert "no better than chance" not in display.judge(report | {"beats_chance": True}).html


def test_a_fixed_seed_shows_the_same_sample_and_another_seed_another():
    rows = synthetic(20)
    same = [display.pairs(rows, n=5, seed=1).html for _ in range(2)]
    assert same[0] == same[1] != display.pairs(rows, n=5, seed=2).html


def test_pairs_can_be_limited_to_a_category():
    html = display.pairs(synthetic(3), n=50, category="посуда").html
    assert "посуда" in html and "обувь" not in html


def test_least_certain_shows_the_smallest_margins_and_says_when_there_are_none():
    labels = pd.DataFrame(
        {
            "id": ["1", "2"],
            "text": ["ясно", "сомнительно"],
            "margin": [0.9, 0.1],
            "probabilities": [{"a": 0.95, "b": 0.05}, {"a": 0.55, "b": 0.45}],
        }
    )
    html = display.least_certain(labels, n=1).html
    assert "сомнительно" in html and "ясно" not in html and "a 0.55" in html and "b 0.45" in html
    imported = labels.assign(margin=None, probabilities=None)
    assert "no probabilities" in display.least_certain(imported).html


def test_pictures_are_embedded_and_need_no_backend():
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "train_loss": [1.0, 0.5],
            "validation_loss": [1.0, 0.9],
            "weighted_f1": [0.5, 0.6],
            "macro_f1": [0.4, 0.5],
        }
    )
    html = display.picture(display.curves(history), "curves").html
    assert html.startswith("<img") and "data:image/png;base64," in html


def test_the_confusion_matrix_counts_by_label_and_prediction():
    figure = display.confusion(["обувь", "обувь", "посуда"], ["обувь", "посуда", "посуда"], ["обувь", "посуда"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "1", "1"]


def test_an_empty_set_of_refusals_is_shown_as_such():
    empty = pd.DataFrame(columns=["reason", "category", "original", "text", "p_yes"])
    assert "0 of 0" in display.refused_sample(empty).html
    assert "reason" in display.reasons(empty).html
