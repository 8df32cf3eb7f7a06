"""Cheap filters in front of the judge: each a small function that names what is wrong with a candidate, or not.

Knows texts only. What an annoyed buyer writes too ("извините, но за такие деньги", "не могу оставить отзыв, товар не
пришёл") refuses nobody: a phrase counts only with the task or another speaker in it. Measured in docs/filters.md.

    text = cleaned(candidate)
    reason = first_reason(text, original, known, settings, prompt)     # None: the judge may see it
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from typing import TypeAlias

from rapidfuzz import fuzz, process

from ..settings import Settings

Filter: TypeAlias = Callable[[str, str, Settings], bool]  # of a text, its original and the thresholds

# Small models misspell "перефразированный" in a dozen ways; "перфорация" and "периферия" stay allowed.
_PARAPHRASE = r"(?:пере|пери|пер)ф(?:о?раз|аз|ер(?!и)|ор[мтуэ]|ранж)|рефраз|фразирован"


def _phrases(*patterns: str) -> re.Pattern[str]:
    """Any of the phrases, from the start of a word; "…" is up to 40 characters of the same sentence."""
    joined = "|".join(patterns).replace(" … ", r"[^.!?\n]{0,40}?\b")
    return re.compile(rf"\b(?:{joined})", re.IGNORECASE | re.MULTILINE)


_CANNOT = r"(?:не (?:могу|смогу|мог бы|могла бы)|я не (?:смог|смогла|мог|могла))\b"
_REFUSAL = _phrases(
    rf"{_CANNOT} … выполн\w+ … (?:просьб|запрос|задач|задани|инструкц)",
    rf"{_CANNOT} … (?:созда|сгенерир|обработ|переписа|адаптир)\w+ … (?:отзыв|рецензи|контент|текст|содержани)",
    rf"{_CANNOT} … (?:{_PARAPHRASE}|(?:помочь|ответить|обсуждать) … (?:эт|ваш)\w+ (?:запрос|вопрос|тем))",
    r"(?:эт|ваш|тво|перв)\w+ (?:просьб|запрос)\w* … (?:наруша|противореч|содержит|требует)",
    r"(?:наруша|противореч)\w+ … (?:этик|этическ|мо(?:и|им) (?:правил|принцип)|политик|принцип|правил\w* использ)",
    r"этическ\w+ (?:норм|стандарт|принцип)|созда\w+ … (?:фальшив|ложн|поддельн|вымышленн|фиктивн|фейков)",
    r"вынужден\w* отказаться от … (?:обработк|выполнени)|(?:менять|сменим|смените) тему|я не вправе",
    r"(?:предоставьте|пришлите|укажите|уточните|задайте|отправьте|напишите)\b … "
    r"(?:текст|запрос|контекст|просьб|вопрос|отзыв\b)|не (?:указа|предостав|присла)\w+ … (?:отзыв\b|текст\b)",
    r"(?:отзыв|текст)(?: отзыва)? (?:отсутствует|слишком корот)|(?:можете|могли бы вы|пожалуйста,?) уточни",
)
_META = _phrases(
    _PARAPHRASE,
    # the model about itself
    r"языков\w+ модел|openai|chatgpt|ассистент\w*,? я\b|виртуальн\w+ (?:помощник|ассистент)",
    r"(?:я|как|являюсь)(?: [—–-])? (?:\w+ )?(?:искусственн\w+ интеллект|ии\b|ai\b)",
    # the model to whoever asked
    r"(?:ваш|тво)\w* (?:запрос|просьб|указани|инструкц|требовани|отзыв(?:а|у|ом)?\b)",
    r"(?:понял|понимаю)\w*,? (?:\w+ )?(?:ваш|тво|вас\b|задач|задани|указани|требовани|просьб)",
    r"буду рад\w* … помочь|рад\w*(?:\(а\))?(?: был\w*)? вам помочь|чем … могу … помочь|готов\w* (?:присту|выполнить)",
    r"если (?:у вас|вам) (?:есть|возник\w*|нуж\w+) … (?:вопрос|запрос|помощь)|вы (?:просите|просили|хотите) … отзыв",
    # about the text
    r"(?:исходн|оригинальн|первоначальн|предоставленн|переработанн|переписанн)\w+ (?:\w+ )?(?:отзыв|текст|смысл)",
    r"сохран\w+ … смысл|смысл сохран|друг\w+ слов\w+ и |синоним|формулировк|от (?:первого|третьего) лица",
    r"(?:автор|покупатель|заказчик)(?: \w+)? (?:использу|выража|отмеча|жалу|сообща|разочар|ожида|недовол|довол)",
    r"(?:переписать|перепиш\w+|переписал\w*|пересказать|созда\w+) … (?:эт|ваш|нов|сам)\w+ отзыв|переписать текст",
    r"(?:отзыв|вариант|предложение|текст|перевод)(?: отзыва)? (?:сохраня|выража|нес[её]т|переда[её]т|следует)",
    r"я (?:замен|измен)\w+ … (?:слов|фраз|выражени|глагол|текст)|на русском языке:|это отзыв покупателя",
    r"пересказан\w* (?:друг|сво)\w+ слов",
    r"(?:отзыв|вариант|верси|пересказ)[^.!?\n:]{0,40}:[*\s]*(?:$|[\"«])",
    r"(?:новый отзыв|другими словами|категория|тональность|ключевые слова|примечание|пояснение|обратите внимание)\s*:",
    r"as an ai|language model|paraphras|i (?:cannot|can't) (?:fulfil|help (?:you|with)|assist)|here is (?:the|a) re",
    # the shop's voice
    r"(?:жаль|рад\w*) (?:это )?слышать|жаль, что вы (?:столкн|остал|ощут|испыт)",
    r"рад\w*, что в(?:ам|ы) (?:по)?(?:нрав|наш|оцен)|благодарим вас за (?:обращение|отзыв)",
    r"спасибо за ваш\w* (?:\w+ )?(?:отзыв\b|мнение|обратную)|уважаем\w+ покупател",
    r"свяжитесь с нами|приносим (?:\w+ )?извинени|за (?:выбор|покупку)(?: в)? наш",
)
_VARIANTS = _phrases(r"вариант\w* (?:№ ?)?\d|(?:два|три|несколько|\d) вариант\w+ (?:отзыв|пере)")
_LIST = re.compile(r"^\s*(?:\d[.)]|[-•]\s)[^\n]*\n+\s*(?:\d[.)]|[-•]\s)|(?:^|\s)1\)[^\n]*\s2\)", re.MULTILINE)
_MARKUP = re.compile(
    r"<\|?/?\w+\|?>|\[/?inst\]|^#{1,6}\s|```|(?<![\w*])\*\*\w|^>\s|(?:[-=_~]\s?){6,}|^---+\s*$"
    r"|^(?:assistant|user)\b(?! (?-i:[a-z]))",  # but "user cannot log in" is a customer's
    re.IGNORECASE | re.MULTILINE,
)
_PLACEHOLDER = re.compile(r"\[[^\]\d]{3,}\]|\w\((?:а|ась|ла)\)", re.IGNORECASE)
_OPENING = re.compile(
    # a first paragraph that ends in a colon, or a label with the review on the same line
    r"^(?:[^\n]{1,300}:[*\s]*\n\s*\n"
    rf"|\s*(?:\w+[,!.] )?(?:вот )?(?:ваш |мой )?(?:(?:{_PARAPHRASE}|переписанн|нов|изменённ)\w* )?"
    r"(?:отзыв|вариант|текст|ответ|покупатель)(?: покупателя| переписан)?\s*:|\s*другими словами\s*:)",
    re.IGNORECASE,
)
_EDGES = " \t\r\n=_`~"  # what chat models put around a text
_QUOTED = re.compile(r"""^["«“„]([^"«»“”„]*)["»”“]$""")
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_HELD_DOWN = re.compile(r"([^\W\d_])\1{7}", re.IGNORECASE)
_CYRILLIC = re.compile(r"[а-яё]", re.IGNORECASE)
_ENGLISH = re.compile(r"\b[a-z]+(?:,? [a-z]+){3}")  # four words in lower case: more than a brand
_FOREIGN = re.compile(r"[\u0590-\u06ff\u0900-\u0dff\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def cleaned(text: str) -> str:
    """A candidate without its announcement ("Новый отзыв:"), the rules around it and quotes around the whole."""
    for _ in range(2):  # an announcement and, under it, a title
        text = _OPENING.sub("", _stripped(text))
    return _stripped(_QUOTED.sub(r"\1", _stripped(text)))


def _stripped(text: str) -> str:
    return re.sub(r"^(?:-{3,}|>)|-{3,}$", "", text.strip(_EDGES)).strip(_EDGES)


def too_short(text: str, original: str, settings: Settings) -> bool:
    """Fewer letters than `min_chars`, or far shorter than the original."""
    return len(_LETTER.findall(text)) < settings.min_chars or len(text) < settings.min_length_ratio * len(original)


def too_long(text: str, original: str, settings: Settings) -> bool:
    """Longer than the ratio allows; a very short original may grow by the slack all the same."""
    return len(text) > max(settings.max_length_ratio * len(original), len(original) + settings.length_slack)


def several_variants(text: str, original: str, settings: Settings) -> bool:
    """Numbered variants or a list, where the original has none."""
    return bool(_VARIANTS.search(text) or _LIST.search(text) and not _LIST.search(original))


def foreign_script(text: str, original: str, settings: Settings) -> bool:
    """Another script anywhere; English, or too few Cyrillic letters, where the original has enough of them."""
    share = 0.0 if _ENGLISH.search(text) else cyrillic_share(text)
    return bool(_FOREIGN.search(text)) or share < settings.min_cyrillic <= cyrillic_share(original)


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


def _finds(pattern: re.Pattern[str]) -> Filter:
    return lambda text, original, settings: bool(pattern.search(text))


# What says most about a candidate comes first, its length last.
FILTERS: dict[str, Filter] = {
    "refusal": _finds(_REFUSAL),  # a model that says it cannot or will not
    "meta_talk": _finds(_META),  # talk about the task or the text, or the shop's voice, instead of a buyer's
    "several_variants": several_variants,
    "markup": _finds(_MARKUP),  # marks of a chat template or of Markdown, ruled lines
    "placeholder": _finds(_PLACEHOLDER),  # a form left to be filled in: [название товара], рад(а)
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
    return "prompt_leak" if prompt_leak(text, prompt, settings) else None


def near_duplicate(text: str, known: list[str], settings: Settings) -> bool:
    """Whether the text repeats any known one; `known` in `bare` form, because it is long and met often."""
    cutoff = settings.max_copy_similarity
    return process.extractOne(bare(text), known, scorer=fuzz.ratio, score_cutoff=cutoff) is not None


def prompt_leak(text: str, prompt: Set[str], settings: Settings) -> bool:
    """Whether the text holds a part of the prompt, an instruction or an example."""
    return not prompt.isdisjoint(word_runs(text, settings.leak_words))


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
