"""Causes for which a system refuses work, each raised for real in the middle of each stage, and what is said then.

    python tests/causes.py                 # a JSON line for each stage and cause: what was said, and what was wrong
    python tests/causes.py --every 5       # at each fifth touch of a file instead of the stage's first own file

A stage works on a finished run that lacks this stage's files alone. At a moment of its own work the disk is full,
memory ends, the folder is gone, and so on. Then the cause is taken away and the stage runs once more, to the files that
were there before. Where a disk of its own needs a right that is missing, a limit on files takes its place.
"""

import argparse
import gc
import io
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from huggingface_hub import constants
from psutil import Process
from soak.lives import DONE, TOUCHES, in_fork, save_models, settings_on
from soak.lives import STAGES as EVERY_STAGE
from torch import empty
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers import Qwen2Model, RobertaModel

from sirius_helpers.errors import command
from sirius_helpers.files.runs import WRITES, begin, digest
from sirius_helpers.settings import Settings

ROLES = {"labeler": "label", "writer": "augment", "classifier": "train evaluate predict"}  # the stages that load it
COMMIT = "c" * 40
LIMITS = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_AS)
ROOM = 16 << 20  # bytes of the runs' own disk
NOBODY = 65534  # a user without rights
BAR = re.compile(r"\r?[\w ]+: +\d+%\|[^\]]*\]")
Act = Callable[["Place"], object]


@dataclass
class Place:
    """Where a run works: its disk holds the folder of runs, and a copy of the finished run lies elsewhere."""

    settings: Settings
    disk: Path
    whole: Path
    mounted: bool

    def mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.disk], check=True, capture_output=True)


# --- causes: what happens at the moment, and what takes it away again --------------------------------------------


def fill_the_disk(place: Place) -> None:
    if not place.mounted:
        return set_limit(resource.RLIMIT_FSIZE, 0)
    with suppress(OSError), open(place.disk / "filler", "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def empty_the_disk(place: Place) -> None:
    (place.disk / "filler").unlink(missing_ok=True)


def make_the_disk_read_only(place: Place) -> None:
    if place.mounted:
        place.mount("-o", "remount,ro")
    else:
        take_the_rights(place)


def make_the_disk_writable(place: Place) -> None:
    if place.mounted:
        place.mount("-o", f"remount,rw,size={ROOM}")
    give_the_rights(place)


def take_the_rights(place: Place) -> None:
    """Root may do everything, so it stops being root."""
    place.settings.folder.chmod(0o500)
    if os.geteuid() == 0:
        os.seteuid(NOBODY)


def give_the_rights(place: Place) -> None:
    place.settings.folder.chmod(0o700)


def take_the_folder_away(place: Place) -> None:
    place.settings.folder.rename(place.disk / "elsewhere")


def bring_the_folder_back(place: Place) -> None:
    shutil.rmtree(place.settings.folder, ignore_errors=True)
    (place.disk / "elsewhere").rename(place.settings.folder)


def allow_no_more_files(place: Place) -> None:
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    set_limit(resource.RLIMIT_NOFILE, free)


def ask_nobody(place: Place) -> None:
    """What a file on a disk of the network does, where its server is down."""
    socket.create_connection(unanswered())


def allow_no_more_memory(place: Place) -> None:
    """What is asked for first is more than the heap has left over."""
    set_limit(resource.RLIMIT_AS, Process().memory_info().vms)
    bytearray(1 << 30)


def ask_torch_for_too_much(place: Place) -> None:
    empty(2**60)


def interrupt(place: Place) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def set_limit(limit: int, value: int) -> None:
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))


