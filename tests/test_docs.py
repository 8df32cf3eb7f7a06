"""What the pages promise is there: links lead to files, and the Russian page keeps step with the English one."""

import re

import pytest

from sirius_helpers.files.categories import read_categories
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.files.reviews import near_duplicates, read_texts
from sirius_helpers.llm.judge import read_control
from sirius_helpers.settings import PROJECT, settings_for

PAGES = [*PROJECT.glob("*.md"), *PROJECT.glob("docs/*.md"), *PROJECT.glob("data/*.md")]
ENGLISH, RUSSIAN = PROJECT / "README.md", PROJECT / "README.ru.md"


def read(path):
    return path.read_text(encoding="utf-8")


def prose(text):
    """Without blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def commands(text):
    """Blocks of code without their comments, diagrams left out."""
    blocks = re.findall(r"^ *```(\w*)\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*#.*", "", code) for kind, code in blocks if kind != "mermaid"]


def code_words(text):
    """Names in `code`: files, variables, calls."""
    return set(re.findall(r"`([^`\n]+)`", prose(text)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    text = re.sub("`[^`\n]+`", "", prose(read(page)))
    targets = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r'src(?:set)?="([^"]+)"', text)
    assert not [t for t in targets if not t.startswith("http") and not (page.parent / t).exists()]


def test_the_russian_page_has_the_english_ones_headings_and_commands_in_its_order():
    english, russian = read(ENGLISH), read(RUSSIAN)
    levels = [[len(mark) for mark in re.findall("^(#+) ", prose(text), re.MULTILINE)] for text in (english, russian)]
    assert levels[0] == levels[1]
    assert commands(english) == commands(russian)
    headings = re.findall("^#+ (.*)", prose(russian), re.MULTILINE)
    assert all(re.search("[А-яё]", heading) for heading in headings[1:])


def test_the_russian_page_names_the_same_files_variables_and_figures():
    english, russian = read(ENGLISH).split("## Package layout")[0], read(RUSSIAN).split("## Устройство")[0]
    assert code_words(english) == code_words(russian)
    figures = [re.findall(r"\b0\.\d{2,3}\b", text) for text in (english, russian)]
    assert figures[0] == figures[1]


def test_the_package_layout_lists_every_file_and_folder_in_front_and_no_other():
    package = [path for path in (PROJECT / "sirius_helpers").iterdir() if not path.name.startswith("__")]
    table = read(ENGLISH).split("## Package layout")[1].split("\n\n")[1]
    listed = {name for name in code_words(table) if name.startswith("sirius_helpers/")}
    assert listed == {f"sirius_helpers/{path.name}{'/' * path.is_dir()}" for path in package}


def test_both_pages_pip_and_make_name_the_same_oldest_python():
    major, minor = re.search(r'requires-python = ">=(\d+)\.(\d+)"', read(PROJECT / "pyproject.toml")).groups()
    assert all(f"Python {major}.{minor} " in read(page) for page in (ENGLISH, RUSSIAN))
    assert f"sys.version_info < ({major}, {minor})" in read(PROJECT / "Makefile")


def test_every_page_is_reached_from_the_readme():
    assert not [page.name for page in PROJECT.glob("docs/*.md") if f"docs/{page.name}" not in read(ENGLISH)]


def test_the_worked_example_is_what_its_page_says_and_its_examples_are_none_of_its_tickets():
    settings = settings_for("cpu", data=PROJECT / "data" / "tickets")
    assert check_inputs(settings)["rows"].tolist() == [120, 60, 5, 180, 60]
    examples = [text for category in read_categories(settings.data) for text in category.examples]
    tickets = [text for name in ("train.csv", "test.csv") for text in read_texts(settings.data / name)]
    control = read_control(settings.data)["text"].tolist()
    assert not list(near_duplicates(examples + tickets + control, settings.near_duplicate))
