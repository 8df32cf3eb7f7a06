"""Predictions for the test file, and the submission.

Writes `predictions.csv` (text, category, confidence, probability of every label) and `submission.csv`. All is done in
chunks: memory is the same for any number of texts, and a finished chunk is a file, so that a kill costs one chunk.

    predictions = predict(settings)        # stage "predict"
"""

import csv
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NoReturn

import pandas as pd
from tqdm.std import tqdm

from .encoder.classifier import Classifier
from .files.journal import replacing
from .files.reviews import read_csv, read_texts, write_csv
from .files.runs import Run, digest, stage_mark, told
from .models.batching import progress
from .settings import Settings

CHUNK = 8_192  # texts: what a kill can cost, and what is sorted by length together
# Of a text that a table's reader may change or refuse: accents of their own, separators left over, a formula's error.
_UNUSUAL = re.compile(r"[\0\u0300-\u036f]|[;\t]\s*\Z|\A\s*(#\S*|Err:\d+)\s*\Z")


@told
def predict(settings: Settings) -> pd.DataFrame:
    """Stage "predict": a category for every row of test.csv, in order; columns category (of a few), confidence."""
    run = Run(settings.folder, settings)
    source = settings.data / "test.csv"
    mark = stage_mark("predict", digest(run.need("adapter")), digest(source), CHUNK)
    work = run.path(f"predictions-{mark}")
    if not run.is_finished("predict", mark):
        with run.stage("predict", mark):
            for old in run.folder.glob("predictions-*"):
                if old != work:
                    shutil.rmtree(old)
            count, texts = texts_of(source)
            with Classifier.load(run.path("adapter"), settings.device, settings.tokens_per_batch) as classifier:
                pieces = write_pieces(texts, count, classifier, work)
            join(pieces, run.path("predictions.csv"), run.path("submission.csv"))
    shutil.rmtree(work, ignore_errors=True)  # only now: until the stage is recorded a kill needs the chunks
    # A byte per row: texts and probabilities stay on disk.
    header = pd.read_csv(run.path("predictions.csv"), nrows=0).columns
    types = {"category": pd.CategoricalDtype(sorted(name[2:] for name in header if name.startswith("p_")))}
    columns = ["category", "confidence"]
    found = pd.read_csv(run.path("predictions.csv"), usecols=columns, dtype=types, keep_default_na=False)
    return found.assign(category=found["category"].cat.remove_unused_categories())


def texts_of(path: Path) -> tuple[int, Iterator[str]]:
    """How many texts a CSV file holds, and each of them in order; only a file that needs repair is read as a whole."""
    try:
        if count := sum(1 for _ in _plain_texts(path)):
            return count, _plain_texts(path)
    except (OSError, ValueError, csv.Error):
        pass
    texts = read_texts(path)
    return len(texts), iter(texts)


def _plain_texts(path: Path) -> Iterator[str]:
    """The texts of a CSV file in which nothing is unusual; a ValueError or csv.Error where something is."""
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        rows = csv.reader(file, strict=True)
        header = next(rows, [])
        column = header.index("text")
        for row in rows:
            if len(row) != len(header) or row == header or _UNUSUAL.search(row[column]):
                raise ValueError(f"{path}, row {rows.line_num}")
            yield row[column]


def write_pieces(texts: Iterable[str], count: int, classifier: Classifier, folder: Path) -> list[Path]:
    """A CSV for each chunk of the texts, in order; those that are there and whole are not made again."""
    folder.mkdir(exist_ok=True)
    pieces: list[Path] = []
    rest = iter(texts)
    with progress(count, "predict") as bar:
        while chunk := list(islice(rest, CHUNK)):
            pieces.append(folder / f"{len(pieces) * CHUNK:012}.csv")
            if _is_whole(pieces[-1], chunk):
                bar.update(len(chunk))
            else:
                write_csv(pieces[-1], as_table(chunk, classifier, bar))
    return pieces


def _is_whole(piece: Path, chunk: Sequence[str]) -> bool:
    """Whether a chunk's file is there and holds its texts, row by row, to the end of its last line."""
    try:
        return piece.read_bytes().endswith(b"\n") and read_csv(piece, ["text"])["text"].tolist() == chunk
    except (FileNotFoundError, ValueError):  # no CSV any more
        return False


def as_table(texts: Sequence[str], classifier: Classifier, bar: "tqdm[NoReturn] | None" = None) -> pd.DataFrame:
    """Columns text, category, confidence, and the probability of every label as p_<label>."""
    rows = classifier(texts, bar)
    named = [classifier.labels[i] for i in rows.argmax(1)]
    table = pd.DataFrame({"text": texts, "category": named, "confidence": rows.max(1)})
    table[[f"p_{name}" for name in classifier.labels]] = rows
    return table.round(6)


def join(pieces: Sequence[Path], predictions: Path, submission: Path) -> None:
    """Append the pieces to each other, whole and their categories alone; each of the two files appears in one step."""
    with replacing(predictions) as whole, replacing(submission) as categories:
        for piece in pieces:
            own = read_csv(piece, ["category"]).to_csv(index=False, lineterminator="\n")
            for file, data in ((whole, piece.read_bytes()), (categories, own.encode())):
                header, newline, rows = data.partition(b"\n")
                file.write(rows if file.tell() else header + newline + rows)
