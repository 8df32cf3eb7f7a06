"""Labels or predictions for any number of reviews, on every GPU or CPU of a machine or a Ray cluster.

Needs the extra `scaleout`. Each worker holds the notebook's own labeler or classifier. Files of rows go through them
block by block: CSV or Parquet in, Parquet out. A finished block is a Parquet file under `rows/`, and its ids lie under
`done/`: whoever starts again does only what is missing. A worker that dies is replaced and its block is done again.

    predict_files("s3://shop/reviews", "s3://shop/predictions", "checkpoints/sample/adapter", settings)
    python -m sirius_helpers.extras.scaleout predict reviews predictions --adapter checkpoints/sample/adapter
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..encoder.classifier import Classifier
from ..errors import UserError, command
from ..files.categories import Category, labels_of, read_categories
from ..files.lock import run_lock
from ..files.runs import digest, stage_mark
from ..label import label_record, labeler_identity
from ..llm.labelers import loaded_labeler
from ..models import hub
from ..predict import as_table
from ..settings import Settings, how_to_install, settings_for

try:
    import fsspec
    import pyarrow as pa
    import ray
    from pyarrow import csv
    from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem
    from ray.data import ActorPoolStrategy
    from ray.data.checkpoint import CheckpointConfig
except ModuleNotFoundError as error:
    sys.exit(f"Error: the Python package {error.name!r} is missing; install it with: {how_to_install('scaleout')}")

BLOCK = 8_192  # reviews: what a kill can cost each worker, and the rows of a result file
SPARE = 2  # CPUs of the cluster that read, sort out finished rows and write while workers have theirs
RETRIES = 3  # a block whose worker dies so often stops the run: it is most likely the block's fault


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
    labeler = settings.labeler
    if labeler.on_hub:  # one commit for all workers
        settings = replace(settings, labeler=replace(labeler, revision=hub.source_of(labeler).commit))
    mark = stage_mark("label", labeler_identity(settings, taxonomy))
    stream(LabelWorker, (taxonomy, settings), source, output, mark, settings.device, workers)


def predict_files(source: str, output: str, adapter: str, settings: Settings, workers: int | None = None) -> None:
    """A category for every row of the files in `source`, by a trained adapter that every worker can read."""
    folder = Path(adapter).resolve()
    mark = stage_mark("predict", digest(folder))
    stream(PredictWorker, (folder, settings), source, output, mark, settings.device, workers)


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


def stream(
    worker: type, arguments: tuple[object, ...], source: str, output: str, mark: str, device: str, workers: int | None
) -> None:
    """`worker(*arguments)`, a callable from block to block, over all rows of `source`, each known by its `id`.

    Results of another `mark` in the folder `output` are refused; `workers` None: one per GPU or CPU.
    """
    source, output = (path if "://" in path else str(Path(path).resolve()) for path in (source, output))
    kind = _kind_of(source)
    with nullcontext() if "://" in output else run_lock(Path(output)):
        try:
            _claim(output, mark)
            workers = _connect(device, workers)
            rows = _read(source, kind)
            system, folder = _located(output)
            rows.context.checkpoint_config = CheckpointConfig(
                "id", f"{folder}/done", override_filesystem=system, delete_checkpoint_on_success=False
            )
            rows.repartition(target_num_rows_per_block=BLOCK).map_batches(
                worker,
                fn_constructor_args=arguments,
                batch_size=BLOCK,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=workers),
                max_task_retries=RETRIES,
                num_gpus=1 if device == "cuda" else None,
                num_cpus=None if device == "cuda" else 1,
            ).write_parquet(f"{folder}/rows", filesystem=system)
        except UserError:
            raise
        except Exception as error:
            raise _in_one_line(error) from error


def _located(address: str) -> tuple[FileSystem, str]:
    """The file system of a path or address, Arrow's own or otherwise one of fsspec's, and the path there."""
    with suppress(pa.ArrowInvalid):  # a scheme that is not Arrow's
        system, path = FileSystem.from_uri(address)
        return system, str(path)
    try:
        system, path = fsspec.url_to_fs(address)
    except (ImportError, ValueError) as error:  # a package is missing, and the error names it; nobody's scheme
        raise UserError(f"{address} cannot be reached: {error}") from error
    return PyFileSystem(FSSpecHandler(system)), str(path)


def _kind_of(source: str) -> str:
    """csv or parquet: the ending that the files of a folder have."""
    system, path = _located(source)
    try:
        info = system.get_file_info(path)
        files = system.get_file_info(FileSelector(path, recursive=True)) if info.type == FileType.Directory else [info]
    except (OSError, ValueError) as error:
        raise UserError(f"{source} cannot be read: {str(error).splitlines()[0]}") from error
    kinds: set[str] = {file.extension for file in files if file.type == FileType.File} & {"csv", "parquet"}
    if len(kinds) != 1:
        found = "both .csv and .parquet files" if kinds else "no .csv and no .parquet files"
        raise UserError(f"{source} holds {found}; give a file, or a folder with files of one of the two kinds.")
    return kinds.pop()


def _read(source: str, kind: str) -> ray.data.Dataset:
    system, path = _located(source)
    if kind == "parquet":
        return ray.data.read_parquet(path, filesystem=system, file_extensions=[kind])
    return ray.data.read_csv(  # ids and texts stay as they are, also where they look like numbers or like nothing
        path,
        filesystem=system,
        file_extensions=[kind],
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            column_types={"id": pa.string(), "text": pa.string()}, strings_can_be_null=False
        ),
    )


def _claim(output: str, mark: str) -> None:
    """Results of another model or prompt are never mixed with these."""
    system, path = _located(output)
    system.create_dir(path, recursive=True)
    note = f"{path}/made_by.json"
    if system.get_file_info(note).type == FileType.NotFound:
        with system.open_output_stream(note) as file:
            file.write(json.dumps({"fingerprint": mark}).encode())
    with system.open_input_stream(note) as file:
        if json.loads(file.read())["fingerprint"] != mark:
            raise UserError(f"{output} holds results of another model, prompt or taxonomy; choose another folder.")


def _connect(device: str, workers: int | None) -> int:
    """Join the cluster that RAY_ADDRESS names, or start one on this machine; returns the number of workers."""
    if not ray.is_initialized():
        ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else (os.cpu_count() or 1) + SPARE)
    found = ray.cluster_resources()
    slots = int(found.get("CPU", 0)) - SPARE
    slots = min(slots, int(found.get("GPU", 0))) if device == "cuda" else slots
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
    if ours := re.search(r"^[\w.]*\bUserError: (.+)$", str(error), re.MULTILINE):
        return UserError(ours[1])
    root = re.search(r"^[\w.]*(?:Error|Exception): .+$", str(error), re.MULTILINE)
    reason = root[0] if root else f"{type(error).__name__}: {str(error).strip()[:300]}"
    return UserError(f"the run stopped: {reason} Start it again when that is mended: finished blocks are kept.")


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
