"""Labels or predictions for any number of reviews, on every GPU or CPU of a machine or a Ray cluster.

predict_files("s3://shop/reviews", "s3://shop/predictions", "checkpoints/sample/adapter", settings)
python -m sirius_helpers.extras.scaleout predict reviews predictions --adapter checkpoints/sample/adapter
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..encoder.classifier import Classifier
from ..errors import UserError, command
from ..files.categories import Category, labels_of, read_categories
from ..files.runs import digest, stage_mark
from ..label import label_record, labeler_identity
from ..llm.labelers import loaded_labeler
from ..models import hub
from ..predict import as_table
from ..settings import Settings, how_to_install, settings_for


class LabelWorker:
    """A labeler in a process of its own. Rows: id, text, category, probabilities (a struct), margin, labeler."""

    def __init__(self, taxonomy: list[Category], settings: Settings) -> None:
        self.labels, self.name = labels_of(taxonomy), settings.labeler.name
        self.until_exit = ExitStack()  # never closed: the model goes with the process
        self.labeler = self.until_exit.enter_context(loaded_labeler(taxonomy, settings))

    def __call__(self, block: pa.Table) -> pa.Table:
        """Label the reviews of a block (id, text) that have a text."""
        ids, texts = columns_of(block)
        reviews = [{"id": i, "text": text} for i, text in zip(ids, texts, strict=True) if text.strip()]
        rows = np.empty((len(reviews), len(self.labels)))

        def on_batch(batch: Sequence[int], part: np.ndarray) -> None:
            rows[list(batch)] = part

        if reviews:
            self.labeler([review["text"] for review in reviews], on_batch)
        records = [label_record(review, self.labels, row, self.name) for review, row in zip(reviews, rows, strict=True)]
        fields = {"id": block.schema.field("id").type, "text": pa.string(), "category": pa.string()}
        fields |= {"probabilities": pa.struct([(label, pa.float64()) for label in self.labels])}
        return pa.Table.from_pylist(records, pa.schema(fields | {"margin": pa.float64(), "labeler": pa.string()}))


class PredictWorker:
    """A classifier in a process of its own. Rows: id, text, category, confidence, p_<label> of every label."""

    def __init__(self, adapter: Path, settings: Settings) -> None:
        self.classifier = Classifier.load(adapter, settings.device, settings.tokens_per_batch)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Classify every row of a block (id, text)."""
        _, texts = columns_of(block)
        table = pa.Table.from_pandas(as_table(texts, self.classifier), preserve_index=False)
        return table.add_column(0, "id", block["id"])


def label_files(source: str, output: str, settings: Settings, workers: int | None = None) -> None:
    """A category for every review of the files in `source` that has a text; `workers` None: one per GPU or CPU."""
    taxonomy = read_categories(settings.data)
    for role in ("labeler", "second_labeler"):
        if (spec := getattr(settings, role)) and spec.on_hub:  # one commit for all workers
            settings = replace(settings, **{role: replace(spec, revision=hub.source_of(spec).commit)})
    mark = stage_mark("label", labeler_identity(settings, taxonomy))
    _stream(LabelWorker, (taxonomy, settings), source, output, mark, settings.device, workers)


def predict_files(source: str, output: str, adapter: str, settings: Settings, workers: int | None = None) -> None:
    """A category for every row of the files in `source`, by a trained adapter that every worker can read."""
    folder = Path(adapter).resolve()
    mark = stage_mark("predict", digest(folder))
    _stream(PredictWorker, (folder, settings), source, output, mark, settings.device, workers)


def _stream(*arguments: Any) -> None:
    try:
        from .streaming import stream  # it alone needs Ray
    except ModuleNotFoundError as error:
        raise UserError(
            f"the Python package {error.name!r} is missing; install it with: {how_to_install('scaleout')}"
        ) from error
    stream(*arguments)


def columns_of(block: pa.Table) -> tuple[list[Any], list[str]]:
    """Ids and texts of a block; a cell without a value is an empty text."""
    for name in ("id", "text"):
        if name not in block.column_names:
            raise UserError(
                f"the files have no column {name!r}; a block has {', '.join(block.column_names)}. Each row needs a "
                "text, and an id that no other row has: the results are joined by it."
            )
    ids = block["id"].to_pylist()
    if {None, ""} & set(ids):
        raise UserError(f"row {min(ids.index(i) for i in (None, '') if i in ids) + 1} of a block has no id; add it.")
    return ids, [text or "" for text in block["text"].to_pylist()]


@command
def main(arguments: list[str] | None = None) -> None:
    """Label or predict every row of the files."""
    parser = argparse.ArgumentParser(prog="python -m sirius_helpers.extras.scaleout", description=main.__doc__)
    parser.add_argument("task", choices=("label", "predict"))
    parser.add_argument("source", help="folder with .csv or .parquet files, columns id and text; or one such file")
    parser.add_argument("output", help="folder for the results")
    parser.add_argument("--adapter", help="predict: the adapter of a finished run")
    parser.add_argument("--data", default="", help="label: folder with the categories")
    parser.add_argument("--profile", default="auto", help="auto, t4, cpu, chat or rehearsal")
    parser.add_argument("--workers", type=int, help="model workers; one for each GPU or CPU where not given")
    options = parser.parse_args(arguments)
    settings = settings_for(options.profile, data=options.data)
    if options.task == "label":
        label_files(options.source, options.output, settings, options.workers)
    elif options.adapter:
        predict_files(options.source, options.output, options.adapter, settings, options.workers)
    else:
        raise UserError("predict needs --adapter: the folder that a finished run's stage 'train' wrote.")


if __name__ == "__main__":
    sys.exit(main())
