"""The contest's files from the reference solution's public repository: whole and unchanged, or not at all.

A file appears under its name only after its size and sha256 were found right, so whatever interrupts a download leaves
nothing that a later run could take for a finished file.

    settings_for("auto", data=data_folder("contest"))      # any other name is taken as it is
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..files.journal import write_atomically, writing
from ..models.batching import progress
from ..settings import PROJECT

CONTEST = "contest"  # what a user writes as DATA
# One commit of github.com/tired-racoon/sirius_contest, so that what is fetched cannot change.
ADDRESS = "https://raw.githubusercontent.com/tired-racoon/sirius_contest/b652c19ec0d6252ed54099f82f8236b2314eb1d8/data"
FILES = {  # name: size in bytes, sha256
    "train.csv": (299_892, "bf6e133196fc1a96200dea066d63e43010f3fef09e4bf82b69f47887c0db951d"),
    "test.csv": (1_214_402, "2f5404e1c8058424f89cca512a196962aeb799c28c345fbf0a7e65278bfe5e84"),
    "categories.txt": (200, "846a3f730740911fe65c18484a90819b71ceb7ef0ca563920a9698da0971ec01"),
    "train_cat_tpro.csv": (327_285, "419c313e528f9059a57dc003a324f5afc2b759f2f13e05c8f2474f513a64459b"),
}
TRIES = 3
PAUSE = 2.0  # seconds before the second try; twice as long before the third
TIMEOUT = 30.0  # seconds without a byte


def data_folder(data: str, address: str = "") -> str:
    """The folder that DATA means: "contest" is fetched into data/contest/ of the project, anything else is as given.

    `address` replaces the folder on the web that the contest's files come from.
    """
    if data != CONTEST:
        return data
    folder = PROJECT / "data" / "contest"
    fetch(FILES, folder, address or ADDRESS)
    return str(folder)


def fetch(files: Mapping[str, tuple[int, str]], folder: Path, address: str) -> None:
    """Put the files of a web folder into a local one; those that are there already are only checked."""
    if not address.startswith(("https://", "http://")):
        raise UserError(f"the address {address!r} does not begin with https://; correct it.")
    missing = {name: known for name, known in files.items() if not _is_there(folder / name, known)}
    if not missing:
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with progress(sum(size for size, _ in missing.values()) // 1024, "fetch, KiB") as bar:
        for name, known in missing.items():
            write_atomically(folder / name, _download(f"{address.rstrip('/')}/{name}", known, folder / name))
            bar.update(known[0] // 1024)


def _is_there(path: Path, known: tuple[int, str]) -> bool:
    if path.exists() and _identity(path.read_bytes()) != known:
        raise UserError(
            f"{path} is not the contest's file (its size or sha256 differs). Move it away, and it is fetched again; "
            f"to work on a file of your own, write its folder's path as DATA instead of {CONTEST!r}."
        )
    return path.exists()


def _download(url: str, known: tuple[int, str], target: Path) -> bytes:
    """The content of a file that was found right; network trouble is met by another try."""
    by_hand = f"put the right {target.name} into {target.parent} yourself."
    for attempt in range(TRIES):
        time.sleep(PAUSE * attempt)
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                data: bytes = answer.read(known[0] + 1)  # one byte more than there should be shows a longer file
        except (OSError, http.client.HTTPException) as error:
            trouble = str(error) or type(error).__name__
            continue
        if _identity(data) == known:
            return data
        if len(data) >= known[0]:
            raise UserError(
                f"{url} is not the file it should be (its size or sha256 differs), so it was not kept. Correct the "
                f"address, or {by_hand}"
            )
        trouble = f"the download ended after {len(data):,} of {known[0]:,} bytes"
    raise UserError(f"{url} could not be fetched: {trouble}. Check the network and the address, or {by_hand}")


def _identity(data: bytes) -> tuple[int, str]:
    return len(data), hashlib.sha256(data).hexdigest()
