"""What the t4 profile costs on a 16 GB T4: floors and memory on paper, and the same stages run and measured.

Paper: from published shapes (no weights in memory) and the contest's counts, each stage's work, its floor on a T4 and
the sum of its memory. Run: the stages' real code on models with random weights; on a GPU in full size with its memory
capped to what a T4 has, elsewhere in small size. Loader: a checkpoint of real 7B shapes on disk, and how much host
memory loading takes.

    python benchmarks/t4_budget.py                                   # all three; or: paper, run, loader
    python benchmarks/t4_budget.py loader --layers 28 --shard-gib 4
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import psutil
import synthetic
import torch
from common import matmul_rate, seconds
from t4_paper import CONTEST, GIB, NEW_TOKENS, ROLES, T4_BYTES, T4_FLOPS, T4_MEMORY, Shape, paper, stage_work

from sirius_helpers import classifier, loaders
from sirius_helpers.batching import Batcher
from sirius_helpers.candidates import Writer
from sirius_helpers.categories import labels_of, read_categories
from sirius_helpers.labeling import label
from sirius_helpers.loaders import causal_lm
from sirius_helpers.models import ModelSpec
from sirius_helpers.prediction import predict
from sirius_helpers.profiles import t4
from sirius_helpers.runs import Run
from sirius_helpers.settings import PROJECT, Settings
from sirius_helpers.training import train

SMALL = {"label": 48, "paraphrase": 8, "judge": 16, "train": 48, "predict": 64}  # texts


class Peak:
    """The most memory that the block had: `gpu`, and of the host `anonymous` (its own) and `mapped` (of files)."""

    def __enter__(self) -> Peak:
        self.gpu = self.anonymous = self.mapped = self.total = 0
        self.done = threading.Event()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.start = time.perf_counter()
        self.thread.start()
        return self

    def _watch(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.02):
            found = process.memory_info()
            self.anonymous = max(self.anonymous, found.rss - found.shared)
            self.mapped, self.total = max(self.mapped, found.shared), max(self.total, found.rss)

    def __exit__(self, *_) -> None:
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.thread.join()
        if torch.cuda.is_available():
            self.gpu = torch.cuda.max_memory_allocated()


def run(folder: Path, device: str) -> pd.DataFrame:
    """Every stage's real code; full size on a GPU, small on a CPU. A row a stage."""
    full = device == "cuda"
    counts = CONTEST if full else SMALL
    if full:
        torch.cuda.set_per_process_memory_fraction(
            min(1.0, T4_MEMORY / torch.cuda.get_device_properties(0).total_memory)
        )
    settings = _settings(folder, device, counts)
    dtype = torch.float16 if full else torch.float32
    rates = matmul_rate(dtype, device, 4096 if full else 512), copy_rate(device, GIB // 2 if full else 2**26)
    print(f"{device}: matrix product {rates[0]:.3g} FLOP/s in {dtype}, copy {rates[1]:.3g} bytes/s")
    rows = []
    for stage, work_of in _stages(settings, counts).items():
        role = ROLES[stage]
        spec, figures = getattr(settings, role), synthetic.FIGURES[role]
        with Peak() as peak, loads() as loading:
            work_of()
        took = peak.seconds - sum(loading)
        shape = Shape(figures.built() if full else figures.built(**figures.small), spec.weights)
        tokenizer = synthetic.tokenizer(figures.config.model_type)
        work = stage_work(stage, shape, settings, synthetic.reviews(counts[stage]), tokenizer)
        here, there = work.floor(*rates), work.floor(T4_FLOPS, T4_BYTES)
        rows.append(
            {
                "stage": stage,
                "texts": counts[stage],
                "loading": sum(loading),
                "seconds": took,
                "floor here": here,
                "x floor": took / here,
                "FLOP/s": work.flops / took,
                "bytes/s": work.moved / took,
                "GPU GiB": peak.gpu / GIB,
                "host GiB": peak.anonymous / GIB,
                "T4 floor": there,
                "T4 projected": took * there / here,
            }
        )
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    print("T4 projected = seconds x T4 floor / floor here, both floors from the same work")
    if not full:
        print("small models on a CPU: this shows that every stage runs and is counted, not how fast a T4 would be")
    return table


@contextmanager
def loads() -> Iterator[list[float]]:
    """The seconds that each model takes to load within the block."""
    took: list[float] = []
    load = loaders.load_model

    def timed(*arguments):
        start = time.perf_counter()
        model = load(*arguments)
        took.append(time.perf_counter() - start)
        return model

    with patch.object(loaders, "load_model", timed), patch.object(classifier, "load_model", timed):
        yield took


def copy_rate(device: str, size: int) -> float:
    """Bytes a second that a large copy reads and writes together."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(lambda: target.copy_(source)) for _ in range(8))


def _settings(folder: Path, device: str, counts: dict[str, int]) -> Settings:
    """The t4 profile on synthetic checkpoints, with data of the contest's shape."""
    full = device == "cuda"
    values = t4() | {"device": device, "checkpoints": folder / "runs", "data": folder / "data", "run": "budget"}
    values |= {"max_new_tokens": NEW_TOKENS if full else 8}
    values |= {} if full else {"epochs": 1, "tokens_per_batch": 2_048}
    for role, figures in synthetic.FIGURES.items():
        config = figures.built() if full else figures.built(**figures.small)
        spec = values[role]
        weights = spec.weights if full or spec.weights != "fp16" else "bf16"  # a CPU lacks half of fp16's kernels
        path = synthetic.checkpoint(folder / role, config, 2 * GIB, torch.bfloat16)
        values[role] = ModelSpec(str(path), weights=weights, chat=spec.chat)
    (folder / "data").mkdir()
    (folder / "data" / "categories.toml").write_bytes((PROJECT / "data" / "categories.toml").read_bytes())
    for name, stage in (("train", "label"), ("test", "predict")):
        pd.DataFrame({"text": synthetic.reviews(counts[stage])}).to_csv(folder / "data" / f"{name}.csv", index=False)
    return Settings(**values, profile_reason="budget")


def _stages(settings: Settings, counts: dict[str, int]) -> dict[str, Callable[[], object]]:
    """Each stage as a call."""

    def write_and_judge(stage: str) -> None:
        texts = synthetic.reviews(counts[stage])
        with causal_lm(settings.writer, settings.device) as (model, tokenizer):
            writer = Writer(model, tokenizer, settings)
            if stage == "judge":
                writer.p_yes(texts)
                return
            writer.sampler.end_ids = [-1]  # random weights never end in time, or too soon: every text its full length
            prompts = [writer.prompt(text) for text in texts]

            def write(batch: list[int]) -> None:
                writer.write([prompts[i] for i in batch], [random.Random(i).getrandbits(63) for i in batch])

            sizes = [len(rest) + settings.max_new_tokens for _, rest in prompts]
            Batcher(settings.tokens_per_batch).run(sizes, write)

    def trained() -> None:
        _write_split(settings, counts["train"])
        train(settings)

    return {
        "label": lambda: label(settings),
        "paraphrase": lambda: write_and_judge("paraphrase"),
        "judge": lambda: write_and_judge("judge"),
        "train": trained,
        "predict": lambda: predict(settings),
    }


def _write_split(settings: Settings, count: int) -> None:
    """As many training rows as asked for, and a few to validate on, their categories drawn at random."""
    labels, texts = labels_of(read_categories(settings.data)), synthetic.reviews(count + 32)
    table = pd.DataFrame({"text": texts, "category": [labels[n % len(labels)] for n in range(len(texts))]})
    table = table.assign(source_id=range(len(table)), synthetic=False, part="train")
    table.loc[count:, "part"] = "validation"
    table.to_csv(Run(settings.folder).path("split.csv"), index=False)


def loader(folder: Path, layers: int, shard_bytes: int) -> dict[str, float]:
    """Load 7B shapes in NF4 from a sharded checkpoint; bytes of host memory. On a CPU the result stays there too."""
    figures = synthetic.FIGURES["labeler"]
    path = synthetic.checkpoint(folder / "seven", figures.built(num_hidden_layers=layers), shard_bytes, torch.bfloat16)
    shards = [file.stat().st_size for file in path.glob("*.safetensors")]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = psutil.Process().memory_info()
    with Peak() as peak, causal_lm(ModelSpec(str(path), weights="nf4"), device) as (model, _):
        loaded = psutil.Process().memory_info()
    resident = (loaded.rss - loaded.shared) - (before.rss - before.shared)
    found = {
        "checkpoint": sum(shards),
        "largest shard": max(shards),
        "held when loaded": resident,
        "peak, own memory": peak.anonymous - (before.rss - before.shared),
        "peak, with mapped files": peak.total - before.rss,
    }
    found["beyond what is held"] = found["peak, own memory"] - resident
    print(f"{figures.name}, {layers} of 28 layers, {len(shards)} shards, on {device}, {peak.seconds:.0f} s")
    print("  " + ", ".join(f"{name} {size / GIB:.2f}" for name, size in found.items()) + " GiB")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", nargs="?", default="all", choices=("all", "paper", "run", "loader"))
    parser.add_argument("--layers", type=int, default=8, help="loader: of the 7B model's 28")
    parser.add_argument("--shard-gib", type=float, default=1.0, help="loader: the largest shard")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="t4-budget-") as folder:
        if options.part in ("all", "paper"):
            paper()
        if options.part in ("all", "run"):
            run(Path(folder, "run"), "cuda" if torch.cuda.is_available() else "cpu")
        if options.part in ("all", "loader"):
            loader(Path(folder, "loader"), options.layers, round(options.shard_gib * GIB))


if __name__ == "__main__":
    main()
