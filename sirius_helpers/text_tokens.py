"""Texts as token ids, where whatever a text says is data: a marker in it, such as "</s>", is never a special token.

Knows tokenizers; no model and no prompt.

    ids = TextTokens(tokenizer)(["Сапоги </s> промокают"], truncation=True, max_length=256)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .kinds import Tokenizer


class TextTokens:
    """A tokenizer for what people wrote.

    Most tokenizers spell a marker out when they are told to (`split_special_tokens`). Those of the Unigram kind
    (XLM-R, e5) have the markers among their word pieces and find them again, also where normalisation makes one
    ("＜/s＞"), so what is left of them is taken out. The unknown token stays: strange letters become it too.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        known = tokenizer.added_tokens_decoder.items()
        self.special = {i for i, token in known if token.special} - {tokenizer.unk_token_id}

    def __call__(self, texts: Sequence[str], **options: Any) -> list[list[int]]:
        """Ids of each text; what the tokenizer itself puts around one stays, unless `add_special_tokens` is False."""
        found = self.tokenizer(
            list(texts),
            split_special_tokens=True,
            return_special_tokens_mask=True,
            return_attention_mask=False,
            **options,
        )
        return [
            [i for i, around in zip(ids, mask, strict=True) if around or i not in self.special]
            for ids, mask in zip(found["input_ids"], found["special_tokens_mask"], strict=True)
        ]
