"""The contest's files, fetched from a server on this machine that can lie, break off and be absent."""

import hashlib
import urllib.request
from http.server import BaseHTTPRequestHandler

import pytest
from conftest import answering

from sirius_helpers import __main__
from sirius_helpers.errors import UserError
from sirius_helpers.extras import contest
from sirius_helpers.extras.contest import ADDRESS, FILES, data_folder, fetch

CONTENT = {"train.csv": "text\nСапоги\n".encode(), "test.csv": b"text\n" + b"x" * 200_000}
KNOWN = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT under /data/; `faults` are behaviours for the next requests, in order."""

    def do_GET(self):
        name = self.path.removeprefix("/data/")
        self.server.asked.append(name)
        fault = self.server.faults.pop(0) if self.server.faults else None
        data = CONTENT.get(name)
        if data is None or fault == "error":
            self.send_error(404 if data is None else 503)
            return
        sent = {"wrong": data[::-1], "longer": data + b"more", "shorter": data[:-4]}.get(fault, data)
        self.send_response(200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent[: len(sent) // 2] if fault == "breaks off" else sent)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(contest, "PAUSE", 0.0)
    with answering(Handler, faults=[], asked=[]) as server:
        server.address = f"http://127.0.0.1:{server.server_port}/data"
        yield server


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_files_are_fetched_once_and_then_only_checked(server, tmp_path):
    for _ in range(2):
        fetch(KNOWN, tmp_path / "contest", server.address + "/")
    assert {name: (tmp_path / "contest" / name).read_bytes() for name in CONTENT} == CONTENT
    assert server.asked == ["train.csv", "test.csv"] and names(tmp_path / "contest") == sorted(CONTENT)


@pytest.mark.parametrize("fault", ["wrong", "longer", "shorter"])
def test_a_file_with_another_content_is_refused_at_once_and_not_kept(server, tmp_path, fault):
    server.faults = [fault]
    with pytest.raises(UserError, match="train.csv could not be fetched: The SHA256 .* differs .*or put the right"):
        fetch(KNOWN, tmp_path, server.address)
    assert names(tmp_path) == [] and len(server.asked) == 1


@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("fault", ["breaks off", "error"])
def test_a_download_that_breaks_off_is_tried_again(server, tmp_path, fault):
    server.faults = [fault, fault]
    fetch(KNOWN, tmp_path, server.address)
    assert server.asked == ["train.csv"] * 3 + ["test.csv"] and names(tmp_path) == sorted(CONTENT)


@pytest.mark.filterwarnings("ignore:Retry downloading")
@pytest.mark.parametrize("fault", ["breaks off", "error"])
def test_a_download_that_always_breaks_off_leaves_what_was_whole_before_and_nothing_else(server, tmp_path, fault):
    server.faults = [None, fault, fault, fault]
    with pytest.raises(UserError, match="test.csv could not be fetched: .* put the right test.csv into .* yourself"):
        fetch(KNOWN, tmp_path, server.address)
    assert names(tmp_path) == ["train.csv"]
    fetch(KNOWN, tmp_path, server.address)
    assert names(tmp_path) == sorted(CONTENT) and server.asked.count("train.csv") == 1


@pytest.mark.filterwarnings("ignore:Retry downloading")
def test_no_network_is_one_line_with_the_remedy(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match="could not be fetched: .*refused.* Check the network, the disk and"):
        fetch(KNOWN, tmp_path, server.address)


def test_an_interrupted_download_leaves_no_file(server, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(urllib.request, "urlopen", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch(KNOWN, tmp_path, server.address)
    assert names(tmp_path) == []


def test_a_file_of_ones_own_in_the_contests_place_is_named_and_left_alone(server, tmp_path):
    (tmp_path / "train.csv").write_bytes(b"text\nmine\n")
    with pytest.raises(UserError, match="train.csv is not the contest's file .* write its folder's path as DATA"):
        fetch(KNOWN, tmp_path, server.address)
    assert (tmp_path / "train.csv").read_bytes() == b"text\nmine\n" and server.asked == []


@pytest.mark.parametrize("address", ["file:///etc", "data/contest", "ftp://host/data"])
def test_only_web_addresses_are_fetched_from(tmp_path, address):
    with pytest.raises(UserError, match="does not begin with https://"):
        fetch(KNOWN, tmp_path, address)


def test_the_name_contest_means_the_fetched_folder_and_any_other_name_itself(server, tmp_path, monkeypatch):
    monkeypatch.setattr(contest, "PROJECT", tmp_path)
    monkeypatch.setattr(contest, "FILES", KNOWN)
    assert data_folder("contest", server.address) == str(tmp_path / "data" / "contest")
    assert names(tmp_path / "data" / "contest") == sorted(CONTENT)
    assert [data_folder(name) for name in ("data/contest", "", "mine")] == ["data/contest", "", "mine"]
    assert server.asked == ["train.csv", "test.csv"]


def test_make_run_fetches_the_contest_before_a_kernel_starts(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(contest, "PROJECT", tmp_path)
    monkeypatch.setattr(contest, "FILES", KNOWN)
    monkeypatch.setattr(contest, "ADDRESS", server.address)
    server.faults = ["wrong"]
    assert __main__.main(["--data", "contest"]) == 2
    assert "could not be fetched: The SHA256" in capsys.readouterr().err and server.asked == ["train.csv"]


def test_the_known_files_are_those_of_one_commit():
    assert len(ADDRESS.split("/")[-2]) == 40
    assert sorted(FILES) == ["categories.txt", "test.csv", "train.csv", "train_cat_tpro.csv"]
    assert all(len(known) == 64 for known in FILES.values())
