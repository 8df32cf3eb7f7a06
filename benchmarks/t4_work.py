"""The t4 profile on paper: each stage's work, its floor on a T4 and its memory, from published shapes and counts.

Knows shapes and token counts; loads no weights.

    work = stage_work("label", Shape(config, "nf4"), settings, texts, tokenizer)
    work.floor(T4_FLOPS, T4_BYTES)                                                     # seconds
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd
import synthetic
import torch

from sirius_helpers.batching import Batcher
from sirius_helpers.candidates import Writer
from sirius_helpers.categories import read_categories
from sirius_helpers.choices import ClosedQuestion
from sirius_helpers.labelers import label_question
from sirius_helpers.loaders import DTYPES, weight_bytes
from sirius_helpers.profiles import t4
from sirius_helpers.settings import Settings

GIB = 2**30
T4_FLOPS, T4_BYTES, T4_MEMORY = 24e12, 320e9, 14.5 * GIB  # a second sustained in fp16; a second; what CUDA leaves
# Of the host: Python with torch and CUDA's libraries, assumed; loading, as `t4_budget.py loader` measures it for the 7B
# model, which is the largest. The weights are the GPU's.
HOST_PROCESS, HOST_LOADING = 3 * GIB, 0.8 * GIB
CONTEST = {"label": 1_818, "paraphrase": 2_798, "judge": 2_798, "train": 3_692, "predict": 7_276}  # texts
NEW_TOKENS = 40  # a paraphrase as long as its original, and the end token
ROLES = {"label": "labeler", "paraphrase": "writer", "judge": "writer", "train": "classifier", "predict": "classifier"}


@dataclass
class Work:
    """What a stage cannot do without: arithmetic, and device memory read or written."""

    flops: float = 0.0
    moved: float = 0.0  # bytes

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.moved + other.moved)

    def floor(self, flops: float, bandwidth: float) -> float:
        """Seconds at these rates a second."""
        return max(self.flops / flops, self.moved / bandwidth)


class Shape:
    """What counts of an architecture: weights in matrices, attention width, cache."""

    def __init__(self, config, weights: str) -> None:
        model = synthetic.on_meta(config)
        body = model.get_decoder() if hasattr(model, "lm_head") else model
        linear = [m for n, m in body.named_modules() if isinstance(m, torch.nn.Linear) and "pooler" not in n]
        self.matrices = sum(m.weight.numel() for m in linear)
        self.config, self.layers, self.hidden = config, config.num_hidden_layers, config.hidden_size
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        self.cache = 2 * 2 * self.layers * heads * self.hidden // config.num_attention_heads  # bytes a token, fp16
        self.head = self.hidden * config.vocab_size if hasattr(model, "lm_head") else 0
        self.bytes_each = 0.5 + 4 / 64 if weights == "nf4" else DTYPES[weights].itemsize

    def read(self, tokens: int, pairs: int, passes: int) -> Work:
        """Tokens through every layer; `pairs` of places that attention compares, `passes` over the weights."""
        flops = 2 * self.matrices * tokens + 4 * self.hidden * self.layers * pairs
        return Work(flops, passes * self.matrices * self.bytes_each)


def question_work(shape: Shape, question: ClosedQuestion, texts: Sequence[str], budget: int) -> Work:
    """A closed question: the prefix once, then each text's own part and the tree behind it."""
    prefix, tree = len(question.prompt.prefix_ids), len(question.tree.ids)
    sizes = [len(rest) + tree for _, rest in map(question.prompt.with_text, texts)]
    pairs = prefix * prefix // 2 + sum(size * prefix + size * size // 2 for size in sizes)
    return shape.read(prefix + sum(sizes), pairs, 1 + len(batches(sizes, budget)))


