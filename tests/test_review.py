import re
from dataclasses import replace
from html import escape

import pandas as pd
import pytest
from conftest import write_csv

from sirius_helpers.encoder.label_noise import second_opinions
from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import Category, phrases, read_categories
from sirius_helpers.files.reviews import BY_HAND, correct, correct_new, corrected, read_corrections, read_texts
from sirius_helpers.files.runs import Run
from sirius_helpers.label import label
from sirius_helpers.review import contradicted, opinions, review
from sirius_helpers.settings import ModelSpec
from sirius_helpers.show.tables import rare as rare_table


@pytest.fixture
def labelled(settings, data):
    """Settings of a run whose labels, imported ones, are there."""
    rows = [f'"{text}",обувь' for text in read_texts(data / "train.csv")]
    (data / "mine.csv").write_text("\n".join(["text,category", *rows]), encoding="utf-8")
    settings = replace(settings, labels=data / "mine.csv")
    label(settings)
    return settings


def file_of(settings):
    return Run(settings.folder).path("corrections.csv")


def test_a_correction_is_kept_and_the_next_review_picks_it_up(labelled):
    ids = review(labelled)["id"].tolist()
    correct(labelled, ids[2], "посуда")
    table = correct(labelled, ids[0], "посуда")
    assert table.to_dict("list") == {"id": [ids[2], ids[0]], "category": ["посуда"] * 2}
    labels = review(labelled).set_index("id")
    assert labels["category"][[ids[0], ids[2]]].tolist() == ["посуда"] * 2
    assert (labels["labeler"] == BY_HAND).sum() == 2


IDS = ["r717936690456", "r004616298152", "r396036402e20", "r396036402e20-2", "a1b2c3d4e5f6", "r717937000000", "r5e3"]


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ("r717936690456,004616298152,396036402e20,R396036402E20-2", IDS[:4]),  # as an older version wrote them, too
        ("4616298152,3.96036402E+28", IDS[1:3]),
        ("4,61630E+09,717936690456,3,96036E+28", [IDS[1], IDS[0], IDS[2]]),
        ("5,00E+03", [IDS[6]]),
    ],
)
def test_ids_that_a_spreadsheet_took_for_numbers_are_found(tmp_path, capsys, rows, right):
    path = tmp_path / "corrections.csv"
    values = re.findall(r"(?:\d,)?[^,]+", rows)
    path.write_text("id;category\n" + "".join(f"{value};b\n" for value in values), encoding="utf-8")
    reviews, taxonomy = pd.DataFrame({"id": IDS, "text": IDS}), [Category("a"), Category("b")]
    assert read_corrections(path, taxonomy, reviews) == dict.fromkeys(right, "b")
    assert ("took for numbers" in capsys.readouterr().out) == ("E+" in rows)
    path.write_text("id;category\n7,17937E+11;b\n9E+9;b\na1b2c3d4e5f6;b\n", encoding="utf-8")  # two look like the first
    with pytest.raises(UserError, match=r"rows 1, 2: no review has the id '7,17937E\+11', '9E\+9'; correct the row"):
        read_corrections(path, taxonomy, reviews)


def test_a_later_correction_replaces_the_earlier_one(labelled):
    (first, *_) = review(labelled)["id"]
    correct(labelled, first, "посуда")
    correct(labelled, first, "обувь")
    assert corrected(labelled) == {first: "обувь"}


RARE = pd.DataFrame(
    [
        ("a", "обувь", "посуда", "посуда"),
        ("b", "обувь", "посуда", "обувь"),
        ("c", "обувь", "", "посуда"),  # who learns from examples labelled it
        ("d", "обувь", "", "обувь"),
        ("e", "обувь", "одежда", "посуда"),
    ],
    columns=["id", "category", "other", "nearest"],
)


def test_a_label_is_contradicted_where_no_other_opinion_is_its_own_and_nobody_confirmed_it():
    labels = RARE[["id", "category"]].assign(labeler=["x", "x", "x", "x", BY_HAND])
    assert contradicted(RARE, labels) == {"a", "c"}
    assert contradicted(RARE.head(0), labels) == set()


