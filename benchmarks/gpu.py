"""The proof on a CUDA device: every stage's real code on models of the published shapes with random weights, in the
contest's counts, with the memory of a T4 and its kinds of arithmetic. It needs no network and no weights.

Measured are seconds, memory, the share of the card's own rates, and what that makes on a T4; checked are the scores
against one text at a time, a batch that runs out of memory, a training killed and resumed, and the saved adapter. The
tables go into docs/performance.md. Without a CUDA device the same runs in small size, to be tried before.

    make gpu
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import psutil
import synthetic
import torch
from common import matmul_rate, seconds
from roofline import T4, Counted, Rates
from safetensors.torch import load_file

from sirius_helpers import loaders
from sirius_helpers.augment import augment
from sirius_helpers.encoder import classifier
from sirius_helpers.encoder.classifier import Classifier
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.files.runs import Run, begin
from sirius_helpers.label import label
from sirius_helpers.llm.candidates import Writer
from sirius_helpers.llm.labelers import label_question
from sirius_helpers.loaders import causal_lm
from sirius_helpers.models.batching import Batcher
from sirius_helpers.predict import predict
from sirius_helpers.review import review
from sirius_helpers.settings import BUNDLED, PROJECT, ModelSpec, Settings, t4
from sirius_helpers.split import split
from sirius_helpers.train import train

GIB = 2**30
T4_MEMORY = 14.5 * GIB  # what CUDA leaves of 16 GB
CONTEST = {"label": 1_818, "paraphrase": 2_798, "judge": 2_798, "train": 3_692, "predict": 7_276}  # texts
NEW_TOKENS = 40  # a paraphrase as long as its original, and the end token
COUNTED = 8  # of so many texts one is counted operation by operation, which takes long
SMALL = {"label": 48, "paraphrase": 8, "judge": 16, "train": 48, "predict": 64}  # texts
EPOCHS = 1  # of the profile's, to spare time: the projection is for all
WITNESSES = 32  # texts whose scores are compared with those of one text at a time
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "tokenizers", "numpy", "pandas")
PAGE, BEGIN, END = PROJECT / "docs" / "performance.md", "<!-- make gpu: begin -->\n", "<!-- make gpu: end -->\n"
CUDA = torch.cuda.is_available()


class Peak:
    """What the block took: seconds, the most memory (bytes), and the share of the time in which the GPU worked."""

    def __enter__(self) -> "Peak":
        self.gpu, self.reserved, self.host = 0, 0, own_memory()
        self.busy: list[int] = []
        self.done = threading.Event()
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.start = time.perf_counter()
        self.thread.start()
        return self

    def _watch(self) -> None:
        count = 0
        while not self.done.wait(0.02):
            self.host, count = max(self.host, own_memory()), count + 1
            if CUDA and count % 5 == 0:
                try:
                    self.busy.append(torch.cuda.utilization())
                except Exception:  # the driver's library is not there: no share then
                    self.busy = []

    def busy_share(self) -> float:
        """Of the looks at the GPU; NaN where nobody can look."""
        return sum(self.busy) / len(self.busy) / 100 if self.busy else float("nan")

    def __exit__(self, *_) -> None:
        if CUDA:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.thread.join()
        if CUDA:
            self.gpu, self.reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def own_memory() -> int:
    """Bytes of the process alone: the mapped files of weights are shared, and the system may drop them."""
    found = psutil.Process().memory_info()
    return found.rss - found.shared


class Proof:
    """Settings on synthetic checkpoints in a folder, and the rows of the two tables."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.counts = folder, CONTEST if CUDA else SMALL
        self.device, self.dtype = ("cuda", torch.float16) if CUDA else ("cpu", torch.float32)
        self.stages: list[dict] = []
        self.checks: list[tuple[str, bool, str]] = []
        self.settings = _settings(folder, self.device, self.counts)
        size = 8192 if CUDA else 512
        half, single = (matmul_rate(dtype, self.device, size) for dtype in (self.dtype, torch.float32))
        self.rates = Rates(half, single, copy_rate(self.device))

    def stage(self, name: str, work: Callable[[int], object], *, profile: float = 1.0, loaded: float = 0.0) -> None:
        """Measure `work(texts)`, then count the operations of a part of it.

        The profile has `profile` times as much work; `loaded` are the seconds of loading before it.
        """
        texts = self.counts[name]
        with Peak() as peak, loads() as loading:
            work(texts)
        with Counted() as counted:
            work(-(-texts // COUNTED))
        share = texts / -(-texts // COUNTED)
        took, busy = peak.seconds - sum(loading), peak.busy_share()
        row = {"stage": name, "texts": texts, "seconds": took, "loading": sum(loading) + loaded}
        row |= {"GPU": peak.gpu / GIB, "reserved": peak.reserved / GIB, "host": peak.host / GIB, "busy": busy}
        row |= {"counted here": share * counted.seconds(self.rates), "T4": profile * share * counted.seconds(T4)}
        row |= {"flops": share * counted.flops / took / self.rates.half}
        row |= {"moved": share * counted.moved / took / self.rates.memory, "profile": profile * took}
        self.stages.append(row)
        print("  " + ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))

    def check(self, what: str, work: Callable[[], tuple[bool, str]]) -> None:
        """Try something whose outcome is known; a failure stops nothing that comes after it."""
        start = time.perf_counter()
        try:
            good, told = work()
        except Exception as error:
            traceback.print_exc()
            good, told = False, f"{type(error).__name__}: {error}".splitlines()[0][:200]
        self.checks.append((what, good, told))
        print(f"  {what}: {'ok' if good else 'FAILED'} ({told}; {time.perf_counter() - start:.0f} s)", flush=True)


def prove(folder: Path) -> tuple[Proof, bool]:
    """Everything; what was found, and whether all of it is well."""
    started = time.perf_counter()
    proof = Proof(folder)
    parts = (_the_labeler, _the_writer, _the_classifier, _the_other_stages)
    for part in parts:
        print(f"{part.__name__[1:].replace('_', ' ')}, after {time.perf_counter() - started:.0f} s", flush=True)
        proof.check(f"{part.__name__[1:].replace('_', ' ')} to the end", lambda part=part: part(proof))
    return proof, all(good for _, good, _ in proof.checks)


def _the_labeler(proof: Proof) -> tuple[bool, str]:
    settings = proof.settings

    def labelled(texts: int) -> None:
        label(replace(_with_reviews(settings, texts), run=f"label-{texts}"))  # what one run has, it labels only once

    proof.stage("label", labelled)
    texts = synthetic.reviews(proof.counts["label"])
    with causal_lm(settings.labeler, settings.device) as (model, tokenizer):
        proof.check("no tensor in bf16 on the device, labeler", lambda: _without_bf16(model))
        question = label_question(model, tokenizer, read_categories(settings.data), settings)
        proof.check("labels when a batch runs out of memory", lambda: _shrinks(question, texts))
    proof.check("scores of a batch are as exact, NF4", lambda: _labels_exact(settings, texts))
    return True, f"{len(texts)} reviews"


def _the_writer(proof: Proof) -> tuple[bool, str]:
    settings = proof.settings
    with loads() as loading, causal_lm(settings.writer, settings.device) as (model, tokenizer):
        writer = Writer(model, tokenizer, settings)
        proof.check("no tensor in bf16 on the device, writer", lambda: _without_bf16(model))
        judged = synthetic.reviews(proof.counts["judge"])
        writer.sampler.end_ids = [2**31 - 1]  # no token: random weights would end at any time, so each is written full

        def write(texts: int) -> None:
            prompts = [writer.prompt(text) for text in synthetic.reviews(texts)]
            sizes = [len(rest) + settings.max_new_tokens for _, rest in prompts]
            seeds = [random.Random(i).getrandbits(63) for i in range(texts)]
            batcher = Batcher(settings.tokens_per_batch)
            batcher.run(sizes, lambda batch: writer.write([prompts[i] for i in batch], [seeds[i] for i in batch]))

        proof.stage("paraphrase", write, loaded=sum(loading))
        proof.stage("judge", lambda texts: writer.p_yes(judged[:texts]))
    proof.check("scores of a batch are as exact, fp16", lambda: _verdicts_exact(settings, judged))
    return True, f"{proof.counts['paraphrase']} paraphrases"


def _the_classifier(proof: Proof) -> tuple[bool, str]:
    settings = replace(proof.settings, epochs=EPOCHS)

    def trained(texts: int) -> None:
        _write_split(settings, texts)
        train(settings)

    def predicted(texts: int) -> None:
        predict(_with_reviews(settings, texts))

    proof.check("a killed training ends like an unbroken one", lambda: _killed_and_resumed(proof.settings))
    proof.stage("train", trained, profile=proof.settings.epochs / settings.epochs)
    proof.check("the saved adapter answers alike, whatever the batch", lambda: _adapter(settings))
    proof.stage("predict", predicted)
    return True, f"{proof.counts['train']} rows, {settings.epochs} of {proof.settings.epochs} epochs"


def _the_other_stages(proof: Proof) -> tuple[bool, str]:
    """From labels in the contest's proportions to the scores, on the real hand-over by files."""
    few = {"max_synthetic": 24, "max_attempts": 2, "epochs": 1, "run": "stages", "bootstrap": 100}
    settings = replace(proof.settings, labels=_ready_labels(proof), **few)
    for stage in (label, review, augment, split, train, evaluate, predict):
        with Peak() as peak:
            stage(settings)
        print(f"  {stage.__name__}: {peak.seconds:.1f} s, GPU {peak.gpu / GIB:.2f} GiB", flush=True)
    rows = len(pd.read_csv(settings.folder / "submission.csv"))
    return rows == proof.counts["predict"], f"{rows} rows in the submission"


def _without_bf16(model: torch.nn.Module) -> tuple[bool, str]:
    tensors = [*model.parameters(), *model.buffers()]
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
    return not CUDA or "bfloat16" not in kinds, ", ".join(kinds)


def _labels_exact(settings: Settings, texts: list[str]) -> tuple[bool, str]:
    taxonomy = read_categories(settings.data)
    return _exact(settings.labeler, settings.device, lambda *loaded: label_question(*loaded, taxonomy, settings), texts)


def _verdicts_exact(settings: Settings, texts: list[str]) -> tuple[bool, str]:
    return _exact(settings.writer, settings.device, lambda *loaded: Writer(*loaded, settings).judge, texts)


def _exact(spec: ModelSpec, device: str, asked: Callable, texts: list[str]) -> tuple[bool, str]:
    """Scores of a batch, from the shared prefix and the tree, are as near to fp32's as those of one text at a time."""
    with causal_lm(spec, device) as loaded:
        question = asked(*loaded)
        question.prior = None  # what it divides by is no score of the model's
        batch = question.log_probs(texts[:64])[:WITNESSES]
        alone = _one_by_one(question, texts[:WITNESSES])
    with causal_lm(replace(spec, weights="nf4-fp32" if spec.weights == "nf4" else "fp32"), device) as loaded:
        exact = _one_by_one(asked(*loaded), texts[:WITNESSES])
    ours, theirs = (float(np.sqrt(((scores - exact) ** 2).mean())) for scores in (batch, alone))
    told = f"{ours:.4f} from fp32, one at a time {theirs:.4f}, where answers differ by {np.ptp(exact, 1).mean():.2f}"
    return ours < 2 * theirs + 0.001, told


@torch.inference_mode()
def _one_by_one(question, texts: list[str]) -> np.ndarray:
    """Constrained log-probabilities of all answers from plain forwards over whole sequences."""
    return np.array([_alone(question, text) for text in texts])


def _alone(question, text: str) -> list[float]:
    shared, rest = question.prompt.with_text(text)
    prompt, tree = [*question.prompt.prefix_ids[:shared], *rest], question.tree
    logits = []
    for path in tree.places:
        ids = torch.tensor([[*prompt, *path]], device=question.model.device)
        logits.append(question.model(ids, logits_to_keep=1).logits[0, -1, tree.tokens].double().cpu())
    found = torch.stack(logits).masked_fill(~tree.allowed, -torch.inf).log_softmax(-1).numpy()
    return [float(found[nodes, tokens].sum()) for nodes, tokens in tree.paths]


def _shrinks(question, texts: list[str]) -> tuple[bool, str]:
    """A budget that no card holds: batches are halved until they fit, and the scores stay."""
    before = question.log_probs(texts)
    usual, question.batcher.tokens = question.batcher.tokens, 2**22
    with _scarce():
        after = question.log_probs(texts)
    fitted, question.batcher.tokens = question.batcher.tokens, usual
    worst = np.abs(before - after).max()
    return bool(fitted < 2**22 and worst < 0.05), f"2^22 tokens asked, {fitted} fitted, largest difference {worst:.4f}"


@contextmanager
def _scarce() -> Iterator[None]:
    """On a CPU, memory that runs out for more than a few texts at once; on a GPU it does so by itself."""
    if CUDA:
        yield
        return
    from sirius_helpers.llm.questions import ClosedQuestion

    score = ClosedQuestion._score

    def limited(question, prompts):
        if len(prompts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. (made up)")
        return score(question, prompts)

    with patch.object(ClosedQuestion, "_score", limited):
        yield


def _killed_and_resumed(settings: Settings) -> tuple[bool, str]:
    """SIGKILL after the first checkpoint; history and weights of the resumed training and of an unbroken one.

    Every training has a process of its own with the operations that give the same sum each time.
    """
    found = []
    for name in ("killed", "unbroken"):
        one = replace(settings, run=name, epochs=2, accumulation=2)
        begin(one)
        _write_split(one, 256 if CUDA else 64)
        if name == "killed":
            process = _training(one)
            while process.poll() is None and not list(one.folder.glob("training-*/checkpoint-*/trainer_state.json")):
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            if process.wait() == 0:
                return False, "the training ended before it could be killed"
        if _training(one).wait():
            return False, f"the {name} training failed"
        history = pd.read_csv(one.folder / "history.csv")
        weights = load_file(one.folder / "adapter" / classifier.WEIGHTS)
        found.append((history[["train_loss", "validation_loss"]].to_numpy(dtype=float), weights))
    (one, first), (other, second) = found
    worst = max(float((first[name] - second[name]).abs().max()) for name in first)
    apart = np.abs(one - other).max()
    return bool(apart < 0.001), f"weights differ by {worst:.2g}, losses by {apart:.2g}"


def _training(settings: Settings) -> subprocess.Popen:
    code = "import torch\nfrom sirius_helpers.files.runs import settings_of\nfrom sirius_helpers.train import train\n"
    code += f"torch.use_deterministic_algorithms(True, warn_only=True)\ntrain(settings_of({str(settings.folder)!r}))"
    exact = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, env=exact)


def _adapter(settings: Settings) -> tuple[bool, str]:
    texts = synthetic.reviews(64)
    with Classifier.load(settings.folder / "adapter", settings.device) as loaded:
        together, alone = loaded(texts), np.concatenate([loaded([text]) for text in texts[:WITNESSES]])
    worst = np.abs(together[:WITNESSES] - alone).max()
    return bool(worst < 0.01 and np.isfinite(together).all()), f"largest difference in probability {worst:.4f}"


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


def copy_rate(device: str) -> float:
    """Bytes a second that a large copy reads and writes together."""
    source = torch.zeros(GIB if device == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / min(seconds(lambda: target.copy_(source)) for _ in range(8))


def _settings(folder: Path, device: str, counts: dict[str, int]) -> Settings:
    """The t4 profile on synthetic checkpoints, with data of the contest's shape."""
    values = t4() | {"device": device, "checkpoints": folder / "runs", "data": folder / "data", "run": "proof"}
    values |= {"max_new_tokens": NEW_TOKENS} if CUDA else {"max_new_tokens": 8, "epochs": 2, "tokens_per_batch": 2_048}
    for role, figures in synthetic.FIGURES.items():
        config = figures.built() if CUDA else figures.built(**figures.small)
        spec = values[role]
        weights = spec.weights if CUDA or spec.weights != "fp16" else "bf16"  # a CPU lacks half of fp16's kernels
        path = synthetic.checkpoint(folder / role, config, 4 * GIB, torch.bfloat16)
        values[role] = ModelSpec(str(path), weights=weights, chat=spec.chat)
    _write_reviews(folder / "data", counts["label"], counts["predict"])
    return Settings(**values, profile_reason="proof")


def _with_reviews(settings: Settings, count: int) -> Settings:
    """The same run on so many reviews to label and to classify."""
    folder = settings.data.with_name(f"data-{count}")
    if not folder.exists():
        _write_reviews(folder, count, count)
    return replace(settings, data=folder)


def _write_reviews(folder: Path, train: int, test: int) -> None:
    folder.mkdir()
    (folder / "categories.toml").write_bytes((BUNDLED / "categories.toml").read_bytes())
    for name, count in (("train", train), ("test", test)):
        pd.DataFrame({"text": synthetic.reviews(count)}).to_csv(folder / f"{name}.csv", index=False)


def _ready_labels(proof: Proof) -> Path:
    """A category for each training review, the first far more frequent than the last."""
    labels, texts = labels_of(read_categories(proof.settings.data)), synthetic.reviews(proof.counts["label"])
    shares = 1.0 / np.arange(1, len(labels) + 1) ** 2
    chosen = np.random.default_rng(0).choice(len(labels), len(texts), p=shares / shares.sum())
    path = proof.folder / "labels.csv"
    pd.DataFrame({"text": texts, "category": [labels[i] for i in chosen]}).to_csv(path, index=False)
    return path


def _write_split(settings: Settings, count: int) -> None:
    """As many training rows as asked for, and a few to validate on, their categories in turn."""
    labels, texts = labels_of(read_categories(settings.data)), synthetic.reviews(count + 32)
    table = pd.DataFrame({"text": texts, "category": [labels[n % len(labels)] for n in range(len(texts))]})
    table = table.assign(source_id=range(len(table)), synthetic=False, part="train")
    table.loc[count:, "part"] = "validation"
    path = Run(settings.folder).path("split.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def as_on_a_t4() -> None:
    """No more memory than CUDA leaves of 16 GB, no bf16, and no attention kernels that only later cards have."""
    torch.cuda.set_per_process_memory_fraction(min(1.0, T4_MEMORY / torch.cuda.get_device_properties(0).total_memory))
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.cuda.is_bf16_supported = lambda *_, **__: False


def report(proof: Proof, took: float) -> str:
    """Both tables as Markdown."""
    device = torch.cuda.get_device_name(0) if CUDA else f"CPU, small size ({platform.machine()})"
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} none")
    lines = [
        f"{device}; Python {platform.python_version()}, {', '.join(versions)}. Matrix product "
        f"{proof.rates.half / 1e12:.3g} TFLOP/s in {str(proof.dtype).removeprefix('torch.')}, copy "
        f"{proof.rates.memory / 1e9:.4g} GB/s. The whole proof took {took:.0f} s.",
        "",
        "| stage | texts | seconds | loading, s | GPU memory, GiB (reserved) | host's own, GiB | of the matrix "
        "rate | of the copy rate | GPU busy, s | counted here, s | counted on a T4, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in proof.stages:
        lines.append(
            f"| {row['stage']} | {row['texts']:,} | {row['seconds']:.1f} | {row['loading']:.1f} | {row['GPU']:.2f} "
            f"({row['reserved']:.2f}) | {row['host']:.2f} | {row['flops']:.1%} | {row['moved']:.1%} | "
            f"{row['busy'] * row['seconds']:.1f} | {row['counted here']:.1f} | {row['T4']:.0f} |".replace("nan", "–")
        )
    scaled = [f"{row['stage']} {row['profile']:.0f} s" for row in proof.stages if row["profile"] > row["seconds"]]
    lines += ["", f"The last column is for the whole profile ({', '.join(scaled)} here)."] if scaled else []
    lines += ["", "| check | outcome | |", "|---|---|---|"]
    lines += [f"| {what} | {'holds' if good else '**fails**'} | {told} |" for what, good, told in proof.checks]
    return "\n".join(lines) + "\n"


def write_page(text: str) -> None:
    """Put the tables where docs/performance.md has them."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--report", type=Path, help="write the tables here too; on a CPU only here")
    options = parser.parse_args()
    if CUDA:
        as_on_a_t4()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="sirius-gpu-") as folder:
        proof, good = prove(Path(folder))
    text = report(proof, time.perf_counter() - started)
    print(text)
    if CUDA:
        write_page(text)
    if options.report:
        options.report.write_text(text, encoding="utf-8")
        options.report.with_suffix(".json").write_text(json.dumps(proof.stages, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
