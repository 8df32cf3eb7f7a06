import pandas as pd
import pytest
from conftest import write_csv as write_quoted
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import Category
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.files.reviews import (
    read_csv,
    read_labelled,
    read_reviews,
    read_texts,
    review_ids,
    write_csv,
)
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
    write_quoted(tmp_path / "train.csv", "text", ["раз", "  ", "два"])
    assert read_reviews(tmp_path / "train.csv")["text"].tolist() == ["раз", "два"]
    assert "1 rows without text left out (row 2)" in capsys.readouterr().out


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
        ("text,category\nx,\n", "row 1: '' is not a category"),
        ("text,category\nx,обувь\nX ,посуда\n", "row 2: the same text has two categories"),
        ("text,a,b\nx,y,z\n", "needs a column 'category'"),
        ("text\nx\n", "needs a column 'category'"),
    ],
)
def test_bad_labels_are_refused_with_their_row(tmp_path, body, message):
    path = tmp_path / "labels.csv"
    path.write_text(body, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_labelled(path, TAXONOMY)


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