def unanswered() -> tuple[str, int]:
    """An address at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()


CAUSES: dict[str, tuple[Act, Act]] = {
    "disk full": (fill_the_disk, empty_the_disk),
    "read-only": (make_the_disk_read_only, make_the_disk_writable),
    "no right": (take_the_rights, give_the_rights),
    "folder gone": (take_the_folder_away, bring_the_folder_back),
    "open files, at first": (allow_no_more_files, lambda _: None),
    "open files": (allow_no_more_files, lambda _: None),
    "connection refused": (ask_nobody, lambda _: None),
    "memory": (allow_no_more_memory, lambda _: None),
    "memory of a model": (ask_torch_for_too_much, lambda _: None),
    "interrupted": (interrupt, lambda _: None),
}
STAGES = {stage: work for stage, work in EVERY_STAGE.items() if stage != "opinions"}
# The stages that load no model compute nothing. With SOAK=1 (`make soak`) every pair, else a third of them.
TRIALS = [
    (stage, cause) for m, stage in enumerate(STAGES) for n, cause in enumerate(CAUSES)
    if (cause != "memory of a model" or stage not in ("review", "split")) and ("SOAK" in os.environ or (m + n) % 3 == 0)
]  # fmt: skip


# --- moments -----------------------------------------------------------------------------------------------------


def before_a_touch(number: int | None, stage: str, place: Place, act: Callable[[], object]) -> None:
    """`act` before the stage's n-th touch of a file or folder, or, without a number, before the first of its own."""
    own = tuple(str(place.settings.folder / name) for name in (*WRITES[stage], "training-", "predictions-"))
    watched = tuple(map(str, (place.disk, place.settings.data, constants.HF_HUB_CACHE)))
    touched = 0

    def on_audit(event: str, arguments: tuple) -> None:
        nonlocal touched
        if event not in TOUCHES or not (path := str(arguments[0])).startswith(watched):
            return
        touched += 1
        writes = event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not happened and (touched == number or number is None and writes and path.startswith(own)):
            happened.append(path)  # first, because `act` touches files too
            act()

    happened: list[str] = []
    sys.addaudithook(on_audit)


def before_a_model_computes(act: Callable[[], object]) -> None:
    models = Qwen2Model | RobertaModel
    register_module_forward_pre_hook(lambda module, _: act() if isinstance(module, models) else None)


def asks_the_hub(stage: str, cause: str, number: int | None) -> bool:
    """Whether the cause is that the stage's model is not here and its hub is not there."""
    return cause == "connection refused" and number is None and any(stage in stages for stages in ROLES.values())


