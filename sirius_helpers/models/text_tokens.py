"""Texts and prompts as token ids, where a marker in a text, such as "</s>", is data and never a token of its own.

ids = TextTokens(tokenizer)(["Сапоги </s> промокают"], truncation=True, max_length=256)
prompt = PromptTokens(tokenizer, "<bos>Отзыв: ", "\\nТовар:")
shared, rest = prompt.with_text("Сапоги промокают")       # the prompt: prompt.prefix_ids[:shared] + rest
"""

import copy
import unicodedata
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import AddedToken

from ..errors import UserError
from ..kinds import Tokenizer

_SPELLERS: WeakKeyDictionary[Tokenizer, Tokenizer] = WeakKeyDictionary()


def markers(tokenizer: Tokenizer) -> dict[int, AddedToken]:
    """The added tokens that no text is made of: those flagged special, and those with punctuation ("<tool_call>").

    Blanks, words and emoji that somebody added ("\\n\\n", "маркетплейс") are text.
    """
    signs = ("P", "Sm")  # punctuation; of mathematics, as "<" and "|" are
    return {
        i: token
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special or any(unicodedata.category(letter).startswith(signs) for letter in token.content)
    }


class TextTokens:
    """A tokenizer for what people wrote.

    `split_special_tokens` spells out the markers that are flagged special: a text that holds others is read by a copy
    in which they are. Tokenizers of the Unigram kind (XLM-R, e5) have the markers among their word pieces and find them
    again, also where normalisation makes one ("＜/s＞"), so what is left of them is taken out; the unknown token stays.
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
        list(texts), split_special_tokens=True, return_special_tokens_mask=True, return_attention_mask=False, **options
    )
    return list(zip(found["input_ids"], found["special_tokens_mask"], strict=True))


class PromptTokens:
    """The tokens of `prefix + text + tail` for any text, as if tokenised as a whole; a model reads the prefix once.

    Only the piece from the last marker of the prefix to the first one of the tail is tokenised for each text: markers
    keep their neighbours apart.
    """

    def __init__(self, tokenizer: Tokenizer, prefix: str, tail: str) -> None:
        if not prefix:
            raise UserError("the part of a prompt before the text is empty; put what is fixed there.")
        start = max((stop for _, stop in _marker_places(tokenizer, prefix)), default=0)
        stop = min((start for start, _ in _marker_places(tokenizer, tail)), default=len(tail))
        self.text_tokens, self.before, self.after = TextTokens(tokenizer), prefix[start:], tail[:stop]
        self.first_ids, self.last_ids = encode(tokenizer, prefix[:start]), encode(tokenizer, tail[stop:])
        self.prefix_ids = encode(tokenizer, prefix)
        for probe in ("а 1.\nA ", " а"):
            shared, rest = self.with_text(probe)
            if self.prefix_ids[:shared] + rest != encode(tokenizer, prefix + probe + tail):
                raise UserError(
                    f"{tokenizer.name_or_path}: the tokenizer joins text across special tokens, which is not supported "
                    "here; choose another model."
                )

    def with_text(self, text: str) -> tuple[int, list[int]]:
        """How many tokens of the prefix the prompt begins with, and its other tokens, at least one."""
        (piece,) = self.text_tokens([self.before + text + self.after], add_special_tokens=False)
        ids = [*self.first_ids, *piece, *self.last_ids]
        same = [a == b for a, b in zip(self.prefix_ids, ids[:-1], strict=False)]
        shared = [*same, False].index(False)
        return shared, ids[shared:]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text in which special tokens are written out."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _marker_places(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """Where markers begin and end in a text."""
    known = markers(tokenizer)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [place for i, place in places if i in known]
