"""An append-only JSON Lines file: one record for each finished item, safe to kill at any moment.

Plain lines rather than a database, because the file may lie on a mounted Google Drive, where file locks do not
hold, and because a person can open it. Knows nothing of what the records mean.

    journal = Journal(folder / "labels.jsonl", fingerprint)
    journal.append([{"id": "a", "category": "обувь"}])
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .errors import UserError


def fingerprint(*parts) -> str:
    """Short hash of JSON-able values: equal settings give equal fingerprints."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Journal:
    """The records of one file that were made under one fingerprint.

    Records are appended in batches, and a batch counts whole or not at all: each record says how many of its
    batch are still to come (`batch_left`), and opening drops what a kill left of an unfinished batch, so that
    work continues on the same batches as an unbroken run. Records made under another fingerprint are kept but
    not used: their file is set aside as `<stem>.<fingerprint>.jsonl`, and comes back when the old settings do.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path, self.fingerprint = path, fingerprint
        path.parent.mkdir(parents=True, exist_ok=True)
        self.set_aside = self._change_over()
        self.records = read_records(path)
        self._cut_unfinished_batch()

    def append(self, records: Iterable[Mapping]) -> None:
        """Write records durably: when this returns they survive a kill."""
        records = list(records)
        if not records:
            return
        left = range(len(records) - 1, -1, -1)
        batch = [
            {**record, "fingerprint": self.fingerprint, "batch_left": n}
            for record, n in zip(records, left, strict=True)
        ]
        with open(self.path, "ab") as file:
            file.write(b"".join(_line(record) for record in batch))
            file.flush()
            os.fsync(file.fileno())
        self.records += batch

    def replace(self, records: Iterable[dict]) -> None:
        """Put records, chosen and ordered from the present ones, in place of the file's content, in one step."""
        self.records = [{**record, "batch_left": 0} for record in records]
        write_atomically(self.path, b"".join(_line(record) for record in self.records))

    def _aside(self, fingerprint: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{fingerprint}{self.path.suffix}")

    def _change_over(self) -> Path | None:
        """Set another fingerprint's file aside and bring our own back; returns where the other went."""
        aside = None
        first = next(iter(read_records(self.path)), None)
        if first is not None and first.get("fingerprint") != self.fingerprint:
            aside = self._aside(str(first.get("fingerprint", "unknown")))
            os.replace(self.path, aside)
        own = self._aside(self.fingerprint)
        if own.exists() and not self.path.exists():
            os.replace(own, self.path)
        return aside

    def _cut_unfinished_batch(self) -> None:
        whole = len(self.records)
        while whole and self.records[whole - 1].get("batch_left", 0):
            whole -= 1
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        if torn or whole < len(self.records):
            self.replace(self.records[:whole])


def read_records(path: Path) -> list[dict]:
    """All whole records of a JSON Lines file, without a torn last line."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")  # a line without its newline was cut short by a kill
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError:
            raise UserError(
                f"{path}, line {number} is not valid JSON; the file was changed or damaged. "
                "Delete that line (its item is then done again) or the whole file."
            ) from None
    return records


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _line(record: Mapping) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"
