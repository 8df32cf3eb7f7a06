from html.parser import HTMLParser

import pandas as pd
import pytest
from hostile import HOSTILE, SHOWN
from matplotlib.figure import Figure

from sirius_helpers.encoder.scores import ORIGINAL
from sirius_helpers.files.reviews import BY_HAND
from sirius_helpers.files.runs import Run
from sirius_helpers.show import evidence, html, tables
from sirius_helpers.show.pictures import png

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


class Tags(HTMLParser):
    """The tags of a page, each with the names of its attributes; what a browser takes for text is none."""

    def __init__(self, page):
        super().__init__()
        self.found = set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found |= {(tag, name) for name, _ in attributes} | {(tag, None)}


OURS = {("div", "class"), ("th", "class"), ("td", "class"), ("img", "style"), ("img", "alt"), ("img", "src")}
OURS |= {("p", "class"), ("img", "class"), ("figure", "class")}
OURS |= {
    (tag, None)
    for tag in ("style", "figure", "figcaption", "div", "table", "tr", "th", "td", "mark", "p", "b", "code", "img")
}


@pytest.mark.parametrize("name", SHOWN)
def test_whatever_is_shown_holds_no_tag_and_no_attribute_of_a_text(name):
    """Texts, categories, reasons and names are all hostile here; tests/browser/ opens the same in a browser."""
    page = SHOWN[name]().html
    assert Tags(page).found <= OURS


def test_the_parser_finds_the_tags_of_texts_that_are_not_escaped():
    assert all(Tags(text).found - OURS for text in HOSTILE if text.startswith("<"))


def test_every_display_is_among_those_that_are_shown_hostile_texts():
    modules = (tables, evidence, html)
    own = {f.__name__ for m in modules for f in vars(m).values() if getattr(f, "__module__", "") == m.__name__}
    # A file, pieces, and what is no HTML.
    others = {"report_picture", "marked", "text_block", "folder_of", "hub_models"}
    assert {name for name in own if name[0].islower() and not name.endswith("_rows")} - others == set(SHOWN)


def test_prices_in_dollars_are_no_formulas():
    """What a notebook's MathJax leaves alone."""
    assert 'class="sirius tex2jax_ignore mathjax_ignore"' in html.table(pd.DataFrame({"a": ["$5 и $7"]})).html


def test_short_cells_stay_in_one_piece_and_long_texts_wrap():
    page = html.table(pd.DataFrame({"category": ["посуда"], "text": ["длинный отзыв " * 5], "rows": [3]})).html
    assert "<td>посуда</td>" in page and '<td class="long">длинный' in page and '<td class="num">3' in page


def test_words_that_the_other_text_lacks_are_marked_and_escaped():
    rows = synthetic(1).head(1).assign(original="Сапоги <b>малы</b>, мне", text="сапоги жмут мне & всем")
    page = tables.pairs(rows, n=1).html
    assert "Сапоги &lt;<mark>b</mark>&gt;<mark>малы</mark>&lt;/<mark>b</mark>&gt;, мне" in page
    assert "сапоги <mark>жмут</mark> мне &amp; <mark>всем</mark>" in page


def test_a_judge_no_better_than_chance_is_said_to_be_so():
    judged = pd.DataFrame({"is_review": [True, False] * 10, "p_yes": [0.9, 0.1] * 10})
    assert "no better than chance" in tables.judge(judged.assign(p_yes=0.6), draws=2).html
    assert "no better than chance" not in tables.judge(judged, draws=2).html


def test_a_fixed_seed_shows_the_same_sample_and_another_seed_another():
    rows = synthetic(20)
    same = [tables.pairs(rows, n=5, seed=1).html for _ in range(2)]
    assert same[0] == same[1] != tables.pairs(rows, n=5, seed=2).html


def test_a_text_written_anew_stands_in_the_sample_where_the_rejected_one_stood():
    rows = synthetic(20)
    one = tables.sample_rows(rows, n=5).iloc[2]
    again = pd.concat([rows[rows["id"] != one["id"]], rows[rows["id"] == one["id"]].assign(text="новый")])
    shown = tables.sample_rows(again, n=5)
    assert shown["id"].tolist() == tables.sample_rows(rows, n=5)["id"].tolist() and shown["text"].iloc[2] == "новый"


def test_pairs_can_be_limited_to_a_category():
    page = tables.pairs(synthetic(3), n=50, category="посуда").html
    assert "посуда" in page and "обувь" not in page


def test_least_certain_shows_the_smallest_margins_and_says_when_there_are_none():
    labels = pd.DataFrame(
        {
            "id": ["1", "2"],
            "text": ["ясно", "сомнительно"],
            "margin": [0.9, 0.1],
            "probabilities": [{"a": 0.95, "b": 0.05}, {"a": 0.55, "b": 0.45}],
        }
    )
    page = tables.least_certain(labels, n=1).html
    assert "сомнительно" in page and "ясно" not in page and "a 0.55" in page and "b 0.45" in page
    imported = labels.assign(margin=None, probabilities=None)
    assert "no probabilities" in tables.least_certain(imported, n=1).html


