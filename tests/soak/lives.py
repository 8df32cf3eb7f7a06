"""Whole runs of the pipeline as processes that can be killed, on tiny random models: a run takes seconds.

Everything heavy is imported once; a run is a fork of this process, which therefore must not compute with torch
itself. A run notes its model calls and what became durable in a file beside its folder.

    world = World(tmp_path)                       # data, models, and an unbroken run to compare with
    life = world.life("broken")
    life.run(Kill("train", moment=0.5)), life.run()
    assert not life.differences() and life.redone() == {}
"""

import gc
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ["OMP_NUM_THREADS"] = "1"  # idle threads of many processes stall each other

import torch
from tiny_models import saved, tiny_qwen2, tiny_roberta
from transformers import Qwen2Model, RobertaModel, Trainer

from sirius_helpers import predict as prediction
from sirius_helpers.augment import augment
from sirius_helpers.errors import UserError
from sirius_helpers.evaluate import evaluate
from sirius_helpers.files.journal import Journal
from sirius_helpers.files.runs import Run, begin, digest
from sirius_helpers.label import label
from sirius_helpers.predict import predict
from sirius_helpers.review import opinions, review
from sirius_helpers.settings import ModelSpec, Settings, t4
from sirius_helpers.split import split
from sirius_helpers.train import train

STAGES = {f.__name__: f for f in (label, review, opinions, augment, split, train, evaluate, predict)}
RESULTS = ("labels.jsonl", "labels.csv", "synthetic.jsonl", "rejected.jsonl", "split.csv", "adapter", "history.csv")
RESULTS += ("metrics.json", "errors.csv", "doubtful_labels.csv", "model_card.md", "report")
RESULTS += ("predictions.csv", "submission.csv")
prediction.CHUNK = 6  # several chunks of the few test rows
DONE, FAILED, REFUSED = 0, 1, 2  # exit codes; a killed process has -9
TOUCHES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}  # audit events


@dataclass(frozen=True)
class Kill:
    """A run's death in a stage: from outside at a share of its notes, or before its n-th touch of the folder."""

    stage: str
    moment: float | None = None
    touch: int | None = None


class World:
    """Data, models and settings under one folder, and a finished unbroken run named `whole`."""

    def __init__(self, folder: Path) -> None:
        gc.freeze()  # or every fork's garbage collection goes through all imported modules
        self.folder = folder
        write_data(folder / "data")
        assert in_fork(lambda: save_models(folder), folder / "models.txt") == DONE
        self.settings = settings_on(folder)
        self.whole = Life(self, "whole")
        assert self.whole.run() == DONE, self.whole.said()

    def life(self, name: str, **changes) -> "Life":
        return Life(self, name, **changes)


class Life:
    """One run's folder and the processes that work on it, one after the other."""

    def __init__(self, world: World, name: str, *, copy: bool = False, checkpoints: Path | None = None, **changes):
        self.world, self.name = world, name
        checkpoints = checkpoints or world.folder / name
        self.settings = replace(world.settings, run="run", checkpoints=checkpoints, **changes)
        self.folder = self.settings.folder
        self.log, self.notes = world.folder / f"{name}.txt", world.folder / f"{name}.notes"
        self.kills: Counter[str] = Counter()
        if copy:
            shutil.copytree(world.whole.folder, self.folder)

    def start(self, kill: Kill | None = None, before: Callable = lambda: None, stages: Iterable[str] = STAGES) -> int:
        """Begin a run in a process of its own; returns its pid."""
        self.notes.touch()
        return fork(lambda: (before(), pipeline(self.settings, self.notes, kill, stages)), self.log)

    def run(self, kill: Kill | None = None, before: Callable = lambda: None, stages: Iterable[str] = STAGES) -> int:
        """A run of these stages to the last one's end, or to its death; returns the exit code."""
        pid = self.start(kill, before, stages)
        if kill and kill.moment is not None:
            self.wait_for(f"{kill.stage} begins", pid)
            share = kill.moment * self.world.whole.progress(kill.stage)
            while self.progress(kill.stage) < share and f"{kill.stage} ends" not in self._latest() and is_running(pid):
                time.sleep(0.002)
            os.kill(pid, signal.SIGKILL)
        code = ended(pid)
        if code == -signal.SIGKILL:
            self.kills[self.current_stage()] += 1
        return code

    def wait_for(self, note: str, pid: int) -> None:
        """Until this process, the latest, has noted this or has ended."""
        while note not in self._latest() and is_running(pid):
            time.sleep(0.002)

    def progress(self, stage: str) -> int:
        """How much of a stage the latest process has noted, so that a moment is one however busy the machine is."""
        return sum(note.startswith(f"{stage} ") for note in self._latest())

    def current_stage(self) -> str:
        """Where the latest process was last seen."""
        begun = [note.split()[0] for note in self._latest() if note.endswith("begins")]
        return begun[-1] if begun else "settings"

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""

    def seconds(self, stage: str) -> float:
        return json.loads((self.folder / "run.json").read_text())["stages"][stage]["seconds"]

    def touches(self, stage: str) -> int:
        return sum(note == f"{stage} touch" for note in self._latest())

    def differences(self, other: "Life | None" = None) -> list[str]:
        """Results that are not, byte by byte, those of the other (unbroken) run; and what should not be there."""
        other = (other or self.world.whole).folder
        found = [name for name in RESULTS if digest(self.folder / name) != digest(other / name)]
        mine, theirs = (Run(folder).memory["stages"] for folder in (self.folder, other))
        found += [f"run.json: {n}" for n in STAGES if mine.get(n, {}).get("files") != theirs[n]["files"]]
        left = ("training-", "predictions-")
        return found + [path.name for path in self.folder.iterdir() if path.name.startswith(left)]

    def calls(self, *stages: str) -> int:
        """Model calls of the latest process."""
        return sum(note in [f"{stage} call" for stage in stages or STAGES] for note in self._latest())

    def redone(self) -> dict[str, str]:
        """Stages with more model calls than the unbroken run's and, for each kill, what lies between two records."""
        mine, whole = self._calls(), self.world.whole._calls()
        allowed = {stage: sum(whole[stage]) + self.kills[stage] * max(whole[stage]) for stage in whole}
        return {
            stage: f"{sum(mine[stage])} calls of {allowed[stage]} allowed"
            for stage in mine
            if sum(mine[stage]) > allowed.get(stage, 0)
        }

    def _calls(self) -> dict[str, list[int]]:
        """Model calls of each stage over all processes, between one durable record and the next."""
        calls: dict[str, list[int]] = {}
        for note in self.notes.read_text().splitlines():
            stage, what = note.split()
            gaps = calls.setdefault(stage, [0])
            if what == "call":
                gaps[-1] += 1
            elif what in ("durable", "begins"):
                gaps.append(0)
        return calls

    def _latest(self) -> list[str]:
        """Notes of the latest process."""
        notes = self.notes.read_text().splitlines()
        return notes[len(notes) - notes[::-1].index("process starts") :] if "process starts" in notes else []


