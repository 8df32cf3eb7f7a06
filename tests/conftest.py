"""Shared by all tests: no network, a run folder of one's own, settings on tiny models."""

import errno
import gc
import os
import resource
import tempfile
from contextlib import contextmanager, suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import pytest
import torch
from tiny_models import saved, tiny_roberta

from sirius_helpers.settings import settings_for

# The longest files: begun last, they would keep one of the two processes at work alone.
FIRST = ("test_pipeline.py", "test_scaleout.py", "test_survival.py", "test_memory.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_collection_finish(session):
    """Every release of a model collects garbage; the libraries imported by now are none (half of the time saved)."""
    gc.freeze()


@pytest.fixture(scope="session")
def roberta(tmp_path_factory):
    """A random RoBERTa of the t4 profile's architecture, as a local folder."""
    folder = tmp_path_factory.mktemp("roberta")
    saved(folder, tiny_roberta())
    return folder


@pytest.fixture
def data(tmp_path):
    """A data folder with two categories and a handful of reviews."""
    folder = tmp_path / "data"
    folder.mkdir()
    shoes = [f"Сапоги номер {n} промокают" for n in ("один", "два", "три", "четыре", "пять")]
    dishes = [f"Тарелка {word} разбилась" for word in ("белая", "синяя", "красная")]
    write_csv(folder / "train.csv", "text", [*shoes, *dishes])
    write_csv(folder / "test.csv", "text", ["Ботинки малы", "Чашка с трещиной"])
    (folder / "categories.toml").write_text(
        '[[category]]\nlabel = "обувь"\ndescription = "всё, что носят на ногах"\n'
        'examples = ["сапоги промокают", "ботинки малы"]\naliases = ["туфли"]\n'
        '[[category]]\nlabel = "посуда"\nexamples = ["тарелка разбилась", "чашка красивая"]\n',
        encoding="utf-8",
    )
    return folder


@pytest.fixture
def other_disk(tmp_path):
    """A folder from which nothing can be renamed into `tmp_path`: it lies on another file system."""
    (tmp_path / "here").touch()
    for place in ("/dev/shm", "/run", "/var/tmp", Path.home(), Path.cwd()):
        with suppress(OSError), tempfile.TemporaryDirectory(dir=place) as folder:
            try:
                os.rename(tmp_path / "here", Path(folder, "there"))
            except OSError as error:
                if error.errno == errno.EXDEV:
                    (tmp_path / "here").unlink()
                    yield Path(folder)
                    return
            else:
                os.rename(Path(folder, "there"), tmp_path / "here")
    pytest.fail(f"every folder is on the file system of {tmp_path}; choose another with --basetemp")


@pytest.fixture
def settings(tmp_path, data):
    """CPU settings that write below tmp_path, without second opinions."""
    return settings_for("cpu", data=data, run="test", checkpoints=tmp_path / "checkpoints", second_labeler=None)


def write_csv(path, header, rows):
    """A CSV with one quoted column (or whole lines, where rows hold commas of their own)."""
    path.write_text("\n".join([header, *(f'"{row}"' for row in rows)]) + "\n", encoding="utf-8")


def write_split(settings, rows):
    """The run's split.csv of (text, category, part), each row an original of its own."""
    table = pd.DataFrame(rows, columns=["text", "category", "part"]).assign(synthetic=False)
    settings.folder.mkdir(parents=True)
    table.assign(source_id=range(len(table))).to_csv(settings.folder / "split.csv", index=False)


def labelled(counts):
    """Labels, so many a category: columns id, text, category."""
    rows = [(f"{name}-{i}", f"отзыв {i} о {name}", name) for name, n in counts.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["id", "text", "category"])


@pytest.fixture
def poison(tmp_path):
    """An object whose pickle leaves the file "was run" when it is loaded by `pickle`: no test may leave it."""

    class Poison:
        def __reduce__(self):
            return (tmp_path.joinpath("was run").touch, ())

    yield Poison()
    assert not (tmp_path / "was run").exists()


@contextmanager
def answering(handler, **facts):
    """A web server on this machine until the block ends; the handler finds the facts in `self.server`."""
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    vars(server).update(facts)
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def no_file_longer_than(size):
    """The system writes up to here and refuses the rest, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.fixture(scope="module")
def quick():
    """Tiny models spend their time waiting for idle threads, and on garbage collection in imported modules."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)
