"""Names for types that recur in signatures."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # what only names a type need not load a library
    import numpy as np
    from transformers import PreTrainedTokenizerBase

Json: TypeAlias = dict[str, Any]  # an object of a JSON or TOML file, whose values are of any kind
JsonView: TypeAlias = Mapping[str, Any]  # one that is only read
Tokenizer: TypeAlias = "PreTrainedTokenizerBase"
# A causal language model, loaded here or elsewhere: `question_to` and `sampler_of` in llm/ know how to ask each kind.
LanguageModel: TypeAlias = object
# Told after each finished batch: positions of its texts, their rows.
OnBatch: TypeAlias = Callable[[Sequence[int], "np.ndarray"], None]
Prompt: TypeAlias = tuple[int, Sequence[int]]  # how many tokens of the prefix it begins with, and its other tokens
