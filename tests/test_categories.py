import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import by_any_name, labels_named, labels_of, read_categories
from sirius_helpers.settings import BUNDLED


def test_toml_brings_descriptions_examples_and_aliases(data):
    shoes, dishes = read_categories(data)
    assert shoes.label == "обувь" and shoes.description and len(shoes.examples) == 2
    assert by_any_name([shoes, dishes]) == {"обувь": "обувь", "посуда": "посуда", "туфли": "обувь"}


def test_a_plain_list_borrows_what_the_project_knows(tmp_path):
    (tmp_path / "categories.txt").write_text("посуда\nкосмос\n", encoding="utf-8")
    dishes, space = read_categories(tmp_path)
    assert dishes.examples and dishes.description
    assert space.label == "космос" and not space.examples


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('category;\nобувь;\n"товары, разные";\n', "quotes around the labels left out; 'category' taken as the header"),
        ("обувь\r\nтовары, разные\r\n\r\n", ""),
        ('"обувь"\n"товары, разные"\n', "separators and quotes around the labels left out"),
        ("- обувь\n- товары, разные\n", "the marks of a list left out"),
        ("Категории\n1. обувь\n2) товары, разные\n", "the marks of a list left out"),
        ("\ufeffКатегория\t\t\nобувь\t\t\nтовары, разные\t\t\n\t\t\n", "'Категория' taken as the header"),
    ],
)
def test_a_plain_list_is_read_as_a_spreadsheet_saves_it(tmp_path, capsys, text, said):
    (tmp_path / "categories.txt").write_text(text, encoding="utf-8")
    assert labels_of(read_categories(tmp_path)) == ["обувь", "товары, разные"]
    out = capsys.readouterr().out
    assert said in out and out.count("\n") == bool(said)


def test_numbers_are_found_as_a_spreadsheet_writes_them():
    assert labels_named(("1", "2.0", "1,00"), {"1": "1", "2": "2"}, str) == ["1", "2", "1"]


def test_names_are_the_same_in_composed_and_decomposed_letters(tmp_path, capsys):
    (tmp_path / "categories.toml").write_text(
        '[[category]]\nlabel = "чаи\u0306"\n[[category]]\nlabel = "кофе"\n', encoding="utf-8"
    )
    names = by_any_name(read_categories(tmp_path))
    assert "categories.toml: letters written as two characters composed: 1." in capsys.readouterr().out
    assert labels_named(["чай", "чаи\u0306"], names, str) == ["чай", "чай"]


def test_the_projects_own_taxonomy_has_phrases_for_all_nine():
    taxonomy = read_categories(BUNDLED)
    assert len(labels_of(taxonomy)) == 9
    assert all(category.description and len(category.examples) >= 7 for category in taxonomy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("categories.txt", "одна\n", "a classifier needs at least two"),
        ("categories.txt", "а\nб\nа\n", "stand twice"),
        ("categories.txt", "обувь\nОбувь\n", r"stand twice: \['Обувь', 'обувь'\]"),
        (
            "categories.txt",
            "category\nа;для ног\nб;для дома\n",
            "rows 2, 3: 'а;для ног' is not one label. Write one per",
        ),
        ("categories.txt", ",category\n0,а\n1,б\n", "rows 2, 3: '0,а' is not one label"),
        ("categories.txt", "а\n#ССЫЛКА!\n", "row 2: '#ССЫЛКА!' is not one label"),
        ("categories.toml", "[[category]\n", "not valid TOML"),
        ("categories.toml", "[[category]]\nlabel = 5\n", "category 1 label: Input should be a valid string"),
        (
            "categories.toml",
            '[[category]]\nlabel = "x"\nexamples = [2026-01-01]\n',
            "examples 1: Input should be a valid",
        ),
        (
            "categories.toml",
            '[[category]]\nlabel = "x"\nexamples = [" "]\n',
            "examples 1: String should have at least 1",
        ),
        ("categories.toml", '[category]\nlabel = "x"\n', "category: Input should be a valid list"),
        ("categories.toml", 'category = ["x", "y"]\n', "category 1: Input should be a"),
        ("categories.toml", '[[category]]\nname = "x"\n', 'category 1 name: Unexpected.*needs label = "…"'),
        ("categories.toml", '[[category]]\nlabel = "x"\nexamples = "подошва"\n', "category 1 examples: .*lists of"),
        ("categories.toml", '[[category]]\nlabel = "x"\naliases = ["y", 5]\n', "category 1 aliases 2: .*lists of"),
        ("categories.toml", '[[categories]]\nlabel = "x"\n', r"categories \[key\]: Input should be 'category'"),
    ],
)
def test_a_bad_taxonomy_is_refused_with_its_file(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=f"{name}.*{message}"):
        read_categories(tmp_path)


def test_a_folder_without_categories_says_what_to_write(tmp_path):
    with pytest.raises(UserError, match="neither categories.toml nor categories.txt"):
        read_categories(tmp_path)
