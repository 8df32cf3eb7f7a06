"""Files that survive a kill or a full disk: a journal of records, one JSON line each, and files replaced in one step.

Plain lines rather than a database: on a mounted Google Drive file locks do not hold, and a person can open them.

    journal = Journal(folder / "labels.jsonl", fingerprint)
    journal.append([{"id": "a", "category": "обувь"}])
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError, refusal
from ..kinds import Json, JsonView


def fingerprint(*parts: object) -> str:
    """Short hash of JSON-able values: equal settings give equal fingerprints."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """The records of one file that were made under one fingerprint.

    Each says how many of its batch are still to come (`batch_left`): opening drops an unfinished batch. A file of
    another fingerprint is set aside as `<stem>.<fingerprint>.jsonl`, and comes back when the old settings do.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.set_aside = self._change_over()
            self.records, self._size = self._whole_batches()

    def append(self, records: Iterable[JsonView]) -> None:
        """Write a batch durably: when this returns it survives a kill, and when it fails none of it is there."""
        given = list(records)
        if not given:
            return
        left = reversed(range(len(given)))
        batch = [{**r, "fingerprint": self.fingerprint, "batch_left": n} for r, n in zip(given, left, strict=True)]
        data = _lines(batch)
        with writing(self.path), open(self.path, "ab", buffering=0) as file:
            if file.tell() != self._size:
                raise UserError(
                    f"{self.path} was changed by something else while this stage was at work. Make sure that nothing "
                    "else writes there, then run the stage again: it goes on with the whole records it finds."
                )
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:  # a full disk, or an interrupted cell
                file.truncate(self._size)
                raise
        self._size += len(data)
        self.records += batch

    def replace(self, records: Iterable[JsonView]) -> None:
        """Put records, chosen and ordered from the present ones, in place of the file's content, in one step."""
        self.records = [{**record, "batch_left": 0} for record in records]
        data = _lines(self.records)
        write_atomically(self.path, data)
        self._size = len(data)

    def _aside(self, fingerprint: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{fingerprint}{self.path.suffix}")

    def _change_over(self) -> Path | None:
        """Set another fingerprint's file aside and bring our own back; returns where the other went."""
        aside, own = None, self._aside(self.fingerprint)
        first = next(iter(read_records(self.path)), None)
        if first is not None and first.get("fingerprint") != self.fingerprint:
            name = str(first.get("fingerprint"))  # the file says so: it must stay a name in this folder
            aside = self._aside(name if re.fullmatch(r"\w{1,64}", name) else "unknown")
            os.replace(self.path, aside)
            first = None
        if first is None and own.exists():  # a file without a whole record hides nothing
            os.replace(own, self.path)
        return aside

    def _whole_batches(self) -> tuple[list[Json], int]:
        """The records up to the last finished batch and their bytes; what follows is cut off."""
        records = read_records(self.path)
        while records and records[-1].get("batch_left", 0):
            records.pop()
        data = self.path.read_bytes() if self.path.exists() else b""
        size = sum(len(line) + 1 for line in data.split(b"\n")[: len(records)])
        if size < len(data):
            os.truncate(self.path, size)
        return records, size


def read_records(path: Path) -> list[Json]:
    """All whole records of a JSON Lines file, without a torn last line."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")  # a line without its newline was cut short by a kill
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number} is not a JSON record; the file was changed or damaged. Delete that line (its "
                "item is then done again) or the whole file."
            )
        records.append(record)
    return records


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into that takes the place of `path` when the block ends well, and is gone otherwise."""
    part = path.with_name(path.name + ".part")
    with writing(path):
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line what the system refused to the work at `path`, and what to do; the rest stays what it is."""
    try:
        yield
    except Exception as error:
        if (refused := refusal(error)) is None:
            raise
        what, reason, remedy = refused
        place = f"{getattr(error, 'filename', None) or path} {what}" if what else "the work stopped"
        room = ""
        with suppress(OSError):  # where nobody may look
            free = shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free
            room = f" ({free / 2**20:.1f} MiB free)" if what == "could not be written" else ""
        raise UserError(
            f"{place}: {reason}{room}. {remedy}, then run the stage again; what was recorded there is kept."
        ) from error


def _lines(records: Iterable[JsonView]) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=False).encode() + b"\n" for record in records)
