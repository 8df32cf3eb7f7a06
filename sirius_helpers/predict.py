"""Predictions for the test file, and the submission.

Writes `predictions.csv` (text, category, confidence, probability of every label) and `submission.csv`. Whatever the
number of texts, the model's work happens in chunks; a finished chunk is a file, so that a kill costs one chunk.

    predictions = predict(settings)        # stage "predict"
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pandas as pd
from tqdm.std import tqdm

from .encoder.classifier import Classifier
from .errors import UserError
from .files.journal import replacing
from .files.reviews import read_csv, read_texts, write_csv
from .files.runs import Run, digest, stage_mark
from .models.batching import progress
from .settings import Settings

CHUNK = 8_192  # texts: what a kill can cost, and what is sorted by length together


def predict(settings: Settings) -> pd.DataFrame:
    """Stage "predict": a category for every row of test.csv, in order; columns text, category, confidence."""
    run = Run(settings.folder, settings)
    source = settings.data / "test.csv"
    mark = stage_mark("predict", digest(run.need("adapter")), digest(source), CHUNK)
    work = run.path(f"predictions-{mark}")
    if not run.is_finished("predict", mark):
        with run.stage("predict", mark, ["predictions.csv", "submission.csv"]):
            _predict(read_texts(source), run, work, settings)
    shutil.rmtree(work, ignore_errors=True)  # only now: until the stage is recorded a kill needs the chunks
    return read_csv(run.path("predictions.csv"), ["text", "category", "confidence"])  # the probabilities stay on disk


def _predict(texts: Sequence[str], run: Run, work: Path, settings: Settings) -> None:
    for old in run.folder.glob("predictions-*"):
        if old != work:
            shutil.rmtree(old)
    with Classifier.load(run.path("adapter"), settings.device, settings.tokens_per_batch) as classifier:
        pieces = write_pieces(texts, classifier, work)
    categories = pd.concat([read_csv(piece, ["category"]) for piece in pieces])["category"]
    if len(categories) != len(texts):
        raise UserError(f"{work} holds {len(categories)} predictions of {len(texts)}; run the stage 'predict' again.")
    join(pieces, run.path("predictions.csv"))
    write_csv(run.path("submission.csv"), categories.to_frame())


def write_pieces(texts: Sequence[str], classifier: Classifier, folder: Path) -> list[Path]:
    """A CSV for each chunk of texts, in order; those that are there and whole are not made again."""
    folder.mkdir(exist_ok=True)
    pieces = []
    with progress(len(texts), "predict") as bar:
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            pieces.append(folder / f"{start:012}.csv")
            if _is_whole(pieces[-1], chunk):
                bar.update(len(chunk))
                continue
            write_csv(pieces[-1], as_table(chunk, classifier, bar))
    return pieces


def _is_whole(piece: Path, chunk: Sequence[str]) -> bool:
    """Whether a chunk's file is there and holds its texts, row by row, to the end of its last line."""
    try:
        return piece.read_bytes().endswith(b"\n") and read_csv(piece, ["text"])["text"].tolist() == list(chunk)
    except (FileNotFoundError, ValueError):  # no CSV any more
        return False


def as_table(texts: Sequence[str], classifier: Classifier, bar: tqdm[NoReturn] | None = None) -> pd.DataFrame:
    """Columns text, category, confidence, and the probability of every label as p_<label>."""
    rows = classifier(texts, bar)
    named = [classifier.labels[i] for i in rows.argmax(1)]
    table = pd.DataFrame({"text": texts, "category": named, "confidence": rows.max(1)})
    table[[f"p_{name}" for name in classifier.labels]] = rows
    return table.round(6)


def join(pieces: Sequence[Path], target: Path) -> None:
    """Put CSV files with the same header below each other, in one step."""
    with replacing(target) as file:
        for piece in pieces:
            header, newline, rows = piece.read_bytes().partition(b"\n")
            file.write(rows if file.tell() else header + newline + rows)
