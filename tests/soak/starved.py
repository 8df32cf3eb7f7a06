"""Stages under a real limit on memory: each is a process that may grow by so many megabytes and no more (RLIMIT_AS).

    cd tests; MALLOC_ARENA_MAX=1 OMP_NUM_THREADS=1 python -m soak.starved

Prints a line for each trial: what went wrong, or nothing.

An allocation beyond the limit fails inside the process, as one does on a full GPU. (A cgroup would kill the process
instead, and being killed is what tests/soak/soak.py is about.) The models are tiny and the reviews long, so what needs
memory is a batch.
"""

import io
import json
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from psutil import Process
from soak.lives import DONE, REFUSED, in_fork, save_models, settings_on
from tiny_models import saved, tiny_roberta
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import Qwen2Model, RobertaModel

from sirius_helpers import predict as prediction
from sirius_helpers.encoder.classifier import new_model, save
from sirius_helpers.files.journal import read_records
from sirius_helpers.label import label
from sirius_helpers.loaders import encoder, load_tokenizer
from sirius_helpers.predict import predict
from sirius_helpers.settings import ModelSpec, Settings, compute_dtype
from sirius_helpers.train import train

LONG = [f"Сапоги номер {n} промокают и жмут. " * 40 for n in range(24)]
SHORT = [f"Тарелка {n} разбилась" for n in range(8)]
ALL_AT_ONCE = 10**6  # tokens a batch
prediction.CHUNK = 100  # texts: all of them, where `lives` has a few
# Before any limit: pandas keeps texts in Arrow, whose allocator reserves a gigabyte of addresses with the first one.
pd.DataFrame({"text": ["сапоги"]}).to_dict("list")
pd.read_csv(io.StringIO("text\nсапоги\n"))
# In fp32 one run in twenty on a busy machine ends with oneDNN making no primitive any more once memory ran out.
torch.backends.mkldnn.enabled = compute_dtype("cpu") is not None


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        (folder / "data" / "categories.txt").write_text("обувь\nпосуда\n", encoding="utf-8")
        assert in_fork(lambda: (save_models(folder), save_hungry(folder)), folder / "models.txt") == DONE
        settings = replace(settings_on(folder), tokens_per_batch=ALL_AT_ONCE, checkpoints=folder / "runs")
        for trial in TRIALS:
            print(json.dumps({trial.__name__: list(trial(settings))}, ensure_ascii=False), flush=True)


def smaller_label_batches(settings: Settings) -> Iterator[str]:
    write(settings.data / "train.csv", LONG + SHORT)
    free, starved = (replace(settings, run=name) for name in ("label-free", "label-starved"))
    calls = [done(free, label), done(starved, label, 130)]
    yield from smaller(calls)
    for one, other in zip(*(read_records(s.folder / "labels.jsonl") for s in (free, starved)), strict=True):
        far = max(abs(p - other["probabilities"][name]) for name, p in one["probabilities"].items())
        if (one["id"], one["category"]) != (other["id"], other["category"]) or far > 1e-4:
            yield f"labels differ: {one} {other}"


def smaller_prediction_batches(settings: Settings) -> Iterator[str]:
    write(settings.data / "test.csv", LONG + SHORT)
    free, starved = (replace(settings, run=name, max_tokens=256) for name in ("predict-free", "predict-starved"))
    for one in (free, starved):
        done(one, put_adapter)
    yield from smaller([done(free, predict), done(starved, predict, 300)])
    if len({(one.folder / "submission.csv").read_bytes() for one in (free, starved)}) > 1:
        yield "submissions differ"


def one_review_too_many(settings: Settings) -> Iterator[str]:
    """A review that does not fit alone: earlier labels stay as they are, and with more memory only it is labelled."""
    settings = replace(settings, run="too-long", max_review_chars=20_000)
    write(settings.data / "train.csv", SHORT)
    done(settings, label)
    before = (settings.folder / "labels.jsonl").read_bytes()
    write(settings.data / "train.csv", [*SHORT, "Очень длинный отзыв. " * 400])
    yield from refused(settings, label, 100, "out of memory on a single text")
    if (settings.folder / "labels.jsonl").read_bytes() != before:
        yield "earlier labels changed"
    if (calls := done(settings, label)) != 4:  # the prefix, its check, texts without content, and one batch
        yield f"{calls} model calls for one review"
    if not (settings.folder / "labels.jsonl").read_bytes().startswith(before):
        yield "earlier labels were made again"


