"""The contest's files from the reference solution's public repository: whole and unchanged, or not at all.

settings_for("auto", data=data_folder("contest"))      # any other name is taken as it is
"""

import socket
from collections.abc import Mapping
from pathlib import Path

from sklearn.datasets import fetch_file

from ..errors import UserError
from ..files.journal import writing
from ..files.runs import digest
from ..settings import PROJECT

# One commit of github.com/tired-racoon/sirius_contest, so that what is fetched cannot change.
ADDRESS = "https://raw.githubusercontent.com/tired-racoon/sirius_contest/b652c19ec0d6252ed54099f82f8236b2314eb1d8/data"
FILES = {  # name: sha256
    "train.csv": "bf6e133196fc1a96200dea066d63e43010f3fef09e4bf82b69f47887c0db951d",
    "test.csv": "2f5404e1c8058424f89cca512a196962aeb799c28c345fbf0a7e65278bfe5e84",
    "categories.txt": "846a3f730740911fe65c18484a90819b71ceb7ef0ca563920a9698da0971ec01",
    "train_cat_tpro.csv": "419c313e528f9059a57dc003a324f5afc2b759f2f13e05c8f2474f513a64459b",
}
PAUSE = 2  # seconds before a download that broke off is tried again


def data_folder(data: str, address: str = "") -> str:
    """The folder that DATA means: "contest" is fetched (from `address`) into data/contest/, any other is as given."""
    if data != "contest":
        return data
    folder = PROJECT / "data" / "contest"
    fetch(FILES, folder, address or ADDRESS)
    return str(folder)


def fetch(files: Mapping[str, str], folder: Path, address: str) -> None:
    """Put the files of a web folder into a local one, each only once its sha256 is right; those there are checked."""
    if not address.startswith(("https://", "http://")):
        raise UserError(f"the address {address!r} does not begin with https://; correct it.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, known in files.items():
        path, url = folder / name, f"{address.rstrip('/')}/{name}"
        if path.exists() and digest(path) != known:
            raise UserError(
                f"{path} is not the contest's file (its sha256 differs). Move it away, and it is fetched again; to "
                "work on a file of your own, write its folder's path as DATA."
            )
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(30)  # seconds without a byte
        try:
            fetch_file(url, folder, local_filename=name, sha256=known, n_retries=2, delay=PAUSE)
        except OSError as error:
            raise UserError(
                f"{url} could not be fetched: {error}. Check the network, the disk and the address, or put the right "
                f"{name} into {folder} yourself."
            ) from error
        finally:
            socket.setdefaulttimeout(before)