def writing_work(shape: Shape, prefix: int, rests: Sequence[int], new: int, budget: int) -> Work:
    """A prefix read once, the rest of each prompt behind it, and `new` tokens, a pass over the weights a step."""
    groups = batches([size + new for size in rests], budget)
    looked_at = prefix * prefix // 2 + sum(size * (prefix + size // 2) for size in rests)
    work = shape.read(prefix + sum(rests), looked_at, bool(prefix) + len(groups))
    written = len(rests) * new
    pairs = sum((prefix + size) * new + new * new // 2 for size in rests)
    weights = (shape.matrices + shape.head) * shape.bytes_each
    return work + Work(
        2 * (shape.matrices + shape.head) * written + 4 * shape.hidden * shape.layers * pairs,
        new * len(groups) * weights + pairs * shape.cache,
    )


def training_work(shape: Shape, sizes: Sequence[int], epochs: int, batch: int) -> Work:
    """LoRA: forward, and back through the activations but not into the frozen weights: twice a forward."""
    once = shape.read(sum(sizes), sum(size * size for size in sizes), -(-len(sizes) // batch))
    return Work(2 * epochs * once.flops, 2 * epochs * once.moved) + once  # and the frozen embeddings before it


def encoding_work(shape: Shape, sizes: Sequence[int], budget: int) -> Work:
    return shape.read(sum(sizes), sum(size * size for size in sizes), len(batches(sizes, budget)))


def batches(sizes: Sequence[int], budget: int) -> list[list[int]]:
    """As `Batcher` cuts them."""
    cut: list[list[int]] = []
    Batcher(budget).run(sizes, cut.append)
    return cut


def memory_on_paper(stage: str, shape: Shape, weights: int, settings: Settings, prefix: int, width: int) -> dict:
    """Bytes by kind in the largest batch: texts of `width` tokens behind a prefix of `prefix`."""
    config, tokens = shape.config, settings.tokens_per_batch
    inner, heads = config.intermediate_size, config.num_attention_heads
    rows = max(1, tokens // width)
    parts = {"weights": weights}
    if stage in ("label", "judge"):
        seen = rows * (prefix + width)
        parts["prefix cache"] = prefix * shape.cache
        parts["keys and values of a layer"] = 2 * seen * shape.hidden * 2 + 2 * seen * shape.cache // shape.layers
        parts["attention scores"] = rows * heads * width * (prefix + width) * 4
        parts["feed-forward"] = 3 * tokens * inner * 2
    elif stage == "paraphrase":
        rows = max(1, tokens // (width + settings.max_new_tokens))
        parts["cache"] = (rows * prefix + tokens) * shape.cache
        parts["scores of the vocabulary"] = 4 * rows * config.vocab_size * 4
        parts["feed-forward"] = 3 * tokens * inner * 2
    elif stage == "train":  # activations of a layer: 34 bytes x tokens x width, as Korthikanti et al. 2022 count them
        tokens = settings.batch_size * width
        parts["weights in fp16"] = weights // 2
        parts["activations"] = 34 * tokens * shape.hidden * shape.layers
        parts["attention scores"] = 5 * settings.batch_size * heads * width * width * shape.layers
        adapters = settings.lora_rank * shape.layers * (8 * shape.hidden + 2 * (shape.hidden + inner))
        parts["adapters and optimiser"] = 16 * adapters
    else:
        parts["weights in fp16"] = weights // 2
        parts["feed-forward"] = 3 * tokens * inner * 2
        parts["attention scores"] = rows * heads * width * width * 4
    return parts


def stage_work(stage: str, shape: Shape, settings: Settings, texts: Sequence[str], tokenizer) -> Work:
    """The work of a stage on these texts."""
    if stage in ("label", "judge"):
        return question_work(shape, _question(stage, tokenizer, settings), texts, settings.tokens_per_batch)
    if stage == "paraphrase":
        writer = Writer(_Without(), tokenizer, settings)
        sizes = [len(writer.prompt(text)[1]) for text in texts]
        prefix = len(writer.tokens.prefix_ids)
        return writing_work(shape, prefix, sizes, settings.max_new_tokens, settings.tokens_per_batch)
    sizes = [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=settings.max_tokens)["input_ids"]]
    if stage == "train":
        return training_work(shape, sizes, settings.epochs, settings.batch_size)
    return encoding_work(shape, sizes, settings.tokens_per_batch)


class _Without:
    """Stands where a model would, for code that only lays out tokens."""

    class config:  # noqa: N801
        @staticmethod
        def get_text_config():
            return None

    class generation_config:  # noqa: N801
        eos_token_id = None

    @staticmethod
    def get_output_embeddings():
        return None


def _question(stage: str, tokenizer, settings: Settings) -> ClosedQuestion:
    if stage == "judge":
        return Writer(_Without(), tokenizer, settings).judge
    return label_question(_Without(), tokenizer, read_categories(settings.data), settings)


def paper() -> None:
    """The table of floors and memory for the contest's counts."""
    settings = Settings(**(t4() | {"max_new_tokens": NEW_TOKENS}), profile_reason="on paper")
    print(f"floor = max(flops / {T4_FLOPS / 1e12:.0f}e12, bytes moved / {T4_BYTES / 1e9:.0f}e9) seconds on a T4")
    rows, sums = [], {}
    for stage, count in CONTEST.items():
        figures, spec = synthetic.FIGURES[ROLES[stage]], getattr(settings, ROLES[stage])
        shape = Shape(figures.built(), spec.weights)
        tokenizer = synthetic.tokenizer(figures.config.model_type)
        texts = synthetic.reviews(count)
        work = stage_work(stage, shape, settings, texts, tokenizer)
        width = max(len(ids) for ids in tokenizer(texts)["input_ids"])
        prefix = len(_question(stage, tokenizer, settings).prompt.prefix_ids) if stage in ("label", "judge") else 300
        with tempfile.TemporaryDirectory() as folder:
            figures.built().save_pretrained(folder)
            weights = weight_bytes(synthetic.auto_class(figures.built()), replace(spec, name=folder), "cuda")
        width = settings.max_tokens if stage == "train" else width
        parts = memory_on_paper(stage, shape, weights, settings, prefix, width)
        sums[stage] = parts
        floor = work.floor(T4_FLOPS, T4_BYTES)
        rows.append(
            [stage, count, f"{work.flops:.2e}", f"{work.moved:.2e}", floor, 3 * floor, sum(parts.values()) / GIB]
            + [(HOST_PROCESS + HOST_LOADING) / GIB]
        )
    names = ["stage", "texts", "flops", "bytes moved", "floor, s", "3 x floor, s", "GPU, GiB", "host, GiB"]
    table = pd.DataFrame(rows, columns=names)
    print(table.round(1).to_string(index=False))
    print(f"all stages: floor {table['floor, s'].sum():.0f} s, 3 x floor {table['3 x floor, s'].sum() / 60:.1f} min")
    for stage, parts in sums.items():
        print(f"  {stage}: " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items()) + " GiB")
