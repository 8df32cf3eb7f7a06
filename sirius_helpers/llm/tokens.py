"""Prompts as tokens: a fixed beginning that a model reads once, and what is different from text to text.

Knows tokenizers; no model.

    prompt = PromptTokens(tokenizer, "<bos>Отзыв: ", "\\nТовар:")
    shared, rest = prompt.with_text("Сапоги промокают")       # the prompt: prompt.prefix_ids[:shared] + rest
"""

from __future__ import annotations

from ..errors import UserError
from ..kinds import Tokenizer
from ..models.text_tokens import TextTokens, markers


class PromptTokens:
    """The tokens of `prefix + text + tail` for any text, tokenised as a whole; markers in a text stay plain text.

    Only the piece around the text, from the last marker of the prefix to the first one of the tail, is tokenised for
    each: markers keep their neighbours apart.
    """

    def __init__(self, tokenizer: Tokenizer, prefix: str, tail: str) -> None:
        if not prefix:
            raise UserError("the part of a prompt before the text is empty; put what is fixed there.")
        start = max((stop for _, stop in _marker_places(tokenizer, prefix)), default=0)
        stop = min((start for start, _ in _marker_places(tokenizer, tail)), default=len(tail))
        self.text_tokens, self.before, self.behind = TextTokens(tokenizer), prefix[start:], tail[:stop]
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
        (piece,) = self.text_tokens([self.before + text + self.behind], add_special_tokens=False)
        ids = [*self.first_ids, *piece, *self.last_ids]
        same = [a == b for a, b in zip(self.prefix_ids, ids[:-1], strict=False)]
        shared = [*same, False].index(False)
        return shared, ids[shared:]


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """The token ids of a text in which special tokens are written out."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _marker_places(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """Where markers begin and end in a text."""
    known = markers(tokenizer)
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    places = zip(found["input_ids"], found["offset_mapping"], strict=True)
    return [place for i, place in places if i in known]
