"""Files of rows through a pool of Ray workers, block by block: CSV or Parquet in, Parquet out.

A finished block lies under `rows/`, its ids under `done/`: whoever starts again does only what is missing.
"""

import json
import os
import re
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import ray
from pyarrow import csv
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, PyFileSystem
from ray.data import ActorPoolStrategy
from ray.data.checkpoint import CheckpointConfig

from ..errors import UserError
from ..files.lock import run_lock

BLOCK = 8_192  # reviews: what a kill can cost each worker, and the rows of a result file
SPARE = 2  # CPUs of the cluster that read, sort out finished rows and write while workers have theirs


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
            system, folder = _located(output)
            _claim(system, folder, mark)
            workers = _connect(device, workers)
            rows = _read(source, kind)
            rows.context.checkpoint_config = CheckpointConfig(
                "id", f"{folder}/done", override_filesystem=system, delete_checkpoint_on_success=False
            )
            rows.repartition(target_num_rows_per_block=BLOCK).map_batches(
                worker,
                fn_constructor_args=arguments,
                batch_size=BLOCK,
                batch_format="pyarrow",
                compute=ActorPoolStrategy(size=workers),
                max_task_retries=3,  # a block whose worker dies more often stops the run: it is the block's fault
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
    files: Any = {"paths": path, "filesystem": system, "file_extensions": [kind]}
    if kind == "parquet":
        return ray.data.read_parquet(**files)
    words = {"id": pa.string(), "text": pa.string()}  # also where they look like numbers or like nothing
    kinds = csv.ConvertOptions(column_types=words, strings_can_be_null=False)
    return ray.data.read_csv(**files, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=kinds)


def _claim(system: FileSystem, folder: str, mark: str) -> None:
    """Results of another model or prompt are never mixed with these."""
    system.create_dir(folder, recursive=True)
    note = f"{folder}/made_by.json"
    if system.get_file_info(note).type == FileType.NotFound:
        with system.open_output_stream(note) as file:
            file.write(json.dumps({"fingerprint": mark}).encode())
    with system.open_input_stream(note) as file:
        if json.loads(file.read())["fingerprint"] != mark:
            raise UserError(f"{folder} holds results of another model, prompt or taxonomy; choose another folder.")


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
    """What a worker or Ray reported, without pages of traceback; the root is the first of its causes' last lines."""
    if ours := re.search(r"^[\w.]*\bUserError: (.+)$", str(error), re.MULTILINE):
        return UserError(ours[1])
    root = re.search(r"^[\w.]*(?:Error|Exception): .+$", str(error), re.MULTILINE)
    reason = root[0] if root else f"{type(error).__name__}: {str(error).strip()[:300]}"
    return UserError(f"the run stopped: {reason} Start it again when that is mended: finished blocks are kept.")
