import re

import pandas as pd
import pytest
from conftest import write_csv as write_quoted
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import Category
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.files.reviews import read_csv, read_labelled, read_reviews, read_texts, review_ids, write_csv
from sirius_helpers.files.tables import read_table

TAXONOMY = [Category("обувь", aliases=("туфли",)), Category("посуда")]


def test_ids_depend_on_the_text_alone_and_repeats_are_told_apart():
    first = review_ids(["раз", "два", "раз"])
    assert first[2] == f"{first[0]}-2"
    assert review_ids(["новый", "раз", "два"])[1:] == first[:2]


def test_quoted_cells_keep_commas_quotes_and_line_breaks(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes('text\r\n"Сказали ""да"", но\r\nне пришло"\r\nNA\r\n'.encode())
    assert read_reviews(path)["text"].tolist() == ['Сказали "да", но\r\nне пришло', "NA"]


def test_a_byte_order_mark_is_not_part_of_the_column_name(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("text\nхорошо\n", encoding="utf-8-sig")
    assert read_texts(path) == ["хорошо"]


def test_training_rows_without_text_are_left_out_and_named(tmp_path, capsys):
    write_quoted(tmp_path / "train.csv", "text", ["раз", "  ", "два", "NaN", "None", "null", "<NA>"])
    assert read_reviews(tmp_path / "train.csv")["text"].tolist() == ["раз", "два"]
    assert "5 rows without text left out (rows 2, 4, 5, 6, 7)" in capsys.readouterr().out


def test_empty_test_rows_are_kept_because_each_gets_a_prediction(tmp_path):
    write_quoted(tmp_path / "test.csv", "text", ["раз", "", "два"])
    assert read_texts(tmp_path / "test.csv") == ["раз", "", "два"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; put the file there"),
        (b"", "is empty; it needs a header line with 'text'"),
        (b"text\n", "has a header but no rows"),
        (b"review\ngood\n", "has no column 'text'; it has 'review'. Rename the column"),
        ("text\nотзыв\n".encode("cp1251"), "is not UTF-8"),
        (b'text\n"a\nb\n', "cannot be read as CSV"),
        (b"text,n\na,1\nb,c,d\n", "row 2 cannot be read as CSV"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_a_remedy(tmp_path, content, message):
    path = tmp_path / "train.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"train.csv.*{message}"):
        read_table(path, ["text"])


def test_labels_are_found_in_category_or_in_the_only_other_column(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("text,cat_tpro\nСапоги  малы,обувь\nЧашка,посуда\n", encoding="utf-8")
    assert read_labelled(path, TAXONOMY) == {"сапоги малы": "обувь", "чашка": "посуда"}
    path.write_text("text,other,category\nЧашка,x,посуда\n", encoding="utf-8")
    assert read_labelled(path, TAXONOMY) == {"чашка": "посуда"}


def test_an_alias_is_filed_under_its_category_and_said_so(tmp_path, capsys):
    path = tmp_path / "labels.csv"
    path.write_text("text,category\nлодочки,туфли\n", encoding="utf-8")
    assert read_labelled(path, TAXONOMY) == {"лодочки": "обувь"}
    assert "1 x 'туфли' filed under 'обувь'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("text,category\nx,мебель\n", "row 1: 'мебель' is not a category; allowed are обувь, посуда"),
        (
            "text,category\nx,мебель\ny,обувь\nz,Обувь\n",
            "rows 1, 3: 'мебель', 'Обувь' are no categories; allowed are обувь, посуда. Correct it, or name it under",
        ),
        (
            "text,category\nx,\ny,обувь\nz, \n",
            "labels.csv: no category in rows 1, 3. Leave each text one category; a text that is to have none goes",
        ),
        (
            "text,category\nx,обувь\ny,туфли\nX ,посуда\nу,\ny,посуда\nу,обувь\nz,\n",
            r"no category in row 7; several for the text of rows 1, 3 \(обувь, посуда\); several for .* rows 2, 5",
        ),
        ("text,category\n#Н/Д,обувь\n", "row 1: '#Н/Д' is a spreadsheet's error"),
        ("text,category\nx,#REF!\n", "row 1: '#REF!' is not a category"),
        ("text,a,b\nx,y,z\n", "needs a column 'category'"),
        ("text\nx\n", "needs a column 'category'"),
    ],
)
def test_bad_labels_are_refused_with_their_row(tmp_path, body, message):
    path = tmp_path / "labels.csv"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_labelled(path, TAXONOMY)


LABELS = {  # what it is: (file, text, what is said)
    "decomposed letters in the category": ("a.csv", "text,category\nЧаи\u0306ник,обувь\n", "composed: 1"),
    "quotes and separators around the category": (
        "a.csv",
        'text,category\nчайник,"""обувь"";"\n',
        "filed under 'обувь'",
    ),
    "spaces that do not break": ("a.csv", "text,category\nчайник, обувь\u00a0\n", ""),
    "pandas's index column": ("a.csv", "Unnamed: 0,text,label\n0,чайник,обувь\n", ""),
    "an annotator's blank beside another's answer": (
        "a.csv",
        "text,category\nчайник,\nчайник,обувь\nчайник,туфли\n",
        "1 rows without a category left out",
    ),
    "a row without text": ("a.csv", "text,category\nчайник,обувь\n ,посуда\n", "1 rows without text left out (row 2)"),
    "Label Studio, CSV": (
        "a.csv",
        "annotation_id,annotator,created_at,id,lead_time,sort,text,updated_at\n1,1,2026-01-01,5,3.1,обувь,чайник,2026\n",
        "",
    ),
    "Label Studio, JSON": (
        "a.json",
        '[{"id": 5, "data": {"text": "чайник"}, "annotations": [\n'
        '{"was_cancelled": true, "result": []},\n'
        '{"was_cancelled": false, "result": [{"type": "choices", "value": {"choices": ["обувь"]}}]}]}]',
        "",
    ),
    "Label Studio, JSON-MIN": (
        "a.json",
        '[{"text": "чайник", "id": 5, "sort": "обувь", "annotator": 1, "annotation_id": 1, "lead_time": 3.1,'
        ' "created_at": "2026", "updated_at": "2026"}]',
        "",
    ),
    "doccano, CSV": ("a.csv", "id,text,label,Comments\n1,чайник,обувь,\n", "taken as 'comments'"),
    "doccano, JSON Lines": (
        "a.jsonl",
        '{"id": 1, "text": "ча\\u0438\\u0306ник", "label": ["обувь"], "Comments": []}\n' * 2,
        "",
    ),
    "doccano, JSON": (
        "a.json",
        '[{"id": 1, "text": "чайник", "label": ["туфли"], "Comments": []}]',
        "filed under 'обувь'",
    ),
}


@pytest.mark.parametrize("what", LABELS)
def test_labels_are_read_as_spreadsheets_and_annotation_tools_leave_them(tmp_path, capsys, what):
    name, text, said = LABELS[what]
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_labelled(tmp_path / name, TAXONOMY) == {"чайник": "обувь"}
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "чайник", "label": ["обувь", "посуда"]}', "row 1: 'обувь#посуда' is not a category"),
        ('[{"data": {"text": "чайник"}, "annotations": []}]', "no category in row 1"),
        ('{"text": "чайник", "label": []}\n{"text": "x", "label": ["обувь"]}', "no category in row 1"),
        ('[{"data": {"review": "чайник"}, "annotations": []}]', "every cell of the column 'text' is empty"),
        ('{"review": "чайник", "label": ["обувь"]}', "has no 'text'; it has 'review', 'label'"),
        (
            '{"text": "чайник", "label": ["обувь"]}\n{"text": ',
            r"no export of Label Studio or doccano \(Expecting .*line 2",
        ),
        ('[["чайник", "обувь"]]', "no export of Label Studio or doccano"),
        ("text,category\nчайник,обувь\n", "no export of Label Studio or doccano"),
        ("", "has no 'text'; it has . Give"),
    ],
)
def test_an_export_without_one_category_for_each_text_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "all.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=f"all.jsonl.*{message}") as refusal:
        read_labelled(path, TAXONOMY)
    assert "\n" not in str(refusal.value)