def test_opinions_are_of_the_rarer_half_of_the_categories_as_the_labeler_filed_them(labelled, data, roberta, capsys):
    assert opinions(labelled).empty  # nobody to ask
    lines = (data / "mine.csv").read_text(encoding="utf-8").splitlines()
    lines[1:3] = [line.replace(",обувь", ",посуда") for line in lines[1:3]]
    (data / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    asked = replace(labelled, second_labeler=ModelSpec(str(roberta)))
    label(asked)
    rare = opinions(asked)
    assert rare["text"].tolist() == read_texts(data / "train.csv")[:2] and set(rare["category"]) == {"посуда"}
    known = dict((text, name) for text, name in phrases(read_categories(data)))
    assert rare["nearest"].tolist() == [known[text] for text in rare["phrase"]]
    assert set(rare["other"]) <= {"обувь", "посуда"}
    correct(asked, rare["id"][0], "посуда")  # confirms it
    assert opinions(asked).equals(rare) and rare["id"][0] not in contradicted(rare, review(asked))
    shown = rare_table(rare, review(asked)).html
    assert "by hand: посуда" in shown and "learned from examples: " in shown and escape(rare["phrase"][1]) in shown
    assert second_opinions(rare.assign(category="чай", probabilities=None), [*known.items()], asked).empty
    heard = replace(asked, labels=None, labeler_kind="few-shot")
    assert (second_opinions(rare.assign(probabilities=None), [*known.items()], heard)["other"] == "").all()


def test_corrections_join_a_file_that_a_person_wrote_and_keep_its_form(labelled):
    labels = review(labelled)
    text = labels["text"][0]
    file_of(labelled).write_text(f'text,category,why\n"{text}",посуда,ясно же\n', encoding="utf-8")
    table = correct(labelled, labels["id"][1], "посуда")
    assert table.columns.tolist() == ["text", "category", "why"]
    assert table["text"].tolist() == [text, labels["text"][1]] and table["why"].tolist() == ["ясно же", ""]
    assert review(labelled)["category"][:2].tolist() == ["посуда"] * 2


def test_case_spacing_and_aliases_do_not_matter(labelled):
    labels = review(labelled)
    first, second, *_ = labels["text"]
    rows = f'"  {first.upper()} ",посуда\n"{second}", туфли \n'
    file_of(labelled).write_text(f"text,category\n{rows}", encoding="utf-8")
    labels = review(labelled)
    assert labels["category"].tolist() == ["посуда"] + ["обувь"] * 7
    assert (labels["labeler"] == BY_HAND).tolist() == [True, True] + [False] * 6
    table = correct(labelled, labels["id"][0], "туфли")
    assert table["text"].tolist() == [second, first] and table["category"].tolist() == [" туфли ", "обувь"]


def test_a_text_corrects_all_its_copies_and_a_later_row_holds(labelled):
    reviews = pd.DataFrame({"id": ["a", "a-2", "b"], "text": ["Мала", "мала", "Бьётся"]})
    file_of(labelled).write_text("text,category\nмала,посуда\nМАЛА,обувь\n", encoding="utf-8")
    found = read_corrections(file_of(labelled), read_categories(labelled.data), reviews)
    assert found == {"a": "обувь", "a-2": "обувь"}


def test_an_alias_that_moves_to_another_category_moves_the_correction(labelled):
    labels = review(labelled)
    file_of(labelled).write_text(f"id,category\n{labels['id'][0]},туфли\n", encoding="utf-8")
    assert review(labelled)["category"][0] == "обувь"
    path = labelled.data / "categories.toml"
    alias = 'aliases = ["туфли"]\n'
    path.write_text(path.read_text(encoding="utf-8").replace(alias, "") + alias, encoding="utf-8")
    label(labelled)  # imported labels may go by the alias too
    assert review(labelled)["category"][0] == "посуда"


def test_an_unknown_id_or_category_is_refused_and_nothing_is_written(labelled):
    (first, *_) = review(labelled)["id"]
    with pytest.raises(UserError, match="no review has the id 'nobody'"):
        correct(labelled, "nobody", "посуда")
    with pytest.raises(UserError, match="'мебель' is not a category; allowed are обувь, посуда"):
        correct(labelled, first, "мебель")
    assert not file_of(labelled).exists()


def test_before_there_are_labels_the_stage_that_makes_them_is_named(settings):
    with pytest.raises(UserError, match="run the stage 'label' first"):
        correct(settings, "a", "обувь")


def test_a_write_that_fails_leaves_the_old_corrections(labelled, monkeypatch):
    first, second, *_ = review(labelled)["id"]
    correct(labelled, first, "посуда")
    monkeypatch.setattr("sirius_helpers.files.journal.os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        correct(labelled, second, "посуда")
    assert corrected(labelled) == {first: "посуда"}
    assert not list(labelled.folder.glob("*.part"))


def test_a_file_with_nothing_to_tell_the_review_by_is_refused(labelled):
    write_csv(file_of(labelled), "category", ["обувь"])
    with pytest.raises(UserError, match="needs a column 'id' or 'text'"):
        correct(labelled, review(labelled)["id"][0], "обувь")


def test_corrections_given_once_more_do_not_undo_a_later_choice(labelled, capsys):
    first, second, *_ = review(labelled)["id"]
    correct_new(labelled, {first: "посуда"})
    correct(labelled, first, "обувь")  # as a drop-down does
    correct_new(labelled, {first: "посуда", second: "посуда"})
    assert corrected(labelled) == {first: "обувь", second: "посуда"}
    assert f"{first} stays 'обувь'" in capsys.readouterr().out
