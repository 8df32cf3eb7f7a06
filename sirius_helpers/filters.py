"""Cheap filters in front of the judge: each a small function that names what is wrong with a candidate, or not.

Knows texts only; no model, no files.

    text = cleaned(candidate)
    reason = first_reason(text, original, known, settings)     # None: the judge may see it
"""

from __future__ import annotations

import re

from rapidfuzz import fuzz, process

from .settings import Settings

_OPENING = re.compile(
    r"^\s*(?:(?:конечно|разумеется|хорошо)[,!.]?\s*)?"
    r"(?:вот\s+)?(?:перефразированн\w+|переписанн\w+|новый|изменённ\w+)?\s*(?:отзыв|вариант|текст)\s*:\s*",
    re.IGNORECASE,
)
_META = re.compile(
    r"языков\w+ модел|искусственн\w+ интеллект|\bне могу (?:выполнить|помочь|перефраз|ответить|предоставить)"
    r"|как (?:ии|ai)\b|перефраз|предоставьте|пришлите .{0,20}текст|ваш запрос|ассистент",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_FOREIGN = re.compile(r"[\u0370-\u03ff\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def cleaned(text: str) -> str:
    """A candidate without a known opening ("Новый отзыв:") and without quotes around the whole."""
    text = _OPENING.sub("", text).strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "«»", "“”", "''"):
        text = text[1:-1].strip()
    return text


def too_short(text: str, original: str, settings: Settings) -> bool:
    return len(text) < settings.min_chars


def meta_talk(text: str, original: str, settings: Settings) -> bool:
    """Refusals and talk about the task instead of a review."""
    return bool(_META.search(text))


def foreign_script(text: str, original: str, settings: Settings) -> bool:
    """Another script anywhere, or a minority of Cyrillic letters where the original is Cyrillic."""
    if _FOREIGN.search(text):
        return True
    return cyrillic_share(original) > 0.5 >= cyrillic_share(text)


def copy_of_original(text: str, original: str, settings: Settings) -> bool:
    return similarity(text, original) >= settings.max_copy_similarity


FILTERS = {f.__name__: f for f in (too_short, meta_talk, foreign_script, copy_of_original)}


def first_reason(text: str, original: str, known: list[str], settings: Settings) -> str | None:
    """The name of the first filter that refuses a candidate; `known` holds the `bare` form of what is there."""
    for name, refuses in FILTERS.items():
        if refuses(text, original, settings):
            return name
    return "near_duplicate" if near_duplicate(text, known, settings) else None


def near_duplicate(text: str, known: list[str], settings: Settings) -> bool:
    """Whether the text repeats any known one; `known` in `bare` form, because it is long and met often."""
    cutoff = settings.max_copy_similarity
    return process.extractOne(bare(text), known, scorer=fuzz.ratio, score_cutoff=cutoff) is not None


def similarity(one: str, other: str) -> float:
    """0..100, blind to case, spacing and punctuation."""
    return fuzz.ratio(bare(one), bare(other))


def bare(text: str) -> str:
    """The words of a text in lower case."""
    return " ".join(_WORD.findall(text.casefold()))


def cyrillic_share(text: str) -> float:
    """Share of Cyrillic among the letters; 1 where there is no letter at all."""
    letters = len(_LETTER.findall(text))
    return len(_CYRILLIC.findall(text)) / letters if letters else 1.0