def too_large_a_model(settings: Settings) -> Iterator[str]:
    spec = ModelSpec(str(settings.data.parent / "large"))

    def make(_) -> None:
        saved(spec.name, tiny_roberta(hidden_size=512, intermediate_size=16_384))

    def load(_) -> None:
        with encoder(spec, "cpu"):
            pass

    done(settings, make)
    yield from refused(settings, load, 20, "does not fit into memory.*choose a smaller model")
    done(settings, load)


def smaller_training_batches(settings: Settings) -> Iterator[str]:
    """Training does not shrink its batches by itself, because that would change the result: it says what to do."""
    settings = replace(settings, run="train", batch_size=32, max_tokens=256, epochs=1, tokens_per_batch=4_096)
    rows = [f'"{text}",{"обувь" if n % 2 else "посуда"},{n},False,train' for n, text in enumerate(LONG + SHORT)]
    rows += [f'"{text} да","обувь",{n},False,validation' for n, text in enumerate(SHORT[:2])]
    settings.folder.mkdir(parents=True)
    table = "\n".join(["text,category,source_id,synthetic,part", *rows]) + "\n"
    (settings.folder / "split.csv").write_text(table, encoding="utf-8")
    yield from refused(settings, train, 900, "out of memory while training with batches of 32 texts. Halve batch_size")
    if (settings.folder / "adapter").exists():
        yield "half an adapter was written"
    done(replace(settings, batch_size=2, accumulation=16), train, 900)


TRIALS = (smaller_label_batches, smaller_prediction_batches, one_review_too_many, too_large_a_model)
TRIALS += (smaller_training_batches,)


# --- what they share ------------------------------------------------------------------------------------------


def done(settings: Settings, stage: Callable, megabytes: int | None = None) -> int:
    """Run a stage to its end in a process of its own; returns how many batches its model was asked."""
    code, said = run(settings, stage, megabytes)
    assert code == DONE, f"{stage.__name__} ended with {code}: {said[-800:]}"
    return int(said.split("calls: ")[-1])


def refused(settings: Settings, stage: Callable, megabytes: int, message: str) -> Iterator[str]:
    """The stage must end with this one line."""
    code, said = run(settings, stage, megabytes)
    if code != REFUSED or message.split(".*")[0] not in said or "Traceback" in said:
        yield f"{stage.__name__} ended with {code}: {said[-800:]}"


def run(settings: Settings, stage: Callable, megabytes: int | None) -> tuple[int, str]:
    log = settings.data.parent / "log.txt"

    def work() -> None:
        calls = []
        models = Qwen2Model | RobertaModel
        register_module_forward_pre_hook(lambda module, _: calls.append(1) if isinstance(module, models) else None)
        if megabytes is not None:
            size = Process().memory_info().vms + (megabytes << 20)
            resource.setrlimit(resource.RLIMIT_AS, (size, size))
        stage(settings)
        print("calls:", len(calls))

    code = in_fork(work, log)
    return code, log.read_text(encoding="utf-8", errors="replace")


def smaller(calls: list[int]) -> Iterator[str]:
    if calls[1] < calls[0] + 2:  # batches that failed are calls too
        yield f"the limit made no batch smaller: {calls} calls"


def save_hungry(folder: Path) -> None:
    """A classifier of little weight whose batches need much memory."""
    saved(folder / "classifier", tiny_roberta(intermediate_size=8_192))


def put_adapter(settings: Settings) -> None:
    folder = settings.folder / "adapter"
    tokenizer = load_tokenizer(settings.classifier)
    save(new_model(settings, 2), tokenizer, folder, settings, ["обувь", "посуда"], temperature=1.0)


def write(path: Path, texts: list[str]) -> None:
    path.write_text("\n".join(["text", *(f'"{text}"' for text in texts)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
