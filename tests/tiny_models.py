"""Models of a few thousand random parameters with byte-level tokenizers: made in a moment, without a network.

model, tokenizer = tiny_qwen2()
spec = ModelSpec(saved(folder, tiny_qwen2()))      # as a folder that `from_pretrained` loads
"""

from functools import cache

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
)

CORPUS = [
    "Отзыв: Сапоги промокают после первого дождя, размер не подошёл.\nКатегория: обувь",
    "Отзыв: Тарелка разбилась в дороге, чашка с трещиной!\nКатегория: посуда",
    "Отзыв: Платье красивое, ткань хорошая, швы ровные.\nКатегория: одежда и текстиль",
    "Категория: бытовая техника, электроника, украшения и аксессуары, товары для детей, нет товара",
    "The order never arrived and the seller does not answer. Yes or no?",
]
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# In the manner of Qwen2.5, Gemma 2, Qwen3 and DeepSeek-R1: a system text of its own; none at all, and a beginning
# token; thoughts unless they are switched off; thoughts in any case.
OWN_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}" + CHATML
NO_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ message['role'] }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SWITCHED = CHATML.removesuffix("{% endif %}") + (
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
THINKING = CHATML.removesuffix("{% endif %}") + "<think>\n{% endif %}"
# Where Qwen2 cuts a text before byte-pair encoding.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_tokenizer(specials, *, vocab=400, frame=None, **names) -> PreTrainedTokenizerFast:
    """Byte-level BPE that spells any text. `specials` get the ids 0, 1, …; `names` go to the tokenizer.

    `frame` is what `add_special_tokens` puts around a text, such as "<s> $A </s>".
    """
    tokenizer = Tokenizer.from_str(_trained(tuple(specials), vocab))
    if frame:
        ids = [(special, specials.index(special)) for special in frame.split() if special in specials]
        tokenizer.post_processor = processors.TemplateProcessing(single=frame, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@cache
def _trained(specials, vocab) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


# The wide initial range makes the random models opinionated: their log-probabilities differ by several units.


def tiny_qwen2(seed=0, **config):
    """A chat model: ChatML template, no beginning token, grouped-query attention."""
    tokenizer = byte_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=CHATML,
    )
    settings = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    settings |= {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    return _model(Qwen2ForCausalLM, Qwen2Config, tokenizer, seed, settings | config), tokenizer


def tiny_gemma3(seed=0, **config):
    """A base model: sliding-window and full attention layers, a window of 8 tokens, tied embeddings."""
    tokenizer = byte_tokenizer(
        ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
        frame="<bos> $A",
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        extra_special_tokens=["<start_of_turn>", "<end_of_turn>"],
    )
    settings = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "query_pre_attn_scalar": 8}
    settings |= {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    settings |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    return _model(Gemma3ForCausalLM, Gemma3TextConfig, tokenizer, seed, settings | config), tokenizer


def tiny_vision_gemma3(seed=0):
    """A chat model that sees pictures too: the text model of `tiny_gemma3` within another."""
    text, tokenizer = tiny_gemma3(seed)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text.config.to_dict(), vision_config=vision, mm_tokens_per_image=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Gemma3ForConditionalGeneration(config).float().eval(), tokenizer


def tiny_roberta(seed=0, **config):
    """A bidirectional encoder without a head."""
    tokenizer = byte_tokenizer(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        frame="<s> $A </s>",
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=256,
    )
    settings = {"num_attention_heads": 4, "max_position_embeddings": 258, "type_vocab_size": 1}
    settings |= {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
    return _model(RobertaModel, RobertaConfig, tokenizer, seed, settings | config), tokenizer


def _model(model_class, config_class, tokenizer, seed, settings):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "initializer_range": 0.3}
    config = config_class(vocab_size=len(tokenizer), **(small | settings))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config).float().eval()


def saved(folder, parts):
    """The folder's name, with a model, its tokenizer or both saved in it."""
    for part in parts:
        part.save_pretrained(folder)
    return str(folder)
