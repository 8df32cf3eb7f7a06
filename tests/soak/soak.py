"""What a run survives: faults done to whole runs on tiny models, and a table of what became of them.

    cd tests; python -m soak.soak               # 30 kills over all stages and every other fault, some minutes
    cd tests; python -m soak.soak --short       # about six kills and some of the others

A run has survived when rerunning it ends with, byte by byte, the files of an unbroken run, no model call was made
again beyond what lies between two durable records, and one more run calls no model at all.
"""

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

from soak.lives import DONE, FAILED, REFUSED, STAGES, Kill, Life, World, ended, in_fork, pipeline

from sirius_helpers.files import lock as locks
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import MADE_BY

JOURNALS = ("labels.jsonl", "synthetic.jsonl", "rejected.jsonl")
Problems = list[str]


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when everything was tried and survived; a line of JSON for each trial, then the table."""
    parser = argparse.ArgumentParser(description="Break runs and see what becomes of them.")
    parser.add_argument("--short", action="store_true", help="what `make test` does")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=15, help="start no trial after this time")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    results: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        _inherited.update(world=world, trials=list(trials(options.short)), seed=options.seed, end=end)
        with get_context("fork").Pool(2) as pool:
            for line in pool.imap(attempt, range(len(_inherited["trials"]))):
                results.setdefault(line["fault"], []).append(line)
                print(json.dumps(line, ensure_ascii=False), flush=True)
    print(f"\n{'fault':<58} tried  survived  lost  not tried")
    for fault, lines in results.items():
        lost = sum(max(1, line["times"]) for line in lines if line["problems"])
        survived = sum(line["times"] for line in lines if not line["problems"])
        skipped = sum(line["skipped"] for line in lines)
        print(f"{fault:<58} {survived + lost:>5} {survived:>9} {lost:>5} {skipped:>10}")
    return int(any(line["problems"] or line["skipped"] for lines in results.values() for line in lines))


_inherited: dict = {}  # by the two workers, which are forks of this process


def attempt(number: int) -> dict:
    """One trial: fault, how many times it was done, seconds, problems, and whether there was no time left for it."""
    fault, trial = _inherited["trials"][number]
    start = time.monotonic()
    times, problems, skipped = 0, [], start >= _inherited["end"]
    if not skipped:
        rng = random.Random(f"{_inherited['seed']}:{number}")
        times, problems = trial(_inherited["world"], rng, f"trial-{number}")
    seconds = round(time.monotonic() - start, 1)
    return {"fault": fault, "times": times, "seconds": seconds, "problems": problems, "skipped": skipped}


def trials(short: bool) -> Iterator[tuple[str, Callable]]:
    """Name of the fault, and what does it: (world, rng, name of a life) -> times done, problems."""
    damages = damage_table()
    if short:
        yield "killed", one_kill_a_stage
        yield "damaged files, all at once", damaged(*(damages[name] for name in SHORT_DAMAGES))
        yield "a second process", second_process
        yield "disk full", disk_full
        yield "folder removed", folder_removed
        yield "the same once more, in other batches", other_batches
        return
    for _ in range(3):
        yield "killed", one_kill_a_stage
    for _ in range(6):
        yield "killed several times in one stage", kills_in_one_stage
    for stage in STAGES:
        yield f"{stage} alone, killed", lambda *trial, stage=stage: killed_alone(stage, *trial)
    for name, damage in damages.items():
        yield name, damaged(damage)
    for name, harm in {"empty": lambda data: b"", "a row short": without_last_row}.items():
        yield f"chunk of predictions {name}", lambda *trial, harm=harm: damaged_chunk(harm, *trial)
    for _ in range(3):
        yield "a second process", second_process
    for _ in range(8):
        yield "disk full", disk_full
    for _ in range(3):
        yield "disk read-only", disk_read_only
    for _ in range(5):
        yield "folder removed", folder_removed
    for name, changes in CHANGES.items():
        yield f"{name} changed, killed, changed back", lambda *trial, changes=changes: changed(changes, *trial)
    yield "the same once more", once_more
    yield "the same once more, in other batches", other_batches


# --- faults ---------------------------------------------------------------------------------------------------


def one_kill_a_stage(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """Six stages, each killed once: every other one from outside, the rest before a touch of the folder."""
    left_out = rng.choice(("review", "split"))
    stages = [stage for stage in STAGES if stage != left_out]
    return kill_trial(world, name, [random_kill(world, rng, stage, i % 2) for i, stage in enumerate(stages)])


def kills_in_one_stage(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    stage = rng.choice(("label", "augment", "train", "train", "evaluate"))
    return kill_trial(world, name, [random_kill(world, rng, stage, i % 2) for i in range(3)])


def random_kill(world: World, rng: random.Random, stage: str, from_outside: int) -> Kill:
    if from_outside:
        return Kill(stage, moment=rng.random())
    return Kill(stage, touch=rng.randint(1, world.whole.touches(stage)))


def kill_trial(world: World, name: str, kills: list[Kill]) -> tuple[int, Problems]:
    life = world.life(name)
    problems = killed(life, kills) + settled(life)
    return life.kills.total(), problems + list(life.redone().items())


def killed_alone(stage: str, world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """A process that does one stage only, on a run that lacks nothing but this stage's files."""
    life = world.life(name, copy=True)
    for file, maker in MADE_BY.items():
        if maker == stage:
            remove(life.folder / file)
    # In the first half: a stage done once more touches the folder less often than the first time.
    kill = Kill(stage, touch=rng.randint(1, world.whole.touches(stage) // 2 or 1))
    problems = [] if life.run(kill, stages=[stage]) == -signal.SIGKILL else [f"{kill} missed: {life.said()[-500:]}"]
    if life.run(stages=[stage]) != DONE:
        problems.append(life.said()[-500:])
    return life.kills.total(), problems + settled(life) + list(life.redone().items())


def damaged_chunk(harm: Callable, world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """A prediction killed with some of its chunks done; one of them is then found damaged."""
    life = world.life(name, copy=True)
    remove(life.folder / "predictions.csv")
    life.run(Kill("predict", touch=world.whole.touches("predict") // 2), stages=["predict"])
    chunk = rng.choice(sorted(life.folder.glob("predictions-*/*.csv")))
    chunk.write_bytes(harm(chunk.read_bytes()))
    return 1, settled(life)


def killed(life: Life, kills: list[Kill]) -> Problems:
    """Rerun and kill, until a run comes through."""
    codes = {kill: life.run(kill) for kill in kills}
    return [f"{kill}: {life.said()[-500:]}" for kill, code in codes.items() if code in (FAILED, REFUSED)]


def damage_table() -> dict[str, Callable[[Path, random.Random], None]]:
    """What may be found wrong in the folder of a finished run."""
    table: dict[str, Callable] = {}
    for file in JOURNALS:
        table[f"{file} torn at a random byte"] = lambda run, rng, f=file: cut(run / f, rng.random())
        table[f"{file} torn within a letter"] = lambda run, rng, f=file: cut_letter(run / f, rng)
    for file in (*JOURNALS, "judge.jsonl", "labels.csv", "split.csv", "metrics.json", "submission.csv"):
        table[f"{file} empty"] = lambda run, _, f=file: (run / f).write_bytes(b"")
    table["run.json empty"] = lambda run, _: (run / "run.json").write_bytes(b"")
    table["run.json torn"] = lambda run, rng: cut(run / "run.json", rng.random())
    table["adapter's weights empty"] = lambda run, _: (run / "adapter/adapter_model.safetensors").write_bytes(b"")
    table["adapter's weights torn"] = lambda run, rng: cut(run / "adapter/adapter_model.safetensors", rng.random())
    for file in ("labels.jsonl", "labels.csv", "split.csv", "history.csv", "predictions.csv"):
        table[f"{file} gone, its finish marker there"] = lambda run, _, f=file: (run / f).unlink()
    table["adapter/ gone, its finish marker there"] = lambda run, _: shutil.rmtree(run / "adapter")
    table["report/ gone, its finish marker there"] = lambda run, _: shutil.rmtree(run / "report")
    table["*.part left behind"] = leave_parts
    table["lock of a dead process left behind"] = leave_lock
    return table


SHORT_DAMAGES = (
    "labels.jsonl torn within a letter",
    "synthetic.jsonl empty",
    "split.csv gone, its finish marker there",
    "adapter's weights empty",
    "*.part left behind",
    "lock of a dead process left behind",
)


def damaged(*damages: Callable) -> Callable:
    def trial(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
        life = world.life(name, copy=True)
        for damage in damages:
            damage(life.folder, rng)
        problems = [p for p in settled(life) if p not in ("differs: labels.jsonl", "differs: run.json: label")]
        return len(damages), problems or relabelled(life)

    return trial


def second_process(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """While one process is at work, another is turned away with the first one's pid, and the first goes on."""
    life, problems = world.life(name), []
    stage = rng.choice(("label", "augment", "train"))
    pid = life.start()
    life.wait_for(f"{stage} begins", pid)
    while not list(life.folder.glob("run.*.lock")):
        time.sleep(0.002)
    log, notes = world.folder / f"{name}-second.txt", world.folder / f"{name}-second.notes"
    notes.touch()
    code = in_fork(lambda: pipeline(life.settings, notes, None), log)
    if code != REFUSED or f"is in use: process {pid} on" not in read(log):
        problems.append(f"the second process ended with {code}: {read(log)[-500:]}")
    if (code := ended(pid)) != DONE:
        problems.append(f"the first process ended with {code}: {life.said()[-500:]}")
    return 1, problems + settled(life)


def disk_full(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """A disk, or a size allowed for files, that runs out in the middle of a run; then there is room again."""
    sizes = [path.stat().st_size for path in world.whole.folder.rglob("*") if path.is_file()]
    share = rng.uniform(0.01, 0.95)
    disk = Disk(world.folder / f"{name}-disk", size=int(share * sum(sizes)), limit=int(share * max(sizes)))
    with disk:
        life = world.life(name, checkpoints=disk.folder)
        return 1, refused(life, disk.before, "could not be written") or (disk.grow(), settled(life))[1]


def disk_read_only(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    disk = Disk(world.folder / f"{name}-disk", size=64 << 20, limit=64 << 20)
    with disk:
        life = world.life(name, checkpoints=disk.folder)
        life.run(random_kill(world, rng, rng.choice(list(STAGES)), 0))
        disk.forbid_writing()
        return 1, refused(life, disk.before, "written: ") or (disk.grow(), settled(life))[1]


def folder_removed(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """The run's folder goes away while a stage is at work."""
    life = world.life(name)
    stage = rng.choice(("label", "augment", "train", "evaluate"))
    pid = life.start()
    life.wait_for(f"{stage} begins", pid)
    time.sleep(rng.uniform(0, 0.8) * world.whole.seconds(stage))
    life.folder.rename(world.folder / f"{name}-removed")
    code = ended(pid)
    problems = [] if code in (DONE, REFUSED) else [f"ended with {code}: {life.said()[-500:]}"]
    return 1, problems + settled(life)


def once_more(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    return 1, settled(world.life(name))


def other_batches(world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """Batches of another size change no label."""
    life = world.life(name, tokens_per_batch=3 * world.settings.tokens_per_batch)
    code = in_fork(lambda: STAGES["label"](life.settings), life.log)
    labels = [[r["category"] for r in read_records(one.folder / "labels.jsonl")] for one in (life, world.whole)]
    return 1, [] if code == DONE and labels[0] == labels[1] else [f"labels differ: {life.said()[-500:]}"]


CHANGES = {
    "paraphrase prompt": {"prompts": {"paraphrase": {"user": "Отзыв: $review\nСкажи иначе:"}}},
    "seed": {"seed": 7},
    "test share": {"test_share": 0.3},
    "learning rate": {"learning_rate": 1e-3},
}


def changed(changes: dict, world: World, rng: random.Random, name: str) -> tuple[int, Problems]:
    """New settings on an old folder give what they give on a new one; the old settings find their work again."""
    life, fresh = world.life(name, copy=True, **changes), world.life(f"{name}-fresh", **changes)
    problems = killed(life, [random_kill(world, rng, rng.choice(("label", "augment", "train")), 0)])
    problems += settled(life, fresh) if fresh.run() == DONE else [fresh.said()[-500:]]
    back = world.life(name)
    if back.run() != DONE or back.calls("label", "augment"):
        problems.append("changed back: labels or texts were made again")
    return 1, problems + settled(back)


# --- what they share ------------------------------------------------------------------------------------------


def relabelled(life: Life) -> Problems:
    """Labels lost from a finished file are made again in other batches: the same but for the last digits."""
    pairs = [read_records(one.folder / "labels.jsonl") for one in (life, life.world.whole)]
    for mine, theirs in zip(*pairs, strict=True):
        far = max(abs(p - theirs["probabilities"][name]) for name, p in mine["probabilities"].items())
        if (mine["id"], mine["category"]) != (theirs["id"], theirs["category"]) or far > 1e-4:
            return [f"label differs: {mine} {theirs}"]
    return []


def settled(life: Life, like: Life | None = None) -> Problems:
    """Run to the end; what is then not as in the unbroken run, or not as in another one."""
    if (code := life.run()) != DONE:
        return [f"rerun ended with {code}: {life.said()[-500:]}"]
    problems = [f"differs: {name}" for name in life.differences(like)]
    if life.run() != DONE or life.calls():
        problems.append("one more run called a model again")
    return problems


def refused(life: Life, before: Callable[[], None], message: str) -> Problems:
    """Run into an obstacle: one clear line is wanted."""
    code = life.run(before=before)
    clear = code == REFUSED and re.search(f"Error: .*{message}", life.said())
    return [] if clear else [f"ended with {code}: {life.said()[-500:]}"]


class Disk:
    """A small disk of its own where mounting is allowed; elsewhere a folder, and a limit on the length of files."""

    def __init__(self, folder: Path, size: int, limit: int) -> None:
        self.folder, self.size, self.limit = folder, size, limit
        self.before: Callable[[], None] = lambda: None

    def __enter__(self) -> "Disk":
        self.folder.mkdir()
        self.mounted = self._mount("-t", "tmpfs", "-o", f"size={self.size}", "tmpfs")
        if not self.mounted:
            self.before = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        return self

    def __exit__(self, *_) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)

    def forbid_writing(self) -> None:
        if not (self.mounted and self._mount("-o", "remount,ro")):
            self.before = lambda: sys.addaudithook(self._forbid)

    def grow(self) -> None:
        """Room for everything, and leave to write."""
        self.before = lambda: None
        if self.mounted:
            self._mount("-o", f"remount,rw,size={64 << 20}")

    def _mount(self, *options: str) -> bool:
        command = ["mount", *options, self.folder]
        return bool(shutil.which("mount")) and subprocess.run(command, capture_output=True).returncode == 0

    def _forbid(self, event: str, arguments: tuple) -> None:
        if event == "open" and str(self.folder) in str(arguments[0]) and (arguments[2] or 0) & os.O_WRONLY:
            raise PermissionError(13, "Permission denied", arguments[0])


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])


def without_last_row(data: bytes) -> bytes:
    return data[: data.rindex(b"\n", 0, -1) + 1]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def cut_letter(path: Path, rng: random.Random) -> None:
    """Cut in the middle of a letter of two bytes."""
    data = path.read_bytes()
    middles = [i for i, byte in enumerate(data) if byte & 0xC0 == 0x80]
    path.write_bytes(data[: rng.choice(middles)])


def leave_parts(run: Path, rng: random.Random) -> None:
    for path in [*run.iterdir()]:
        if path.is_file():
            (run / f"{path.name}.part").write_bytes(path.read_bytes()[: rng.randint(0, 200)])
    (run / "adapter.part").mkdir()
    (run / "adapter.part" / "adapter_model.safetensors").write_bytes(b"half")
    (run / "split.csv").unlink(missing_ok=True)  # so that some stages are done again beside them


def leave_lock(run: Path, rng: random.Random) -> None:
    assert in_fork(lambda: locks._take(run / "run.*.lock"), run.parent / "lock.txt") == DONE


if __name__ == "__main__":
    sys.exit(main())
