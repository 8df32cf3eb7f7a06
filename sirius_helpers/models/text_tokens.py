"""Texts as token ids, where whatever a text says is data: a marker in it, such as "</s>", is never a token of its own.

Knows tokenizers; no model and no prompt.

    ids = TextTokens(tokenizer)(["Сапоги </s> промокают"], truncation=True, max_length=256)
"""

from __future__ import annotations

import copy
import unicodedata
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import AddedToken

from ..kinds import Tokenizer

_SPELLERS: WeakKeyDictionary[Tokenizer, Tokenizer] = WeakKeyDictionary()


def markers(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    """The added tokens that no text is made of: those flagged special, and those with punctuation ("<tool_call>").

    Blanks, words and emoji that somebody added ("\\n\\n", "маркетплейс") are text.
    """
    known = tokenizer.added_tokens_decoder.items()
    return {i: token for i, token in known if token.special or any(map(_is_punctuation, token.content))}


def _is_punctuation(character: str) -> bool:
    """Signs of mathematics too: "<" and "|" are such."""
    return unicodedata.category(character).startswith(("P", "Sm"))


class TextTokens:
    """A tokenizer for what people wrote.

    Most tokenizers spell a marker out when they are told to (`split_special_tokens`), if it is flagged special: a text
    that holds others is read by a copy in which they are. Tokenizers of the Unigram kind (XLM-R, e5) have the markers
    among their word pieces and find them again, also where normalisation makes one ("＜/s＞"), so what is left of them
    is taken out. The unknown token stays: strange letters become it too.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        known = {i: token for i, token in markers(tokenizer).items() if i != tokenizer.unk_token_id}
        self.markers = set(known)
        self.unflagged = {i for i, token in known.items() if not token.special}

    def __call__(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Ids of each text; what the tokenizer itself puts around one stays, unless `add_special_tokens` is False."""
        found = _ids(self.tokenizer, texts, options)
        for n, (ids, _) in enumerate(found):
            if not self.unflagged.isdisjoint(ids):
                (found[n],) = _ids(_speller(self.tokenizer), [texts[n]], options)
        return [
            [i for i, around in zip(ids, mask, strict=True) if around or i not in self.markers] for ids, mask in found
        ]


def _speller(tokenizer: Tokenizer) -> Tokenizer:
    """A copy in which every marker is flagged special: seconds with the largest vocabularies, so only when needed."""
    if tokenizer not in _SPELLERS:
        speller = copy.deepcopy(tokenizer)
        known = markers(tokenizer).values()
        flagged = [AddedToken(token.content, special=True, normalized=token.normalized) for token in known]
        speller.backend_tokenizer.add_special_tokens(flagged)
        _SPELLERS[tokenizer] = speller
    return _SPELLERS[tokenizer]


def _ids(tokenizer: Tokenizer, texts: Sequence[str], options: Any) -> list[tuple[list[int], list[int]]]:
    """Of each text its ids, and 1 for those that the tokenizer put around it."""
    found = tokenizer(
        list(texts),
        split_special_tokens=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        **options,
    )
    return list(zip(found["input_ids"], found["special_tokens_mask"], strict=True))
