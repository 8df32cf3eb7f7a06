"""A model by name, and the embedded ones' names. Loads no model.

ModelSpec("ai-forever/ruRoberta-large", revision="…")
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from .errors import UserError
from .kinds import Json
from .validation import Count, validated

SAMPLES, SAMPLE = 16, 64 * 1024  # pieces of a file, bytes of each: a smaller file is read whole
ENCODER, CAUSAL_LM = "embedded:encoder", "embedded:causal-lm"  # resolved by embedded/, without a network


@validated
class ModelSpec:
    """A model by name and how to hold it in memory."""

    name: str  # hub id, local folder, or one of the embedded names above
    # How they lie in memory, and the arithmetic; nf4 is packed and computes in fp16 on a GPU, nf4-fp32 in fp32.
    weights: Literal["nf4", "nf4-fp32", "fp16", "bf16", "fp32"] = "fp32"
    chat: bool = False  # prompts go through the tokenizer's chat template
    text_prefix: str = ""  # what the encoder wants before each text (e5: "query: ")
    revision: str | None = None  # hub commit to pin; a run fills in the one that it found, see runs.pinned
    server: str | None = None  # address of an inference server that holds the model; `name` then gives the tokenizer
    server_requests: Count = 16  # at once

    def __post_init__(self) -> None:
        if self.server is not None and not self.server.startswith(("http://", "https://")):
            raise UserError(f"server={self.server!r} is no address; write one such as 'http://127.0.0.1:8080/v1'.")

    @property
    def identity(self) -> Json:
        """What the model's answers depend on; a server may move to another address."""
        return {**vars(self), "server": self.server is not None, "server_requests": None, **self.content}

    @property
    def on_hub(self) -> bool:
        """Whether the name is one on the hub: neither an embedded model's nor a folder's."""
        return self.name not in (ENCODER, CAUSAL_LM) and not Path(self.name).exists()

    @property
    def content(self) -> Json:
        """What tells a local folder's model from another one at the same place; nothing for other models."""
        folder = Path(self.name)
        return {"content": model_content(folder)} if folder.is_dir() else {}


def model_content(folder: Path) -> str:
    """Short sha256 of the names, sizes and samples of a folder's files, wherever the folder lies.

    The samples are spread over the whole file, so that weights which were trained on differ in some of them, though
    header, size and embeddings are the same.
    """
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        starts: Sequence[int] = range(0, size, SAMPLE)
        if len(starts) > SAMPLES:
            starts = [(size - SAMPLE) * n // (SAMPLES - 1) for n in range(SAMPLES)]
        with open(path, "rb") as file:
            for start in starts:
                file.seek(start)
                whole.update(file.read(SAMPLE))
    return whole.hexdigest()[:16]