def test_a_picture_is_embedded_and_one_of_the_report_read_from_its_file(tmp_path):
    run = Run(tmp_path)
    run.path("report").mkdir()
    run.path("report").joinpath("curves.png").write_bytes(png(Figure()))
    run.remember(stages={"evaluate": {"read": run.read_by("evaluate")}})
    drawn, read = html.picture(Figure(), alt=NASTY).html, html.report_picture(run, "curves", alt=NASTY).html
    assert drawn == read and "<script" not in drawn and drawn.count("data:image/png;base64,") == 1


def scored(value):
    interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
    per_class = {NASTY: {"rows": 3, "f1": value, "low": 0.0, "high": 1.0}}
    return {"rows": 3, "weighted_f1": interval, "macro_f1": interval, "accuracy": interval, "per_class": per_class}


def test_scores_show_adapter_and_baseline_in_each_view_and_by_leak_where_the_split_leaks():
    views = {"all held-out": {"baseline": scored(0.5), "adapter": scored(0.6)}}
    page = tables.scores({"scores": views}).html
    assert "0.500 [0.400, 0.600]" in page and "0.600 [0.500, 0.700]" in page and "by leak" not in page
    by_leak = {"leaked": {"adapter": scored(0.9)}, "not leaked": {"adapter": scored(0.3)}}
    page = tables.scores({"scores": views, "by_leak": by_leak}).html
    assert page.count("<table>") == 2 and "by leak" in page and "0.300 [0.200, 0.400]" in page
    page = tables.per_class({"scores": {ORIGINAL: views["all held-out"]}}).html
    assert "&lt;script&gt;" in page and page.index("0.600 [0.000, 1.000]") < page.index("0.500 [0.000, 1.000]")


def test_coverage_shows_the_calibration_error_before_and_after_and_a_row_per_threshold():
    row = {"threshold": 0.7, "rows": 30, "coverage": 0.6, "accuracy": 0.9, "low": 0.74, "high": 0.97}
    found = {"temperature": 0.73, "rows": 50, "error_before": 0.165, "error_after": 0.063}
    page = tables.coverage({"calibration": found, "coverage": [row]}).html
    assert "0.165 as trained, 0.063 with temperature 0.73, on 50 held-out originals" in page
    assert "<td>0.7</td>" in page and ">60%<" in page and "0.900 [0.740, 0.970]" in page


def test_epochs_are_whole_numbers_and_the_kept_one_is_named():
    history = pd.DataFrame({"epoch": [1.0, 2.0], "weighted_f1": [0.5, 0.61239], "kept": [False, True]})
    page = tables.training(history).html
    assert page.count("kept") == 1 and ">1<" in page and "0.612" in page


def test_only_labels_by_hand_are_shown_as_corrected():
    labels = pd.DataFrame({"id": ["1", "2"], "text": ["сапоги", "чашка"], "category": "обувь", "labeler": "llm"})
    assert "No label is corrected by hand" in tables.corrected(labels).html
    page = tables.corrected(labels.assign(labeler=["llm", BY_HAND])).html
    assert "corrected by hand: 1" in page and "чашка" in page and "сапоги" not in page


def test_the_most_confident_errors_are_counted_among_all():
    rows = pd.DataFrame({"text": ["a", "b"], "category": "x", "predicted": "y", "confidence": [0.987, 0.5]})
    page = tables.worst(rows, "errors, the most confident", n=1).html
    assert "1 of 2 errors" in page and "0.99" in page and "0.50" not in page


def test_doubtful_labels_show_the_first_and_escape_texts():
    rows = pd.DataFrame(
        {"id": ["1", "2"], "text": [NASTY, "второй"], "category": "a", "suggested": "b", "doubt": "0.9"}
    )
    page = tables.worst(rows, "doubtful labels, the most doubtful", n=1).html
    assert "1 of 2 doubtful labels" in page and "&lt;script&gt;" in page and "второй" not in page


def test_an_empty_set_of_refusals_is_shown_as_such():
    empty = pd.DataFrame(columns=["reason", "category", "original", "text", "p_yes", "attempt"])
    assert "0 of 0" in tables.pairs(empty, n=5).html
    assert "No candidate was refused" in tables.refusals(empty).html


def test_imported_labels_have_no_picture_of_margins_and_no_least_certain_rows():
    labels = pd.DataFrame({"id": ["1"], "text": ["a"], "category": ["b"], "margin": [None], "probabilities": [None]})
    assert "<img" not in tables.least_certain(labels, n=1).html and tables.least_certain_rows(labels, n=1).empty
    assert "<img" in tables.least_certain(labels.assign(margin=0.4, probabilities=[{"b": 0.7, "c": 0.3}]), n=1).html


def test_refused_candidates_are_shown_as_pairs_are_and_picked_by_reason_and_category():
    rows = [("обувь", "сапоги текут", "тарелка", 1, None, "copy_of_original")]
    rows += [("посуда", "чашка", "кружка", 0, 0.3, "judge")]
    refused = pd.DataFrame(rows, columns=["category", "original", "text", "attempt", "p_yes", "reason"])
    page = tables.pairs(refused, n=5, category="посуда").html
    assert "<mark>кружка</mark>" in page and "<mark>чашка</mark>" in page and "0.30" in page and "judge" in page
    assert "тарелка" not in page and "1 of 2 refused" in page
    assert "0 of 2" in tables.pairs(refused, n=5, category="посуда", reason="copy_of_original").html
