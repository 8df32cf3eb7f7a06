"""Cheap filters in front of the judge: each names what is wrong with a candidate, or not.

Knows texts only. What an annoyed buyer writes too ("извините, но за такие деньги", "не могу оставить отзыв, товар не
пришёл") refuses nobody: a phrase counts only with the task or another speaker in it. Measured in docs/filters.md; the
patterns stand in data/filters.toml.

    text = cleaned(candidate)
    reason = first_reason(text, original, known, settings, prompt)     # None: the judge may see it
"""

import re
from collections.abc import Callable, Iterable, Set
from itertools import chain
from typing import TypeAlias

from rapidfuzz import fuzz, process

from ..files.decoding import read_toml
from ..settings import BUNDLED, Settings

Filter: TypeAlias = Callable[[str, str, Settings], bool]  # of a text, its original and the thresholds

_DATA = read_toml(BUNDLED / "filters.toml")


def _compiled(patterns: Iterable[str], begin: str = "") -> re.Pattern[str]:
    """Any of the patterns of data/filters.toml, which says what may stand in one."""
    joined = "|".join(patterns).replace(" … ", r"[^.!?\n]{0,40}?\b")
    for name, part in _DATA["parts"].items():
        joined = joined.replace(f"{{{name}}}", part)
    return re.compile(f"{begin}(?:{joined})", re.IGNORECASE | re.MULTILINE)


_PATTERNS = {name: _compiled(chain(*groups.values()), begin=r"\b") for name, groups in _DATA["phrases"].items()}
_PATTERNS |= {name: _compiled(patterns) for name, patterns in _DATA["patterns"].items()}
_EDGES = " \t\r\n=_`~"  # what chat models put around a text
_QUOTED = re.compile(r"""^["«“„]([^"«»“”„]*)["»”“]$""")
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_HELD_DOWN = re.compile(r"([^\W\d_])\1{7}", re.IGNORECASE)
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)


def cleaned(text: str) -> str:
    """A candidate without its announcement ("Новый отзыв:"), the rules around it and quotes around the whole."""
    for _ in range(2):  # an announcement and, under it, a title
        text = _PATTERNS["opening"].sub("", _stripped(text))
    return _stripped(_QUOTED.sub(r"\1", _stripped(text)))


def _stripped(text: str) -> str:
    return re.sub(r"^(?:-{3,}|>)|-{3,}$", "", text.strip(_EDGES)).strip(_EDGES)


def _finds(name: str) -> Filter:
    return lambda text, original, settings: bool(_PATTERNS[name].search(text))


def several_variants(text: str, original: str, settings: Settings) -> bool:
    """Numbered variants or a list, where the original has none."""
    variants, a_list = _PATTERNS["several_variants"], _PATTERNS["list"]
    return bool(variants.search(text) or a_list.search(text) and not a_list.search(original))


def foreign_script(text: str, original: str, settings: Settings) -> bool:
    """Another script anywhere; English, or too few Cyrillic letters, where the original has enough of them."""
    share = 0.0 if _PATTERNS["english"].search(text) else cyrillic_share(text)
    return bool(_PATTERNS["other_script"].search(text)) or share < settings.min_cyrillic <= cyrillic_share(original)


def repetition(text: str, original: str, settings: Settings) -> bool:
    """A loop: a letter held down, a few words over and over, or too many three-word runs that were there before."""
    words = bare(text).split()
    if _HELD_DOWN.search(text) or 3 * len(set(words)) < len(words):
        return True
    runs = word_runs(text, 3)
    repeats = len(runs) - len(set(runs))
    return repeats >= 4 and repeats > settings.max_repeated * len(runs)  # four: "очень, очень, очень" is no loop


def copy_of_original(text: str, original: str, settings: Settings) -> bool:
    """The original again, or nearly so."""
    return similarity(text, original) >= settings.max_copy_similarity


def too_short(text: str, original: str, settings: Settings) -> bool:
    """Fewer letters than `min_chars`, or far shorter than the original."""
    return len(_LETTER.findall(text)) < settings.min_chars or len(text) < settings.min_length_ratio * len(original)


def too_long(text: str, original: str, settings: Settings) -> bool:
    """Longer than the ratio allows; a very short original may grow by the slack all the same."""
    return len(text) > max(settings.max_length_ratio * len(original), len(original) + settings.length_slack)


# What says most about a candidate comes first, its length last.
FILTERS: dict[str, Filter] = {
    "refusal": _finds("refusal"),
    "meta_talk": _finds("meta_talk"),
    "several_variants": several_variants,
    "markup": _finds("markup"),
    "placeholder": _finds("placeholder"),
    "foreign_script": foreign_script,
    "repetition": repetition,
    "copy_of_original": copy_of_original,
    "too_short": too_short,
    "too_long": too_long,
}


def first_reason(
    text: str, original: str, known: list[str], settings: Settings, prompt: Set[str] = frozenset()
) -> str | None:
    """The name of the first filter that refuses a candidate, None where none does.

    `known`: the `bare` form of what must not come again: reviews, lines of the prompt, texts judged before.
    `prompt`: runs of `leak_words` words of the prompt.
    """
    for name, refuses in FILTERS.items():
        if refuses(text, original, settings):
            return name
    if near_duplicate(text, known, settings):
        return "near_duplicate"
    return None if prompt.isdisjoint(word_runs(text, settings.leak_words)) else "prompt_leak"


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


def word_runs(text: str, length: int) -> list[str]:
    """Every run of `length` words in a text, in `bare` form, repeats included."""
    words = bare(text).split()
    return [" ".join(words[i : i + length]) for i in range(len(words) - length + 1)]


def cyrillic_share(text: str) -> float:
    """Share of Cyrillic among the letters; 1 where there is no letter at all."""
    letters = len(_LETTER.findall(text))
    return len(_CYRILLIC.findall(text)) / letters if letters else 1.0
