"""The taxonomy of a data folder, from `categories.toml` (label, description, examples, aliases) or `categories.txt`.

The labels of a plain list take the rest from the package's own categories.toml where it has them.

    taxonomy = read_categories(settings.data)
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from ..errors import UserError
from ..settings import BUNDLED
from .decoding import composed, read_text, read_toml, tell
from .tables import ERROR_VALUE, listed, numbered

Name = Annotated[str, AfterValidator(composed)]
Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


@dataclass(frozen=True)
class Category:
    """One allowed answer."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    label: Name
    description: Name = ""
    examples: tuple[Phrase, ...] = ()  # short phrases in the voice of a review
    aliases: tuple[Name, ...] = ()  # other names under which imported labels may file it


_HEADERS = ("category", "categories", "label", "labels", "категория", "категории")  # above a list of them
_SEVERAL = re.compile(r".*[;\t]|\d+,")  # cells of several columns, an index first among them
_MARK = re.compile(r"(?:[-*•–—]|\d+[.)])\s+")  # before each item of a list
_CONTENT = TypeAdapter(dict[Literal["category"], list[Category]])


def read_categories(folder: Path) -> list[Category]:
    """The taxonomy of a data folder, in the file's order."""
    path = _file_of(folder)
    if path.suffix == ".toml":
        taxonomy = _read_toml(path)
    else:
        known = {category.label: category for category in _read_toml(BUNDLED / "categories.toml")}
        taxonomy = [known.get(label, Category(label)) for label in _read_list(path)]
    if len(taxonomy) < 2:
        raise UserError(f"{path} lists {len(taxonomy)} categories (.txt: one a line); a classifier needs at least two.")
    names = [name for category in taxonomy for name in (category.label, *category.aliases)]
    labels = [label.casefold() for label in labels_of(taxonomy)]
    twice = sorted({name for name in names if names.count(name) > 1 or labels.count(name.casefold()) > 1})
    if twice or not all(names):
        raise UserError(f"{path}: these names are empty or stand twice: {twice or ['(empty)']}; keep one of each.")
    return taxonomy


def labels_of(taxonomy: list[Category]) -> list[str]:
    """The allowed labels, in order."""
    return [category.label for category in taxonomy]


def by_any_name(taxonomy: list[Category]) -> dict[str, str]:
    """Every label and alias -> label."""
    return {name: category.label for category in taxonomy for name in (category.label, *category.aliases)}


def labels_named(given: Iterable[str], names: dict[str, str], place: Callable[[list[int]], str]) -> list[str]:
    """The labels that a column's names stand for (`by_any_name`); UserError on all others, with the `place` of rows."""
    plain = [name if name in names else _bare(name) for name in map(composed, given)]
    if wrong := {row: name for row, name in enumerate(plain, start=1) if name not in names}:
        allowed = ", ".join(name for name, label in names.items() if name == label)
        unknown = [name for name in dict.fromkeys(wrong.values()) if name]
        fault = f"{listed(unknown)} {'are no categories' if len(unknown) > 1 else 'is not a category'}"
        raise UserError(
            f"{place([*wrong])}: {fault if unknown else 'no category'}; allowed are {allowed}. Correct it, "
            "or name it under aliases of a category in categories.toml."
        )
    return [names[name] for name in plain]


def phrases(taxonomy: list[Category]) -> list[tuple[str, str]]:
    """What the categories say of themselves: each example and description with its label."""
    return [(text, c.label) for c in taxonomy for text in (*c.examples, c.description) if text]


def need_examples(taxonomy: list[Category], folder: Path) -> None:
    """Refuse a data folder's taxonomy where the few-shot labeler would have nothing to learn a category from."""
    if without := [category.label for category in taxonomy if not category.examples]:
        raise UserError(
            f"{_file_of(folder)}: the few-shot labeler has no example phrases for: {', '.join(without)}. Write some "
            "(about seven per category) into a categories.toml there, or import labels with LABELS."
        )


def described(taxonomy: list[Category]) -> str:
    """The categories as the label prompt lists them, a line each."""
    return "\n".join(f"- {c.label}: {c.description}" if c.description else f"- {c.label}" for c in taxonomy)


def example_turns(taxonomy: list[Category], shots: int, skip: int = 0) -> tuple[tuple[str, str], ...]:
    """So many phrases of each category with its label, after the first ones: one of all categories, then the next."""
    rounds = range(skip, skip + shots)
    return tuple((c.examples[n], c.label) for n in rounds for c in taxonomy if n < len(c.examples))


def _file_of(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; correct DATA.")
    path = next((path for path in (folder / "categories.toml", folder / "categories.txt") if path.exists()), None)
    if path is None:
        raise UserError(
            f"{folder} has neither categories.toml nor categories.txt; "
            f"write one label per line into categories.txt, or copy {BUNDLED / 'categories.toml'} and change it."
        )
    return path


def _read_list(path: Path) -> list[str]:
    """The labels of a categories.txt, one per line, also where a spreadsheet saved it as a table of one column."""
    text, notes = read_text(path)
    lines = [line.strip() for line in text.splitlines()]
    labels = [_bare(line) for line in lines]
    if labels != lines:
        notes.append("separators and quotes around the labels left out")
    first = next((label for label in labels if label), "")
    if first.casefold() in _HEADERS:
        notes.append(f"{first!r} taken as the header")
        labels[labels.index(first)] = ""
    if first and all(_MARK.match(label) for label in labels if label):
        notes.append("the marks of a list left out")
        labels = [_MARK.sub("", label, count=1) for label in labels]
    if wrong := [row for row, label in enumerate(labels, 1) if _SEVERAL.match(label) or ERROR_VALUE.fullmatch(label)]:
        raise UserError(
            f"{path}, {numbered(wrong)}: {labels[wrong[0] - 1]!r} is not one label. Write one per line and nothing "
            "else; descriptions and examples go into a categories.toml."
        )
    tell(path, notes)
    return [label for label in labels if label]


def _bare(name: str) -> str:
    """A name without what a spreadsheet adds: separators and quotes around it, odd spaces, decimals of a number."""
    name = re.sub(r"^(\d+)[.,]0+$", r"\1", " ".join(name.split()).strip(" ;,"))
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('""', '"').strip(" ;,")
    return name


def _read_toml(path: Path) -> list[Category]:
    try:
        return _CONTENT.validate_python(read_toml(path)).get("category", [])
    except ValidationError as error:
        places = [" ".join(str(n + 1 if isinstance(n, int) else n) for n in found["loc"]) for found in error.errors()]
        wrong = [f"{place}: {found['msg']}" for place, found in zip(places, error.errors(), strict=True)]
        raise UserError(
            f'{path}: {"; ".join(wrong)}. Every [[category]] needs label = "…"; description is text, examples and '
            'aliases are lists of texts, such as ["…", "…"]; there is nothing else.'
        ) from None
