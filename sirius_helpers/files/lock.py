"""One process at work in a run's folder at a time, also where file locks do not hold: on a mounted Google Drive.

Whoever wants to work puts a file of its own into the folder and then looks for others' files: of two who come at
once at least one sees the other. A file names its holder, and a thread renews its time of day. A holder that is
dead, or on another machine and not heard of for two minutes, holds nothing.

    with held(run.folder):             # a UserError names whoever else is at work there
        ...
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ..errors import UserError
from ..kinds import Json
from .journal import write_atomically, writing

NAMES = "run.*.lock"
BEAT = 15.0  # seconds between two signs of life
STALE = 120.0  # seconds without one until a holder on another machine counts as lost
TRIES = 8  # so that two who ask at the same moment do not both give up
SHARED = "SIRIUS_LOCK"  # environment variable: name of the lock under which a parent lets its child work
_mine: dict[Path, Path] = {}  # folder -> the lock this process has there


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process out of the folder's stages; a process that holds the lock may ask again.

    Asking again makes sure that the lock is still ours: a process that slept (a closed laptop) may find it removed
    by another one, or gone with its folder, and must not go on.
    """
    folder = Path(folder).resolve()
    if folder in _mine:
        if not _mine[folder].exists():
            raise UserError(
                f"{folder} is no longer this process's: the folder was removed, or another process took over while "
                "this one did not answer. Run the stage again: it goes on with what it finds there."
            )
        yield
        return
    me = _about_me()
    _mine[folder] = path = _take(folder, me)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, me, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        del _mine[folder]
        done.set()
        heart.join()
        path.unlink(missing_ok=True)


@contextmanager
def held_with_children(folder: Path) -> Iterator[None]:
    """Likewise, and processes started meanwhile may work there, each with a lock of its own beside this one."""
    with held(folder):
        os.environ[SHARED] = _mine[Path(folder).resolve()].name
        try:
            yield
        finally:
            del os.environ[SHARED]


def _take(folder: Path, me: Json) -> Path:
    path = folder / NAMES.replace("*", uuid.uuid4().hex[:12])
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        holder = None
        for _ in range(TRIES):
            write_atomically(path, json.dumps(me).encode())
            holder = _another(folder, path)
            if holder is None:
                return path
            path.unlink(missing_ok=True)
            time.sleep(random.uniform(0.01, 0.1))  # step back, for another time than whoever asks too
    raise _in_use(folder, holder or {})


def _another(folder: Path, mine: Path | None = None) -> Json | None:
    """What the lock of a living process says, None where there is none. Abandoned locks are removed."""
    for path in folder.glob(NAMES):
        if path != mine and path.name != os.environ.get(SHARED) and (holder := _read(path)):
            if not _is_abandoned(holder):
                return holder
            path.unlink(missing_ok=True)
    return None


def _in_use(folder: Path, holder: Json) -> UserError:
    who = f"process {holder['pid']} on {holder['host']}" if "pid" in holder else "another process"
    since = f" since {holder['since']}" if "since" in holder else ""
    return UserError(
        f"{folder} is in use: {who} is at work there{since}. Wait until its stage is done or stop that process, then "
        f"run this again; or choose another RUN. (After a machine was lost its lock lasts {STALE / 60:.0f} minutes.)"
    )


def _beat(path: Path, me: Json, done: threading.Event) -> None:
    while not done.wait(BEAT):
        if path.exists():  # else the next `held` of this process says so
            with suppress(UserError):  # a full disk is for the stage itself to report
                write_atomically(path, json.dumps(me | {"beat": time.time()}).encode())


def _about_me() -> Json:
    now = time.time()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "beat": now,
    }


def _read(path: Path) -> Json | None:
    """What a lock says; only a time where it cannot be read, None where it is gone."""
    with suppress(ValueError, TypeError, OSError):
        said: Json = json.loads(path.read_bytes())
        if {"machine", "pid", "started", "host", "beat"} <= set(said):
            return said
    with suppress(FileNotFoundError):
        return {"beat": path.stat().st_mtime}
    return None


def _is_abandoned(holder: Json) -> bool:
    if holder.get("machine") != _machine():
        return time.time() - float(holder["beat"]) > STALE
    return holder["pid"] == os.getpid() or not _is_alive(holder["pid"], holder["started"])  # ours: left by an interrupt


def _is_alive(pid: int, started: float) -> bool:
    """Whether the process runs that had this pid then; a minute's grace, because clocks are set."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 60 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _machine() -> str:
    """Where a pid means one process: this boot of this machine, and this container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
