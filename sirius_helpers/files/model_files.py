"""Whether a local model folder still holds the same model, told in a moment: weights are sampled, not read whole.

model_content(Path("models/mine"))     # another one as soon as a file in the folder is another
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SAMPLES, SAMPLE = 16, 64 * 1024  # pieces of a file, bytes of each: a smaller file is read whole


def model_content(folder: Path) -> str:
    """Short sha256 of the names, sizes and samples of a folder's files, wherever the folder lies.

    The samples are spread over the whole file, so that weights which were trained on differ in some of them, though
    header, size and embeddings are the same.
    """
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        whole.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with open(path, "rb") as file:
            for start in _starts(size):
                file.seek(start)
                whole.update(file.read(SAMPLE))
    return whole.hexdigest()[:16]


def _starts(size: int) -> list[int]:
    if size <= SAMPLES * SAMPLE:
        return list(range(0, size, SAMPLE))
    return [(size - SAMPLE) * n // (SAMPLES - 1) for n in range(SAMPLES)]
