"""Labels or predictions for any number of reviews, on every GPU or CPU of a machine or a Ray cluster.

Needs the extra `scaleout`. Ray Data streams blocks of CSV or Parquet files through a pool of workers; each holds the
notebook's own labeler or classifier. A finished block is a Parquet file under `rows/`, and its ids lie under `done/`:
whoever starts again does only what is missing. A worker that dies is replaced and its block is done again.

    predict_files("s3://shop/reviews", "s3://shop/predictions", "checkpoints/sample/adapter", settings)
    label_files("reviews", "labels", settings)
    python -m sirius_helpers.scaleout predict reviews predictions --adapter checkpoints/sample/adapter
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry; read when Ray starts

import numpy as np
import pyarrow as pa
import ray
from pyarrow import csv
from pyarrow.fs import FileSelector, FileSystem, FileType
from ray.data import ActorPoolStrategy
from ray.data.checkpoint import CheckpointConfig

from .categories import Category, labels_of, read_categories
from .classifier import Classifier
from .errors import UserError, command
from .journal import fingerprint
from .labeling import label_record, labeler_identity, loaded_labeler
from .locks import held
from .prediction import as_table
from .runs import digest
from .settings import Settings, settings_for

BLOCK = 8_192  # reviews: what a kill can cost each worker, and the rows of a result file
SPARE = 2  # CPUs of the cluster that read, sort out finished rows and write while workers have theirs
RETRIES = 3  # a block whose worker dies so often stops the run: it is most likely the block's fault


class LabelWorker:
    """A labeler in a process of its own. Rows: id, text, category, probabilities (a struct), margin, labeler."""

    def __init__(self, taxonomy: list[Category], settings: Settings) -> None:
        self.labels, self.name = labels_of(taxonomy), settings.labeler.name
        self.held = ExitStack()  # until the process ends: the model goes with it
        self.labeler = self.held.enter_context(loaded_labeler(taxonomy, settings))

    def __call__(self, block: pa.Table) -> pa.Table:
        ids, texts = columns_of(block)
        reviews = [{"id": i, "text": text} for i, text in zip(ids, texts, strict=True) if text.strip()]
        rows = np.empty((len(reviews), len(self.labels)))

        def on_batch(batch: Sequence[int], part: np.ndarray) -> None:
            rows[list(batch)] = part

        if reviews:
            self.labeler([review["text"] for review in reviews], on_batch)
        records = [label_record(review, self.labels, row, self.name) for review, row in zip(reviews, rows, strict=True)]
        number = pa.float64()
        fields = {"id": block.schema.field("id").type, "text": pa.string(), "category": pa.string()}
        fields |= {"probabilities": pa.struct([(label, number) for label in self.labels])}
        return pa.Table.from_pylist(records, pa.schema(fields | {"margin": number, "labeler": pa.string()}))


class PredictWorker:
    """A classifier in a process of its own. Rows: id, text, category, confidence, p_<label> of every label."""

    def __init__(self, adapter: Path, settings: Settings) -> None:
        self.classifier = Classifier.load(adapter, settings.device, settings.tokens_per_batch)

    def __call__(self, block: pa.Table) -> pa.Table:
        _, texts = columns_of(block)
        table = pa.Table.from_pandas(as_table(texts, self.classifier), preserve_index=False)
        return table.add_column(0, "id", block["id"])


def label_files(source: str, output: str, settings: Settings, workers: int | None = None) -> None:
    """A category for every review of the files in `source` that has a text; `workers` None: one for each slot."""
    taxonomy = read_categories(settings.data)
    mark = fingerprint("label", labeler_identity(settings, taxonomy))
    _stream(LabelWorker, (taxonomy, settings), source, output, mark, settings, workers)


def predict_files(source: str, output: str, adapter: str, settings: Settings, workers: int | None = None) -> None:
    """A category for every row of the files in `source`, by a trained adapter that every worker can read."""
    adapter = Path(adapter).resolve()
    mark = fingerprint("predict", digest(adapter), digest(adapter.with_name("calibration.json")))
    _stream(PredictWorker, (adapter, settings), source, output, mark, settings, workers)


def columns_of(block: pa.Table) -> tuple[list, list[str]]:
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


def _stream(worker: type, arguments: tuple, source: str, output: str, mark: str, settings: Settings, workers) -> None:
    source, output = (path if "://" in path else str(Path(path).resolve()) for path in (source, output))
    kind = _kind_of(source)
    with nullcontext() if "://" in output else held(Path(output)):
        _claim(output, mark)
        try:
            workers = _connect(settings, workers)
            rows = _read(source, kind)
            rows.context.checkpoint_config = CheckpointConfig(
                "id", f"{output}/done", delete_checkpoint_on_success=False
            )
            rows.repartition(target_num_rows_per_block=BLOCK).map_batches(
                worker,
                fn_constructor_args=arguments,
                batch_size=BLOCK,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=workers),
                max_task_retries=RETRIES,
                **({"num_gpus": 1} if settings.device == "cuda" else {"num_cpus": 1}),
            ).write_parquet(f"{output}/rows")
        except UserError:
            raise
        except Exception as error:
            raise _in_one_line(error) from error


def _kind_of(source: str) -> str:
    """csv or parquet: the ending that the files of a folder have."""
    try:
        system, path = FileSystem.from_uri(source)
        info = system.get_file_info(path)
        files = system.get_file_info(FileSelector(path, recursive=True)) if info.type == FileType.Directory else [info]
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read: {str(error).splitlines()[0]}") from error
    kinds = {file.extension for file in files if file.type == FileType.File} & {"csv", "parquet"}
    if len(kinds) != 1:
        found = "both .csv and .parquet files" if kinds else "no .csv and no .parquet files"
        raise UserError(f"{source} holds {found}; give a file, or a folder with files of one of the two kinds.")
    return kinds.pop()


def _read(source: str, kind: str) -> ray.data.Dataset:
    if kind == "parquet":
        return ray.data.read_parquet(source, file_extensions=[kind])
    return ray.data.read_csv(  # ids and texts stay as they are, also where they look like numbers or like nothing
        source,
        file_extensions=[kind],
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={"id": pa.string(), "text": pa.string()}, strings_can_be_null=False
        ),
    )


def _claim(output: str, mark: str) -> None:
    """Results of another model or prompt are never mixed with these."""
    system, path = FileSystem.from_uri(output)
    system.create_dir(path, recursive=True)
    note = f"{path}/made_by.json"
    if system.get_file_info(note).type == FileType.NotFound:
        with system.open_output_stream(note) as file:
            file.write(json.dumps({"fingerprint": mark}).encode())
    with system.open_input_stream(note) as file:
        if json.loads(file.read())["fingerprint"] != mark:
            raise UserError(f"{output} holds results of another model, prompt or taxonomy; choose another folder.")


def _connect(settings: Settings, workers: int | None) -> int:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine; returns the number of workers."""
    if not ray.is_initialized():
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else (os.cpu_count() or 1) + SPARE)
    found = ray.cluster_resources()
    slots = int(found.get("CPU", 0)) - SPARE
    slots = min(slots, int(found.get("GPU", 0))) if settings.device == "cuda" else slots
    if not 1 <= (workers or slots) <= slots:
        raise UserError(
            f"{workers or 1} workers do not fit: the cluster has {found.get('CPU', 0):.0f} CPUs, of which {SPARE} read "
            f"and write, and {found.get('GPU', 0):.0f} GPUs. Ask for at most {max(slots, 0)}, or add machines."
        )
    return workers or slots


def _in_one_line(error: Exception) -> UserError:
    """What a worker or Ray itself reported, without its pages of traceback.

    A worker's exception arrives as text: the root stands first among its causes' last lines.
    """
    told = re.findall(r"^[\w.]*\bUserError: (.+)$", str(error), re.MULTILINE)
    if told:
        return UserError(told[0])
    root = re.search(r"^[\w.]*(?:Error|Exception): .+$", str(error), re.MULTILINE)
    reason = root[0] if root else f"{type(error).__name__}: {str(error).strip()[:300]}"
    return UserError(f"the run stopped: {reason} Start it again when that is mended: finished blocks are kept.")


@command
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m sirius_helpers.scaleout", description=__doc__.split("\n")[0])
    parser.add_argument("task", choices=("label", "predict"))
    parser.add_argument("source", help="folder with .csv or .parquet files, columns id and text; or one such file")
    parser.add_argument("output", help="folder for the results")
    parser.add_argument("--adapter", help="predict: the adapter of a finished run")
    parser.add_argument("--data", default="", help="label: folder with the categories")
    parser.add_argument("--profile", default="auto", help="auto, t4 or cpu")
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
