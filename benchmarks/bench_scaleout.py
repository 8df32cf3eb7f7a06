"""Predictions over Ray workers against a loop in one process: the same blocks, the same classifier of a few thousand
weights, one thread each. Then many rows with two workers, and what memory all processes together have meanwhile.

    python benchmarks/bench_scaleout.py --rows 1000000 --compare 100000
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # one core for the loop, as for a worker

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import synthetic
import torch
from pyarrow import csv

from sirius_helpers.encoder.classifier import Classifier, new_model, save
from sirius_helpers.extras.scaleout import predict_files
from sirius_helpers.extras.streaming import BLOCK, SPARE
from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.loaders import load_tokenizer
from sirius_helpers.predict import as_table
from sirius_helpers.settings import ModelSpec, Settings, settings_for

FILE_ROWS = 50_000


def prepared(folder: Path) -> Settings:
    """Settings whose classifier is tiny, and its adapter with random weights."""
    figures = synthetic.FIGURES["classifier"]
    path = synthetic.checkpoint(folder / "roberta", figures.built(**figures.small), 2**30, torch.float32)
    settings = replace(settings_for("cpu"), classifier=ModelSpec(str(path)), max_tokens=64)
    labels, tokenizer = labels_of(read_categories(settings.data)), load_tokenizer(settings.classifier)
    save(new_model(settings, len(labels)), tokenizer, folder / "adapter", settings, labels, temperature=1.0)
    return settings


def write_rows(folder: Path, rows: int) -> Path:
    """CSV files of at most FILE_ROWS reviews, with ids."""
    folder.mkdir()
    for start in range(0, rows, FILE_ROWS):
        texts = synthetic.reviews(min(FILE_ROWS, rows - start))
        table = pa.table({"id": [f"{start + n:09}" for n in range(len(texts))], "text": texts})
        csv.write_csv(table, folder / f"{start:09}.csv")
    return folder


def loop(source: Path, output: Path, adapter: Path) -> None:
    """The same work without Ray."""
    output.mkdir()
    with Classifier.load(adapter, "cpu") as classifier:
        for path in sorted(source.glob("*.csv")):
            rows = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
            for start in range(0, rows.num_rows, BLOCK):
                block = rows.slice(start, BLOCK)
                table = pa.Table.from_pandas(as_table(block["text"].to_pylist(), classifier), preserve_index=False)
                pq.write_table(table.add_column(0, "id", block["id"]), output / f"{path.stem}-{start}.parquet")


class Memory:
    """What all processes below this one and this one itself hold for themselves, once a second: (seconds, bytes)."""

    def __enter__(self) -> "Memory":
        self.seen: list[tuple[float, int]] = []
        self.done, self.start = threading.Event(), time.perf_counter()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(1):
            me = psutil.Process()
            held = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    found = process.memory_info()
                    held += found.rss - found.shared
                except psutil.Error:  # ended meanwhile
                    continue
            self.seen.append((time.perf_counter() - self.start, held))

    def __exit__(self, *_) -> None:
        self.done.set()
        self.thread.join()


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def rows_in(output: Path) -> tuple[int, int]:
    """Rows, and different ids among them."""
    ids = pa.concat_arrays([c for p in output.glob("*.parquet") for c in pq.read_table(p)["id"].chunks])
    return len(ids), len(ids.unique())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="streamed through two workers")
    parser.add_argument("--compare", type=int, default=100_000, help="done by the loop, by one worker and by two")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="scaleout-") as name:
        folder = Path(name)
        settings, adapter = prepared(folder), folder / "adapter"
        some = write_rows(folder / "some", options.compare)
        took = {"loop": timed(lambda: loop(some, folder / "loop", adapter))}
        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.init(num_cpus=2 + SPARE, object_store_memory=2**29, log_to_driver=False, logging_level="error")

        def over(workers: int, source: Path) -> Path:
            output = folder / f"{source.name}-{workers}"
            predict_files(str(source), str(output), str(adapter), settings, workers)
            return output / "rows"

        over(1, write_rows(folder / "warm", 100))  # processes start once, whatever the number of rows
        for workers in (1, 2):
            took[f"{workers} workers"] = timed(lambda workers=workers: over(workers, some))
        print(json.dumps({name: round(seconds, 1) for name, seconds in took.items()}), flush=True)
        if options.rows:
            many = write_rows(folder / "many", options.rows)
            with Memory() as memory:
                seconds = timed(lambda: over(2, many))
            found = rows_in(folder / "many-2" / "rows")
            print(f"{options.rows} rows in {seconds:.0f} s; found {found[0]} rows, {found[1]} ids")
            for tenth in range(10):
                part = [held for t, held in memory.seen if tenth <= 10 * t / seconds < tenth + 1]
                print(f"  tenth {tenth + 1}: at most {max(part, default=0) / 2**20:.0f} MiB in all processes")
        ray.shutdown()
    overhead = took["1 workers"] / took["loop"] - 1
    print(
        f"one worker's overhead {overhead:.1%}; two workers are {took['1 workers'] / took['2 workers']:.2f} x as fast"
    )


if __name__ == "__main__":
    main()
