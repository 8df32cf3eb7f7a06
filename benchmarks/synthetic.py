"""Models of the t4 profile without their weights: published shapes, random numbers, sharded like the real files.

folder = checkpoint(Path("qwen7b"), FIGURES["labeler"], prompts_and_reviews(), shard_bytes=2 * 2**30)
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

from sirius_helpers.files.categories import described, example_turns, read_categories
from sirius_helpers.files.reviews import read_reviews
from sirius_helpers.prompts import PROMPTS
from sirius_helpers.settings import PROJECT

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Trained on few texts; with so many pieces a token holds about 2.6 letters of Russian, as Qwen2.5's do.
PIECES = 1_300
SPECIALS = {
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


@dataclass(frozen=True)
class Figures:
    """A model's shape, as its published config.json gives it, and how many weights it is known to have."""

    name: str
    config: type[PretrainedConfig]
    shape: dict = field(hash=False)
    small: dict = field(hash=False)  # what replaces the shape in a run that takes seconds
    weights: int = 0

    def built(self, **changes) -> PretrainedConfig:
        return self.config(**{**self.shape, **changes})


QWEN = {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, "max_position_embeddings": 32_768}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TINY_QWEN = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": PIECES}
FIGURES = {
    "labeler": Figures(
        "T-lite-it-1.0 (Qwen2.5-7B)",
        Qwen2Config,
        {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
        | {"num_key_value_heads": 4, "vocab_size": 152_064, "tie_word_embeddings": False, **QWEN},
        TINY | TINY_QWEN,
        7_615_616_512,
    ),
    "writer": Figures(
        "Vikhr-Qwen-2.5-1.5B",
        Qwen2Config,
        {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
        | {"num_key_value_heads": 2, "vocab_size": 151_936, "tie_word_embeddings": True, **QWEN},
        TINY | TINY_QWEN,
        1_543_714_304,
    ),
    "classifier": Figures(
        "ruRoberta-large",
        RobertaConfig,
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
        | {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}
        | {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
        TINY | {"num_attention_heads": 4, "vocab_size": PIECES},
        355_359_744,
    ),
}


def on_meta(config: PretrainedConfig) -> torch.nn.Module:
    """The model without memory for its weights."""
    with torch.device("meta"):
        return auto_class(config).from_config(config)


def auto_class(config: PretrainedConfig):
    return AutoModel if config.model_type == "roberta" else AutoModelForCausalLM


def checkpoint(folder: Path, config: PretrainedConfig, shard_bytes: int, dtype: torch.dtype) -> Path:
    """A model folder with random weights in safetensors shards of at most `shard_bytes`, and a tokenizer."""
    folder.mkdir(parents=True)
    model = on_meta(config)
    tied = set(getattr(model, "_tied_weights_keys", None) or ()) if config.tie_word_embeddings else set()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tied}
    parts = list(_shards(shapes, shard_bytes, dtype.itemsize))
    where = {}
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file({name: _random(name, shapes[name], dtype) for name in names}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(names, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)
    tokenizer(config.model_type).save_pretrained(folder)
    return folder


def _shards(shapes: dict[str, torch.Size], limit: int, itemsize: int) -> Iterator[list[str]]:
    names, size = [], 0
    for name, shape in shapes.items():
        more = shape.numel() * itemsize
        if names and size + more > limit:
            yield names
            names, size = [], 0
        names.append(name)
        size += more
    yield names


def _random(name: str, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Norms are ones, biases noughts, matrices small noise; a repeated stretch of it, because drawing takes long.

    A decoder's last norm is larger, so that some tokens are far likelier than others, as in a trained model.
    """
    if name == "model.norm.weight":
        return torch.full(shape, 12.0, dtype=dtype)
    if len(shape) == 1:
        return torch.full(shape, float("norm" in name.lower() and name.endswith("weight")), dtype=dtype)
    noise = (torch.randn(1_000_003) * 0.02).to(dtype)
    return noise.repeat(-(-shape.numel() // len(noise)))[: shape.numel()].reshape(shape)


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on the project's prompts and sample; `kind` is "qwen2" or "roberta"."""
    specials = SPECIALS[kind]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": specials, "initial_alphabet": alphabet, "show_progress": False}
    bpe.train_from_iterator(_corpus(), trainers.BpeTrainer(vocab_size=PIECES, **options))
    if kind == "qwen2":
        names = {"pad_token": specials[0], "eos_token": specials[2], "chat_template": CHATML}
        return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=specials[1:2], **names)
    ends = [("<s>", 0), ("</s>", 2)]
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, cls_token="<s>", sep_token="</s>", **names)


def _corpus() -> list[str]:
    taxonomy = read_categories(PROJECT / "data" / "sample")
    turns = [turn for template in PROMPTS.values() for turn in template.examples] + list(example_turns(taxonomy, 2))
    prompts = [text for template in PROMPTS.values() for text in (template.system, template.user)]
    return [*prompts, *(text for turn in turns for text in turn), described(taxonomy), *reviews()]


def reviews(count: int | None = None) -> list[str]:
    """Reviews of the bundled sample, again and again until there are `count`, each time with another number behind."""
    texts = read_reviews(PROJECT / "data" / "sample" / "train.csv")["text"].tolist()
    count = len(texts) if count is None else count
    return [texts[n % len(texts)] + f" {n // len(texts)}" * (n >= len(texts)) for n in range(count)]
