"""One process at work in a run's folder at a time, also where file locks do not hold: on a mounted Google Drive.

The lock is a file that only one process can create. It names its holder, and a thread renews its time of day. A
holder that is dead, or on another machine and not heard of for two minutes, holds nothing.

    with held(run.folder):             # a UserError names whoever else is at work there
        ...
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from .errors import UserError
from .journal import write_atomically, writing

FILE = "run.lock"
BEAT = 15.0  # seconds between two signs of life
STALE = 120.0  # seconds without one until a holder on another machine counts as lost
_mine: dict[Path, dict] = {}  # the locks of this process: path -> what it wrote there


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process out of the folder's stages; a process that holds the lock may ask again.

    Asking again makes sure that the lock is still ours: a process that slept (a closed laptop) may find it taken
    over, or gone with its folder, and must not go on.
    """
    path = Path(folder).resolve() / FILE
    if path in _mine:
        if _read(path).get("token") != _mine[path]["token"]:
            raise UserError(
                f"{path} is no longer this process's: the folder was removed, or another process took over while this "
                "one did not answer. Run the stage again: it goes on with what it finds there."
            )
        yield
        return
    _mine[path] = me = _take(path)
    done = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, me, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        del _mine[path]
        if _read(path).get("token") == me["token"]:
            path.unlink(missing_ok=True)


def check_free(folder: Path) -> None:
    """Refuse, without taking the lock, while another process is at work in the folder."""
    _refuse_another(Path(folder).resolve() / FILE)


def _take(path: Path) -> dict:
    now = time.time()
    me = {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "token": uuid.uuid4().hex,
        "beat": now,
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            _refuse_another(path)
            _clear(path)
            with suppress(FileExistsError), open(path, "xb") as file:
                file.write(json.dumps(me).encode())
                return me


def _refuse_another(path: Path) -> None:
    holder = _read(path)
    if holder and not _is_abandoned(holder):
        who = f"process {holder['pid']} on {holder['host']}" if "pid" in holder else "another process"
        since = f" since {holder['since']}" if "since" in holder else ""
        raise UserError(
            f"{path.parent} is in use: {who} is at work there{since}. Wait until its stage is done or stop that "
            "process, then run this again; or choose another RUN. (After a machine was lost its lock lasts "
            f"{STALE / 60:.0f} minutes.)"
        )


def _clear(path: Path) -> None:
    """Remove an abandoned lock. It is moved away first: of several that try, one removes it."""
    holder, away = _read(path), path.with_name(f"{FILE}.{uuid.uuid4().hex}")
    if not holder:
        return
    with suppress(FileNotFoundError):
        path.rename(away)
        if _read(away).get("token") == holder.get("token"):
            away.unlink()
        else:  # meanwhile somebody cleared it and took the lock: theirs again
            away.rename(path)


def _beat(path: Path, me: dict, done: threading.Event) -> None:
    while not done.wait(BEAT):
        if _read(path).get("token") == me["token"]:
            with suppress(UserError):  # a full disk is for the stage itself to report
                write_atomically(path, json.dumps(me | {"beat": time.time()}).encode())


def _read(path: Path) -> dict:
    """What a lock says; only a time where it is half written or cannot be read; nothing where there is none."""
    try:
        said = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, OSError):
        said = None
    with suppress(FileNotFoundError):
        return {"beat": path.stat().st_mtime} | (said if isinstance(said, dict) else {})
    return {}


def _is_abandoned(holder: dict) -> bool:
    if holder.get("machine") == _machine():
        return not _is_alive(holder["pid"], holder["started"])
    return time.time() - holder["beat"] > STALE


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
