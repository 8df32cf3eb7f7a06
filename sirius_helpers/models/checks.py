"""Whether a model is what its place needs: told from its configuration, its tokenizer and the report of its loading.

What the libraries pass over in silence is a UserError here.

    check_config(name, config)             # a text model of a known kind, its weights not packed already
    check_tokenizer(name, tokenizer, config)
    check_report(name, model, report)      # every weight came from the file, and fitted
"""

import math
import re
from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers import MODEL_MAPPING, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto as auto

from ..errors import UserError
from ..kinds import Json, Tokenizer

WORDS = ("сапоги", "платье", "чайник", "кружка", "одеяло")  # of equal length: a row of unknown letters shows, too
WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# No weights, the same weights once more, or a layer that nothing here uses.
HARMLESS = re.compile(r"(^|\.)(pooler\..*|position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias|_weight)$")


def writes_text(config: PretrainedConfig) -> bool:
    """Whether it is the configuration of a causal language model."""
    family, names = type(config), config.architectures or ()
    if family not in auto.MODEL_FOR_CAUSAL_LM_MAPPING or _has_two_halves(config):
        return False
    # Encoders stand on the list as well: each of them can be made to write.
    return any(name.endswith(WRITES) for name in names) or not (names or family in auto.MODEL_FOR_MASKED_LM_MAPPING)


def check_config(name: str, config: PretrainedConfig, causal: bool | None = None) -> None:
    """Refuse weights packed by others, and what is no language model (`causal`), no encoder (False) or neither."""
    if not ((causal is not False and writes_text(config)) or (not causal and _reads_text(config))):
        needed = {True: "language model", False: "text encoder", None: "text encoder or language model"}[causal]
        raise UserError(
            f"{name} is no {needed} ({', '.join(config.architectures or [config.model_type])}). Choose another: "
            f"{'…ForCausalLM' if causal else '…ForMaskedLM or …ForCausalLM'} stands in the config.json of such a model."
        )
    for part in (config, config.get_text_config()):
        if packed := getattr(part, "quantization_config", None):
            raise UserError(
                f"{name} holds packed weights ({packed.get('quant_method', 'of an unknown kind')}), which are not read "
                'here. Name the model that it was made from; weights="nf4" packs that one while it is loaded.'
            )


def check_tokenizer(name: str, tokenizer: Tokenizer, config: PretrainedConfig | None) -> None:
    """Refuse a tokenizer that does not tell Russian words apart, or knows tokens that the model does not.

    Gives it a token to pad with: padding is masked, so the model's own or, where it writes text, its end token will do.
    """
    words = tokenizer(list(WORDS), add_special_tokens=False)["input_ids"]
    if not tokenizer.is_fast or len({tuple(ids) for ids in words}) < len(WORDS):
        raise UserError(
            f"{name} has no tokenizer, or one that does not tell Russian words apart. Put its tokenizer.json beside "
            "the weights, or choose another model."
        )
    size = config.get_text_config().vocab_size if config else math.inf
    if max(tokenizer.vocab_size - 1, *map(max, words)) >= size:
        raise UserError(
            f"{name}: the tokenizer knows {tokenizer.vocab_size} tokens and the model {size}, so they belong to "
            "different models. Put the model's own tokenizer beside the weights."
        )
    end = tokenizer.eos_token_id if config is None or writes_text(config) else None
    ids = (tokenizer.pad_token_id, getattr(config, "pad_token_id", None), end)
    tokens = (tokenizer.convert_ids_to_tokens(i) for i in ids if isinstance(i, int) and 0 <= i < size)
    padding = next(filter(None, tokens), None)
    if padding is None:
        raise UserError(
            f"{name} has no padding token; write one of its tokens into tokenizer_config.json as pad_token."
        )
    if padding != tokenizer.pad_token:
        tokenizer.pad_token = padding


def check_positions(name: str, model: nn.Module, tokens: int) -> None:
    """Refuse more tokens a text than the configuration or a table of the model has positions for."""
    config: Any = model.config
    said = getattr(config.get_text_config(), "max_position_embeddings", None)
    found = said if isinstance(said, int) and said > 0 else math.inf
    for path, module in model.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's begins behind the padding.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            found = min(found, module.num_embeddings - first)
    if tokens > found:
        raise UserError(
            f"{name} reads at most {found} tokens of a text, and max_tokens is {tokens}; set max_tokens={found} or "
            "less, or choose another model."
        )


def check_layers(name: str, model: nn.Module, targets: Iterable[str]) -> None:
    """Refuse adapters on layers that the model has not."""
    layers = {path.rsplit(".", 1)[-1] for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    if unknown := sorted(set(targets) - layers):
        raise UserError(f"lora_targets {unknown} are not layers of {name}: {sorted(layers)}.")


def check_report(name: str, model: PreTrainedModel, report: Json) -> None:
    """Refuse weights that were made up, cut to another shape or left in the file, though the model has their place.

    What may be left is a head of another task; what may lack, what nothing here uses.
    """
    own = {part for whole in (model, model.base_model) for part, _ in whole.named_children()}
    places = {key: key.removeprefix(f"{model.base_model_prefix}.").split(".")[0] for key in report["unexpected_keys"]}
    faults = {
        "missing": report["missing_keys"],
        "left over": [key for key, place in places.items() if place in own],
        "of another shape": [key for key, *_ in report["mismatched_keys"]],
    }
    found = {what: sorted(key for key in keys if not HARMLESS.search(key)) for what, keys in faults.items()}
    said = [f"{len(keys)} {what} ({keys[0]}{', …' * (len(keys) > 1)})" for what, keys in found.items() if keys]
    if said:
        raise UserError(
            f"{name}: its weights do not fit its config.json: {'; '.join(said)}. Save it anew as a whole with "
            "save_pretrained, or choose another model."
        )


def _has_two_halves(config: PretrainedConfig) -> bool:
    """An encoder that feeds a decoder, as T5 and BART are."""
    both = auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    return bool(getattr(config, "is_encoder_decoder", False)) or type(config) in both


def _reads_text(config: PretrainedConfig) -> bool:
    """Tokens in, a vector for each out: no pictures or sound, no parts of several kinds."""
    if type(config) not in MODEL_MAPPING or _has_two_halves(config) or config.sub_configs:
        return False
    model: Any = MODEL_MAPPING[type(config)]
    model = model[0] if isinstance(model, tuple) else model
    return model.main_input_name == "input_ids" and hasattr(config, "vocab_size") and hasattr(config, "hidden_size")
