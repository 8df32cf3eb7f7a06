"""Models from a hub: a server on this machine that speaks its protocol, asked by an interpreter of its own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from sirius_helpers.loaders import loaded_revision
from sirius_helpers.models import CAUSAL_LM, ModelSpec
from sirius_helpers.settings import PROJECT

COMMIT = "c0ffee" + "0" * 34
# Label, and label once more as after a kill between the last batch and the stage's record.
WORK = """
import json, sys
from pathlib import Path
from sirius_helpers import labelers, labeling
from sirius_helpers.runs import Run
from sirius_helpers.models import ModelSpec
from sirius_helpers.settings import settings_for

hub, folder = ModelSpec("someone/encoder"), Path(sys.argv[1])
settings = settings_for("cpu", data=folder / "data", run="hub", checkpoints=folder, labeler=hub)
labeling.label(settings)
run, labelers.encoder = Run(settings.folder), None
recorded = [run.memory["stages"]["label"]["revision"]]
run.remember(stages={})
labeling.label(settings)
print(json.dumps(recorded + [run.memory["stages"]["label"]["revision"]]))
"""


class Hub(BaseHTTPRequestHandler):
    """One model, someone/encoder: what it is made of, and its files; everything else is not there."""

    def do_GET(self):
        files = {path.name: path.read_bytes() for path in self.server.folder.iterdir()}
        what = self.path.split("?")[0]
        if what.startswith("/api/models/someone/encoder/tree"):
            return self.answer(b"[]")
        if what.startswith("/api/models/someone/encoder"):
            siblings = [{"rfilename": name} for name in files]
            return self.answer(json.dumps({"id": "someone/encoder", "sha": COMMIT, "siblings": siblings}).encode())
        name = what.rsplit("/", 1)[-1]
        if "/resolve/" in what and name in files:
            return self.answer(files[name], ETag=f'"{hashlib.sha256(files[name]).hexdigest()}"')
        self.answer(b"", status=404, **{"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def answer(self, body, status=200, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def worked(tmp_path, data, roberta):
    """What an interpreter printed and reported that labelled with a model of the hub."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.folder = roberta
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"PYTHONPATH": str(PROJECT), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}
    environment |= {"TQDM_POSITION": "-1"}  # bars without a terminal, as in a notebook
    command = [sys.executable, "-c", WORK, tmp_path]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    thread.join()
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(revisions=json.loads(result.stdout.splitlines()[-1]), out=result.stdout, err=result.stderr)


def test_the_commit_is_recorded_even_after_a_kill_and_the_download_is_seen(worked):
    assert worked.revisions == [COMMIT, COMMIT]
    assert "model.safetensors: 100%" in worked.err
    assert "label: 100%" in worked.out


@pytest.mark.parametrize("spec", [ModelSpec(CAUSAL_LM), ModelSpec("."), ModelSpec("a/b", server="http://127.0.0.1:9")])
def test_what_is_from_no_hub_has_no_commit(spec):
    assert loaded_revision(spec) is None