def pipeline(settings: Settings, notes: Path, kill: Kill | None, stages: Iterable[str] = STAGES) -> None:
    """The stages in order, with notes: calls of a model, what became durable, touches of the run's folder."""
    file = os.open(notes, os.O_WRONLY | os.O_APPEND)
    os.write(file, b"process starts\n")
    at = {"stage": "settings", "touches": 0}

    def note(what: str) -> None:
        os.write(file, f"{at['stage']} {what}\n".encode())

    def on_forward(module, _) -> None:
        if isinstance(module, Qwen2Model | RobertaModel):
            note("call")

    def on_audit(event: str, arguments: tuple) -> None:
        if event not in TOUCHES or (event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)):
            return
        if str(settings.folder) in str(arguments[0]):
            at["touches"] += 1
            if kill and (at["stage"], at["touches"]) == (kill.stage, kill.touch):
                os.kill(os.getpid(), signal.SIGKILL)
            note("touch")

    torch.nn.modules.module.register_module_forward_pre_hook(on_forward)
    sys.addaudithook(on_audit)
    for owner, name in ((Journal, "append"), (Trainer, "_save_checkpoint")):
        setattr(owner, name, then(getattr(owner, name), lambda: note("durable")))
    begin(settings)
    for name in stages:
        at |= {"stage": name, "touches": 0}
        note("begins")
        STAGES[name](settings)
        note("ends")


def then(function: Callable, after: Callable[[], None]) -> Callable:
    def both(*args, **kwargs):
        result = function(*args, **kwargs)
        after()
        return result

    return both


def fork(work: Callable[[], object], log: Path) -> int:
    """Start `work` in a process of its own that speaks into a file; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = FAILED
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1), os.dup2(target, 2)
        work()
        code = DONE
    except UserError as error:
        print(f"Error: {error}")
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def is_running(pid: int) -> bool:
    return not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_fork(work: Callable[[], object], log: Path) -> int:
    return ended(fork(work, log))


def write_data(folder: Path) -> None:
    folder.mkdir(parents=True)
    words = ["один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять", "десять"]
    rows = [f"Сапоги номер {a} промокают, {b}" for a in words for b in ("увы", "но тёплые")]
    rows += [f"Тарелка {a} разбилась в дороге" for a in words]
    (folder / "train.csv").write_text("\n".join(["text", *(f'"{row}"' for row in rows)]) + "\n", encoding="utf-8")
    tests = [f"Ботинки {word} малы" for word in words] + [f"Чашка {word} с трещиной" for word in words]
    (folder / "test.csv").write_text("\n".join(["text", *tests]) + "\n", encoding="utf-8")
    (folder / "categories.toml").write_text(
        '[[category]]\nlabel = "обувь"\nexamples = ["сапоги промокают", "тапки велики", "каблук шатается"]\n'
        '[[category]]\nlabel = "посуда"\nexamples = ["тарелка разбилась", "чашка мала", "ложка гнётся"]\n',
        encoding="utf-8",
    )


def save_models(folder: Path) -> None:
    for role, pair in (("labeler", tiny_qwen2(1)), ("writer", tiny_qwen2(2)), ("classifier", tiny_roberta())):
        saved(folder / role, pair)


def settings_on(folder: Path) -> Settings:
    """The t4 profile on the CPU, with filters wide open, because what random models write is no review."""
    values = t4() | {"device": "cpu", "profile_reason": "test", "data": folder / "data"}
    values |= {"labeler": ModelSpec(str(folder / "labeler"), chat=True), "prior_correction": True}
    values |= {"writer": ModelSpec(str(folder / "writer"), weights="bf16", chat=True)}
    values |= dict.fromkeys(("classifier", "second_labeler"), ModelSpec(str(folder / "classifier")))
    values |= {"max_synthetic": 12, "max_attempts": 3, "max_new_tokens": 8, "min_chars": 1, "min_cyrillic": 0.0}
    values |= {"min_length_ratio": 0.0, "max_length_ratio": 1000.0, "length_slack": 10_000, "judge_draws": 2}
    values |= {"epochs": 6, "patience": 2, "batch_size": 8, "max_tokens": 64, "bootstrap": 50}
    values |= {"near_duplicate": 99.0, "tokens_per_batch": 400}
    return Settings(**values)