def attempt(stage: str, cause: str, number: int | None, place: Place) -> None:
    """In a process of its own: the stage as a command with the cause in its middle; ends in the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in a shell's background ignores it
    limits, user = {limit: resource.getrlimit(limit) for limit in LIMITS}, os.geteuid()
    act = partial(CAUSES[cause][0], place)
    if cause == "memory of a model":
        before_a_model_computes(act)
    elif not asks_the_hub(stage, cause, number):
        before_a_touch(1 if cause.endswith("at first") else number, stage, place, act)
    screen = io.StringIO()  # a file could be limited like the stage's
    try:
        with redirect_stdout(screen), redirect_stderr(screen):
            code = command(lambda _: STAGES[stage](place.settings))([])
    finally:
        for limit, values in limits.items():
            resource.setrlimit(limit, values)
        os.seteuid(user)
        print(screen.getvalue())
    print(f"exit code {code}")


# --- trials ------------------------------------------------------------------------------------------------------


def trial(stage: str, cause: str, number: int | None, place: Place) -> dict:
    """What a person saw, and what was wrong afterwards."""
    folder, hub, log = place.settings.folder, Path(constants.HF_HUB_CACHE), place.whole.with_name("log.txt")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.whole, folder)
    for name in WRITES[stage]:
        remove(folder / name)
    gone = hub.rename(hub.with_name("gone")) if asks_the_hub(stage, cause, number) else None
    ended = in_fork(lambda: attempt(stage, cause, number, place), log)
    if gone:
        gone.rename(hub)
    said = seen(log)
    if number is None or "exit code 0" not in said:  # else it may not have come to the moment
        CAUSES[cause][1](place)
    problems = [] if ended == DONE else ["no line but a traceback"]
    return {"stage": stage, "cause": cause, "said": said, "problems": problems + afterwards(stage, place, log)}


def afterwards(stage: str, place: Place, log: Path) -> Iterator[str] | list[str]:
    """Without the cause the stage ends with the files that were there, and leaves no others."""
    if in_fork(lambda: STAGES[stage](place.settings), log) != DONE:
        return [f"once more: {log.read_text(encoding='utf-8')[-500:]}"]
    names = {path.name for path in (*place.settings.folder.iterdir(), *place.whole.iterdir())}
    alike = names - {"run.json", "metrics.json"}  # with times; the evaluation adds to what training wrote
    return [f"differs: {n}" for n in sorted(alike) if digest(place.settings.folder / n) != digest(place.whole / n)]


def seen(log: Path) -> str:
    """What was printed, without the bars."""
    text = BAR.sub("\n", log.read_text(encoding="utf-8", errors="replace"))
    return "\n".join(line for line in text.splitlines() if line.strip())


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


# --- a finished run ----------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    folder.mkdir()
    shoes = [f"Сапоги номер {word} промокают" for word in ("один", "два", "три", "четыре", "пять", "шесть")]
    dishes = [f"Тарелка {word} разбилась" for word in ("белая", "синяя", "красная", "мелкая")]
    tables = {
        "train.csv": ["text", *shoes, *dishes],
        "test.csv": ["text", "Ботинки малы", "Чашка с трещиной"],
        "human_labels.csv": ["text,category", "Туфли жмут,обувь"],
        "judge_control.csv": ["text,is_review", "Тапки малы,yes", "Не могу помочь,no"],
        "categories.txt": ["обувь", "посуда"],
    }
    for name, lines in tables.items():
        (folder / name).write_text("\n".join(lines), encoding="utf-8")


def on_a_hub(folder: Path, settings: Settings) -> Settings:
    """The models as an earlier download left them; the hub does not answer any longer."""
    constants.HF_HUB_OFFLINE, constants.ENDPOINT = False, "http://{}:{}".format(*unanswered())
    constants.HF_HUB_CACHE = str(folder / "hub")
    for role in ROLES:
        model = folder / "hub" / f"models--tiny--{role}"
        shutil.copytree(folder / role, model / "snapshots" / COMMIT)
        (model / "refs").mkdir()
        (model / "refs" / "main").write_text(COMMIT)
    return replace(settings, **{role: replace(getattr(settings, role), name=f"tiny/{role}") for role in ROLES})


def finished(folder: Path) -> Place:
    """A run that is done, on a disk of its own where mounting is allowed."""
    write_data(folder / "data")
    assert in_fork(lambda: save_models(folder), folder / "log.txt") == DONE
    quick = {"epochs": 1, "warmup_share": 0.0, "max_synthetic": 2, "max_attempts": 2, "bootstrap": 5, "run": "run"}
    quick |= {"test_share": 0.3, "validation_share": 0.3, "checkpoints": folder / "disk"}
    settings = replace(on_a_hub(folder, settings_on(folder)), **quick)
    place = Place(settings, folder / "disk", folder / "whole", mounted=False)
    place.disk.mkdir()
    with suppress(OSError, subprocess.CalledProcessError):
        place.mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs")
        place.mounted = True

    def go() -> None:
        begin(settings)
        for stage in STAGES.values():
            stage(settings)

    assert in_fork(go, folder / "log.txt") == DONE, (folder / "log.txt").read_text(encoding="utf-8")
    shutil.copytree(settings.folder, place.whole)
    return place


def main() -> int:
    parser = argparse.ArgumentParser(description="Raise each cause in each stage.")
    parser.add_argument("--every", type=int, default=0, help="at each touch of this number and its multiples")
    parser.add_argument("--touches", type=int, default=60)
    parser.add_argument("--stage", choices=STAGES, nargs="*", default=[*STAGES])
    parser.add_argument("--cause", choices=CAUSES, nargs="*", default=[*CAUSES])
    options = parser.parse_args()
    numbers = range(options.every, options.touches, options.every) if options.every else [None]
    gc.freeze()  # or every fork's garbage collection goes through all imported modules
    with tempfile.TemporaryDirectory() as name:
        place = finished(Path(name).resolve())
        try:
            for stage, cause in TRIALS:
                if stage in options.stage and cause in options.cause:
                    for number in numbers:
                        print(json.dumps(trial(stage, cause, number, place), ensure_ascii=False), flush=True)
        finally:
            if place.mounted:
                subprocess.run(["umount", "--lazy", place.disk], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