def test_no_id_looks_like_a_number_to_a_spreadsheet():
    assert review_ids(["отзыв 137"] * 2) == ["r767554032370", "r767554032370-2"]
    assert not any(re.fullmatch(r"[\d.,]+(e\d+)?", i) for i in review_ids(f"отзыв {n}" for n in range(3_000)))


def test_labels_saved_by_a_russian_excel_are_read(tmp_path, capsys):
    path = tmp_path / "labels.csv"
    rows = "Моя пара мала, вернула;обувь\r\nБелая чашка разбилась в дороге;посуда\r\n"
    path.write_bytes(f"Text;Category\r\n{rows}".encode("cp1251"))
    assert read_labelled(path, TAXONOMY) == {
        "моя пара мала, вернула": "обувь",
        "белая чашка разбилась в дороге": "посуда",
    }
    assert "read as cp1251; column 'Text' taken as 'text'" in capsys.readouterr().out


def test_a_broken_corrections_file_is_refused_with_the_other_inputs(settings):
    path = settings.folder / "corrections.csv"
    path.parent.mkdir(parents=True)
    path.write_text('id,category\na1,обувь\nb2,"обувь\n', encoding="utf-8")
    with pytest.raises(UserError, match="corrections.csv, row 2 cannot be read as CSV"):
        check_inputs(settings)
    path.write_text(f"id,category\n{review_ids(['Сапоги номер один промокают'])[0]},обувь\n", encoding="utf-8")
    assert "corrections.csv" in check_inputs(settings)["file"].tolist()


def test_an_index_column_without_a_name_is_not_taken_for_the_labels(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(",text,label\n0,Чашка,посуда\n", encoding="utf-8")
    assert read_labelled(path, TAXONOMY) == {"чашка": "посуда"}


def test_every_blank_line_within_the_test_file_gets_a_row_of_its_own(tmp_path, capsys):
    path = tmp_path / "test.csv"
    path.write_bytes('text\r\nраз\r\n\r\n \r\n""\r\nдва\r\n\r\n'.encode())
    assert read_texts(path) == ["раз", "", " ", "", "два"]
    assert capsys.readouterr().out.count("\n") == 1


@limits(deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.text('а,"\n\r'), min_size=1
    )
)
def test_what_a_stage_writes_the_next_one_reads_back(tmp_path_factory, texts):
    path = tmp_path_factory.getbasetemp() / "labels.csv"
    table = pd.DataFrame({"id": review_ids(texts), "text": texts})
    write_csv(path, table)
    assert read_csv(path).to_dict("list") == read_table(path, ["id", "text"]).to_dict("list") == table.to_dict("list")
    write_csv(path, table[["text"]])
    assert read_texts(path) == texts


def test_our_own_tables_keep_words_as_they_are_and_tell_numbers_and_truths(tmp_path):
    table = pd.DataFrame({"id": ["007", "1e5"], "text": ["", "NA"], "synthetic": [True, False], "p_a": [0.5, 1.0]})
    write_csv(tmp_path / "own.csv", table)
    assert read_csv(tmp_path / "own.csv").to_dict("list") == table.to_dict("list")
    assert read_csv(tmp_path / "own.csv", ["text"]).to_dict("list") == {"text": ["", "NA"]}
