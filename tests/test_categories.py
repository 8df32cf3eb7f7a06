import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.files.categories import by_any_name, labels_of, read_categories
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


def test_the_projects_own_taxonomy_has_phrases_for_all_nine():
    taxonomy = read_categories(BUNDLED)
    assert len(labels_of(taxonomy)) == 9
    assert all(category.description and len(category.examples) >= 7 for category in taxonomy)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("categories.txt", "одна\n", "a classifier needs at least two"),
        ("categories.txt", "а\nб\nа\n", "stand twice"),
        ("categories.toml", "[[category]\n", "not valid TOML"),
        ("categories.toml", '[[category]]\nname = "x"\n', 'category 0 name: Unexpected.*needs label = "…"'),
        ("categories.toml", '[[category]]\nlabel = "x"\nexamples = "подошва"\n', "category 0 examples: .*lists of"),
        ("categories.toml", '[[category]]\nlabel = "x"\naliases = ["y", 5]\n', "category 0 aliases 1: .*lists of"),
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
