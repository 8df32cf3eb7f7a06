"""One process at work in a run's folder at a time, also where file locks do not hold: on a mounted Google Drive.

Whoever wants to work puts a file of its own there, then looks for others': of two who come at once at least one sees
the other. A holder that is dead, or on another machine and not heard of for two minutes, holds nothing.

    with run_lock(run.folder):             # a UserError names whoever else is at work there
"""

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

BEAT = 15.0  # seconds between two signs of life
STALE = 120.0  # seconds without one until a holder on another machine counts as lost
_own: dict[Path, Path] = {}  # where the locks on a kind of work lie -> the one that this process has there


@contextmanager
def run_lock(folder: Path, work: str = "run") -> Iterator[None]:
    """Keep other processes from this kind of work in the folder; asked again, make sure that the lock was not lost."""
    locks = Path(folder).resolve() / f"{work}.*.lock"
    if locks in _own:
        if not _own[locks].exists():
            raise UserError(
                f"{locks.parent} is no longer this process's: the folder was removed, or another process took over "
                "while this one did not answer. Run the stage again: it goes on with what it finds there."
            )
        yield
        return
    path = _own[locks] = _take(locks)
    done, content = threading.Event(), path.read_bytes()

    def beat() -> None:
        while not done.wait(BEAT):
            if path.exists():  # else the next `run_lock` of this process says so
                with suppress(UserError):  # a full disk is for the stage itself to report
                    write_atomically(path, content)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        del _own[locks]
        done.set()
        heart.join()
        with suppress(OSError):  # a disk that went read-only meanwhile; what ended the work is what is told
            path.unlink()


def _take(locks: Path) -> Path:
    folder, path = locks.parent, locks.with_name(locks.name.replace("*", uuid.uuid4().hex[:12]))
    me = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    me |= {"machine": _machine(), "started": psutil.Process().create_time()}
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        for _ in range(8):  # so that two who ask at the same moment do not both give up
            write_atomically(path, json.dumps(me).encode())
            others = [holder for lock in folder.glob(locks.name) if lock != path and (holder := _living(lock))]
            if not others:
                return path
            path.unlink(missing_ok=True)
            time.sleep(random.uniform(0.01, 0.1))  # step back, for another time than whoever asks too
    raise UserError(
        f"{folder} is in use: {others[0]}. Wait until its stage is done or stop that process, then run this again; or "
        f"choose another RUN. (After a machine was lost its lock lasts {STALE / 60:.0f} minutes.)"
    )


def _living(lock: Path) -> str:
    """Who holds a lock; an abandoned one is removed, and nobody ("") holds it."""
    try:
        age, content = time.time() - lock.stat().st_mtime, lock.read_bytes()
    except FileNotFoundError:
        return ""
    who, here = "another process is at work there", False
    with suppress(ValueError, TypeError, KeyError):
        said: Json = json.loads(content)
        who = f"process {said['pid']} on {said['host']} is at work there since {said['since']}"
        here = said["machine"] == _machine()
    if _is_running(said["pid"], said["started"]) if here else age < STALE:
        return who
    lock.unlink(missing_ok=True)
    return ""


def _is_running(pid: int, started: float) -> bool:
    """Whether the process that had this pid then, give or take a minute, runs; not this one, which was interrupted."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        same = pid != os.getpid() and abs(process.create_time() - started) < 60
        return same and process.status() != psutil.STATUS_ZOMBIE
    return False


def _machine() -> str:
    """Where a pid means one process: this boot of this machine, and this container on it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
