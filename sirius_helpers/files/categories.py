"""The taxonomy: labels, what they mean and how reviews in them sound.

A data folder brings either `categories.toml` (label, description, examples, aliases) or a plain
`categories.txt` (a label a line). Labels of a plain list that the project's own data/categories.toml knows
take their description and examples from there.

    taxonomy = read_categories(settings.data)
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from ..settings import PROJECT
from .toml import read_toml, read_utf8

KNOWN = PROJECT / "data" / "categories.toml"


@dataclass(frozen=True)
class Category:
    """One allowed answer."""

    label: str
    description: str = ""
    examples: tuple[str, ...] = ()  # short phrases in the voice of a review
    aliases: tuple[str, ...] = ()  # other names under which imported labels may file it


def read_categories(folder: Path) -> list[Category]:
    """The taxonomy of a data folder, in the file's order."""
    path = _file_of(folder)
    if path.suffix == ".toml":
        return _checked(_read_toml(path), path)
    known = {category.label: category for category in _read_toml(KNOWN)} if KNOWN.exists() else {}
    labels = [line.strip() for line in read_utf8(path).splitlines() if line.strip()]
    return _checked([known.get(label, Category(label)) for label in labels], path)


def labels_of(taxonomy: list[Category]) -> list[str]:
    """The allowed labels, in order."""
    return [category.label for category in taxonomy]


def by_any_name(taxonomy: list[Category]) -> dict[str, str]:
    """Every label and alias -> label."""
    return {name: category.label for category in taxonomy for name in (category.label, *category.aliases)}


def label_named(name: str, names: dict[str, str], place: str) -> str:
    """The label that a name of `by_any_name` stands for; `place` begins the complaint about another."""
    if name not in names:
        allowed = ", ".join(name for name, label in names.items() if name == label)
        raise UserError(
            f"{place}: {name!r} is not a category; allowed are {allowed}. "
            "Correct it, or name it under aliases of a category in categories.toml."
        )
    return names[name]


def phrases(taxonomy: list[Category]) -> list[tuple[str, str]]:
    """What the categories say of themselves: each example and description with its label."""
    return [(text, c.label) for c in taxonomy for text in (*c.examples, c.description) if text]


def need_examples(taxonomy: list[Category], folder: Path) -> None:
    """Refuse a data folder's taxonomy where the few-shot labeler would have nothing to learn a category from."""
    without = [category.label for category in taxonomy if not category.examples]
    if without:
        raise UserError(
            f"{_file_of(folder)}: the few-shot labeler has no example phrases for: {', '.join(without)}. Write a "
            'categories.toml with examples = ["…", …] (about seven a category) into the data folder, or import labels '
            "with LABELS."
        )


def label_variables(taxonomy: list[Category], user: str, shots: int = 2) -> dict[str, str]:
    """What the label prompt may use: $categories and $examples (the first `shots` phrases of each category).

    An example looks as the prompt's own question does: `user` with the phrase as $review, and the answer behind it.
    """
    lines = [f"- {c.label}: {c.description}" if c.description else f"- {c.label}" for c in taxonomy]
    shown = [(c.examples[n], c.label) for n in range(shots) for c in taxonomy if n < len(c.examples)]
    asked = string.Template(user)
    examples = "\n\n".join(f"{asked.safe_substitute(review=text)} {name}" for text, name in shown)
    return {"categories": "\n".join(lines), "examples": examples}


def _file_of(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; correct DATA.")
    toml, txt = folder / "categories.toml", folder / "categories.txt"
    if not toml.exists() and not txt.exists():
        raise UserError(
            f"{folder} has neither categories.toml nor categories.txt; "
            "write one label a line into categories.txt, or copy data/categories.toml and change it."
        )
    return toml if toml.exists() else txt


def _read_toml(path: Path) -> list[Category]:
    try:
        return [
            Category(
                label=row["label"].strip(),
                description=row.get("description", "").strip(),
                examples=tuple(row.get("examples", ())),
                aliases=tuple(row.get("aliases", ())),
            )
            for row in read_toml(path).get("category", [])
        ]
    except (KeyError, AttributeError, TypeError):
        raise UserError(
            f'{path}: every [[category]] needs label = "…"; description is text, examples and aliases are '
            "lists of texts."
        ) from None


def _checked(taxonomy: list[Category], path: Path) -> list[Category]:
    labels = labels_of(taxonomy)
    if len(labels) < 2:
        raise UserError(f"{path} lists {len(labels)} categories; a classifier needs at least two.")
    names = [name for category in taxonomy for name in (category.label, *category.aliases)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not all(names):
        raise UserError(f"{path}: these names are empty or stand twice: {twice or ['(empty)']}; keep one of each.")
    return taxonomy
