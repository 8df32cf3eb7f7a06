"""Models from a hub: a server on this machine that speaks its protocol, asked by interpreters of their own."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
from conftest import answering
from tiny_models import tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.files.runs import Run, pinned
from sirius_helpers.models import hub
from sirius_helpers.settings import CAUSAL_LM, PROJECT, ModelSpec, t4

OLD, MAIN, MOVED, PR, STALE = (letter * 40 for letter in "abcde")
DUPLICATES = {"pytorch_model.bin": b"pickle", "tf_model.h5": b"keras", "onnx/model.onnx": b"onnx", "README.md": b"#"}

# What every interpreter begins with: a folder, and settings of the t4 profile's kind on the hub's tiny models.
BEGIN = """
import json, sys
from dataclasses import replace
from pathlib import Path
from sirius_helpers.show import evidence
from sirius_helpers.files import runs
from sirius_helpers.errors import UserError
from sirius_helpers.label import label
from sirius_helpers.settings import ModelSpec
from sirius_helpers.files.runs import Run, pinned
from sirius_helpers.settings import settings_for
folder, said = Path(sys.argv[1]), {}
quick = {"epochs": 1, "warmup_share": 0.0, "batch_size": 4, "max_tokens": 32, "bootstrap": 5, "split": "seed"}
quick |= {"max_synthetic": 2, "max_attempts": 2, "max_new_tokens": 6, "judge_draws": 1, "length_slack": 1_000}
quick |= {"min_length_ratio": 0.0, "min_cyrillic": 0.0, "max_copy_similarity": 100.0, "validation_share": 0.3}
quick |= {"labeler": ModelSpec("some/encoder"), "writer": ModelSpec("some/writer", chat=True)}
quick |= {"classifier": ModelSpec("some/pickle", revision=None), "run": "hub", "checkpoints": folder / "runs"}
settings = settings_for("cpu", data=folder / "data", **quick)
def attempt(name, work):
    try:
        said[name] = work()
    except UserError as error:
        said[name] = f"UserError: {error}"
"""
# The settings cell, and every stage.
RUN = """
from sirius_helpers.augment import augment
from sirius_helpers.evaluate import evaluate
from sirius_helpers.predict import predict
from sirius_helpers.split import split
from sirius_helpers.review import review
from sirius_helpers.train import train
settings = pinned(settings)
runs.begin(settings)
said["table"] = evidence.hub_models(settings)
for stage in (label, review, augment, split, train, evaluate, predict):
    stage(settings)
said["afterwards"] = evidence.hub_models(replace(settings, run="another"))
"""
# Each stage by itself, without the settings cell; the three lines of the README; another run.
AGAIN = """
from sirius_helpers.encoder.classifier import Classifier
from sirius_helpers.train import train
label(settings)
train(settings)
with Classifier.load(folder / "runs/hub/adapter", device="cpu") as classifier:
    said["classified"] = len(classifier(["Сапоги промокают"]))
other = replace(settings, run=sys.argv[2])
label(other)
said["commit"] = Run(other.folder).memory["hub"]["labeler"]["commit"]
attempt("not here", lambda: label(replace(other, labeler=ModelSpec("some/other"))))
"""
# Models that cannot be had, one that comes at the second try, a pin that is gone, and a hub that has moved on.
REFUSED = """
import os, time, urllib.request
from sirius_helpers.loaders import load_tokenizer
time.sleep = lambda seconds: None  # between the tries of a download
def labelled(name, run, **spec):
    changed = replace(settings, run=run, labeler=ModelSpec(name, **spec))
    label(changed)
    return Run(changed.folder).memory["stages"]["label"]["revision"]
for name in json.loads(sys.argv[2]):
    attempt(name, lambda: labelled(name, name.replace("/", "-")))
urllib.request.urlopen(os.environ["HF_ENDPOINT"] + "/heal")
attempt("healed", lambda: labelled("some/cut", "some-cut"))
attempt("pin", lambda: labelled("some/encoder", "pin", revision="f" * 40))
open(folder / "mine.csv", "w").close()
imported = replace(settings, run="imported", labels=folder / "mine.csv", labeler=ModelSpec("some/nowhere"))
attempt("imported", lambda: pinned(imported).labeler.revision)
served = replace(settings, run="served", labeler=ModelSpec("some/alone", server="http://127.0.0.1:9"))
attempt("served", lambda: [pinned(served).labeler.revision, len(load_tokenizer(served.labeler))])
attempt("moved on", lambda: labelled("some/encoder", "hub"))
"""
END = "print(json.dumps(said))"


@dataclass
class Model:
    """A repository: the files of each commit, what the revisions mean, the pull requests, who may read it."""

    commits: dict[str, dict[str, bytes]]  # the oldest first
    refs: dict[str, str]
    parents: dict[str, str] = field(default_factory=dict)
    offers: list[tuple[int, str]] = field(default_factory=list)  # number, author
    access: str = "open"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's protocol that is used: listings, pull requests, commits, files."""

    def do_GET(self):
        if self.path == "/heal":
            self.server.broken = False
            return self.answer(b"")
        parts = [unquote(part) for part in self.path.split("?")[0].strip("/").split("/")]
        api = parts[:2] == ["api", "models"]
        name, what, *rest = ["/".join(parts[2:4]), *parts[4:], ""] if api else ["/".join(parts[:2]), *parts[2:]]
        model = self.server.models.get(name)
        if model is None:
            return self.answer(b"", 404, **{"X-Error-Code": "RepoNotFound"})
        if model.access == "private":  # what the hub says of names that do not exist, too
            return self.answer(b"", 401)
        if what == "auth-check":
            return self.answer(b"", 403, **{"X-Error-Code": "GatedRepo"})
        if what == "discussions" and model.access == "closed":
            return self.answer(b"", 403)
        if what == "discussions":
            return self.say({"count": len(model.offers), "start": 0, "discussions": [*map(offer, model.offers)]})
        revision = rest[0] if rest and rest[0] else "main"
        commit = model.refs.get(revision, revision)
        if commit not in model.commits:
            return self.answer(b"", 404, **{"X-Error-Code": "RevisionNotFound"})
        if what == "commits":
            history = [commit, model.parents.get(commit, OLD)]
            return self.say([{"id": one, "authors": [], "date": DATE, "title": "", "message": ""} for one in history])
        files = model.commits[commit]
        if what == "resolve":
            return self.file(commit, "/".join(rest[1:]), files)
        siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        self.say(
            {"id": name, "sha": commit, "siblings": siblings, "gated": "auto" if model.access == "gated" else False}
        )

    do_HEAD = do_GET

    def file(self, commit, name, files):
        self.server.asked.append((self.command, commit, name))
        if name not in files:
            return self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})
        etag = hashlib.sha256(files[name]).hexdigest()
        cut = self.server.broken and "/some/cut/" in self.path and name == "model.safetensors"
        self.answer(files[name], cut=cut, **{"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def say(self, content):
        self.answer(json.dumps(content).encode())

    def answer(self, body, status=200, cut=False, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)


DATE = "2024-01-01T00:00:00.000Z"


def offer(what):
    number, author = what
    return {
        "num": number,
        "title": "Adding `safetensors` variant of this model",
        "author": {"name": author},
        "createdAt": DATE,
        "status": "open",
        "repo": {"name": "", "type": "model"},
        "isPullRequest": True,
    }


def files_of(folder, *without):
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in without}
    return files | DUPLICATES


@pytest.fixture(scope="module")
def models(roberta, tmp_path_factory):
    """Owner/name -> repository, one for each shape."""
    folder = tmp_path_factory.mktemp("writer")
    model, tokenizer = tiny_qwen2()
    model.save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2
    whole, pickle = files_of(roberta), files_of(roberta, "model.safetensors")
    bot = [(1, "someone"), (2, hub.BOT), (3, hub.BOT)]  # nobody's, an old one, the one on top of main
    return {
        "some/encoder": Model({MAIN: whole}, {"main": MAIN}),
        "some/writer": Model({MAIN: files_of(folder)}, {"main": MAIN}),
        "some/pickle": Model(
            {MAIN: pickle, STALE: whole, PR: whole},
            {"main": MAIN, "refs/pr/1": PR, "refs/pr/2": STALE, "refs/pr/3": PR},
            {PR: MAIN, STALE: OLD},
            bot,
        ),
        "some/alone": Model({MAIN: pickle, STALE: whole}, {"main": MAIN, "refs/pr/2": STALE}, {STALE: OLD}, bot[1:2]),
        "some/stranger": Model({MAIN: pickle, PR: whole}, {"main": MAIN, "refs/pr/1": PR}, {PR: MAIN}, bot[:1]),
        "some/closed": Model({MAIN: pickle}, {"main": MAIN}, access="closed"),  # to pull requests
        "some/torn": Model({MAIN: files_of(folder, shards[1])}, {"main": MAIN}),
        "some/private": Model({}, {}, access="private"),
        "some/gated": Model({MAIN: whole}, {"main": MAIN}, access="gated"),
        "some/cut": Model({MAIN: whole}, {"main": MAIN}),
    }


@pytest.fixture(scope="module")
def site(models):
    """The hub, answering; `asked` tells which files were wanted."""
    with answering(Hub, models=models, asked=[], broken=True) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where runs and the cache lie, with two categories and a dozen reviews."""
    folder = tmp_path_factory.mktemp("hub")
    (folder / "data").mkdir()
    shoes = [f"Сапоги номер {n} промокают" for n in range(8)]
    dishes = [f"Тарелка номер {n} разбилась" for n in range(5)]
    for name, rows in {"train": [*shoes, *dishes], "test": ["Ботинки малы", "Чашка с трещиной"]}.items():
        (folder / "data" / f"{name}.csv").write_text("\n".join(["text", *rows]), encoding="utf-8")
    (folder / "data" / "categories.toml").write_text(
        '[[category]]\nlabel = "обувь"\nexamples = ["сапоги промокают", "ботинки малы"]\n'
        '[[category]]\nlabel = "посуда"\nexamples = ["тарелка разбилась", "чашка красивая"]\n',
        encoding="utf-8",
    )
    return folder


def interpreter(code, folder, *arguments, endpoint, **environment):
    """What a fresh interpreter printed and found."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    kept |= {"PYTHONPATH": str(PROJECT), "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    kept |= {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": endpoint, "TQDM_POSITION": "-1"}  # the last: bars as in a notebook
    command = [sys.executable, "-c", BEGIN + code + END, folder, *arguments]
    result = subprocess.run(command, env=kept | environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(said=json.loads(result.stdout.splitlines()[-1]), out=result.stdout, err=result.stderr)


def address(site):
    return f"http://127.0.0.1:{site.server_port}"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def worked(site, folder):
    """A whole run on three models of the hub: safetensors on main, shards, and a pickle with the bot's pull request."""
    return interpreter(RUN, folder, endpoint=address(site))


def test_a_runs_commits_are_found_first_and_used_by_every_stage_and_the_adapter(worked, folder):
    run = folder / "runs" / "hub"
    memory, adapter = read(run / "run.json"), read(run / "adapter" / "config.json")
    found = {"labeler": MAIN, "writer": MAIN, "classifier": PR}
    assert {role: memory["hub"][role]["commit"] for role in found} == found
    assert {role: memory["models"][role]["revision"] for role in found} == found
    stages = {"labeler": "label", "writer": "augment", "classifier": "train"}
    assert {role: memory["stages"][stage]["revision"] for role, stage in stages.items()} == found
    assert adapter["base"]["name"] == "some/pickle" and adapter["base"]["revision"] == PR
    assert worked.out.count(f"safetensors of the hub's {hub.BOT} are taken, pull request 3, commit {PR[:7]}") == 1
    assert PR in (run / "model_card.md").read_text(encoding="utf-8")
    assert (run / "submission.csv").exists()
    traces = [path for path in run.rglob("*") if path.is_file() and str(folder / "cache").encode() in path.read_bytes()]
    assert not traces  # of the machine


def test_only_what_is_used_is_downloaded_once_and_from_those_commits(worked, site):
    fetched = [(commit, name) for command, commit, name in site.asked if command == "GET"]
    assert {name for _, name in fetched} & DUPLICATES.keys() == set()
    assert {commit for commit, name in fetched if name == "model.safetensors"} == {MAIN, PR}
    assert len([name for _, name in fetched if name.startswith("model-0000")]) > 2


def test_the_download_is_announced_and_seen(worked):
    table, afterwards = worked.said["table"], worked.said["afterwards"]
    assert re.fullmatch(
        rf"commit {PR}; \d+kB, to download: \d+kB; in memory: 0\.0 GiB", table["classifier, from the hub"]
    )
    assert re.fullmatch(r"\d+kB; free on the disk: .*GB", table["to download"])
    assert afterwards["to download"].startswith("nothing; free on the disk")
    assert "model.safetensors: 100%" in worked.err
    assert "label: 100%" in worked.out


@pytest.mark.parametrize("way", ["offline", "silent"])
def test_what_is_in_the_cache_needs_no_network(worked, folder, way):
    told = {"HF_HUB_OFFLINE": "1"} if way == "offline" else {}
    again = interpreter(AGAIN, folder, way, endpoint="http://127.0.0.1:9", **told)
    assert again.said["classified"] == 1 and again.said["commit"] == MAIN
    assert "were labelled earlier; reused" in again.out and "was trained earlier" in again.out
    assert "some/other" in again.said["not here"] and "Check the network" in again.said["not here"]


REFUSALS = {
    "some/private": "is private: .*HF_TOKEN",
    "some/gated": "accept its terms at http.*/some/gated",
    "some/nowhere": "check the name",
    "a/b/c": "neither a folder here nor",
    "some/alone": f"no whole .*safetensors weights.*{hub.BOT}.*convert, .*another model",
    "some/stranger": "no whole .*safetensors",
    "some/closed": "no whole .*safetensors",
    "some/torn": "no whole .*safetensors",
    "some/cut": "model.safetensors of the model 'some/cut' could not be downloaded .*finished files are kept",
}


@pytest.fixture(scope="module")
def refused(site, models, worked, folder):
    """The hub has moved on since `worked`: another README."""
    encoder = models["some/encoder"]
    encoder.commits[MOVED], encoder.refs["main"] = encoder.commits[MAIN] | {"README.md": b"# more"}, MOVED
    return interpreter(REFUSED, folder, json.dumps(list(REFUSALS)), endpoint=address(site))


@pytest.mark.parametrize(("name", "message"), REFUSALS.items())
def test_what_cannot_be_had_is_refused_in_a_line_before_anything_is_labelled(refused, folder, name, message):
    said = refused.said[name]
    assert re.search(f"UserError: .*{message}", said) and "\n" not in said
    assert not (folder / "runs" / name.replace("/", "-") / "labels.jsonl").exists() or name == "some/cut"


def test_imported_labels_need_no_labeler_and_a_served_model_only_its_tokenizer(refused):
    assert refused.said["imported"] is None
    assert refused.said["served"] == [MAIN, 400]


def test_a_download_that_was_cut_off_comes_with_the_next_try(refused):
    assert refused.said["healed"] == MAIN


def test_a_pin_that_is_gone_gives_way_to_main_and_says_so(refused):
    assert refused.said["pin"] == MOVED
    assert refused.out.count(f"some/encoder: the hub has no revision {'f' * 40}") == 1


def test_a_run_keeps_to_its_commit_when_the_hub_moves_on_and_says_so(refused):
    assert refused.said["moved on"] == MAIN
    assert f"the run keeps to commit {MAIN[:7]}; the hub has {MOVED[:7]} by now" in refused.out
    assert "all 13 reviews were labelled earlier" in refused.out


# Nobody answers at the address, too, but that is not what stops these.
HERE = """
import errno, os, resource
from huggingface_hub import constants
from sirius_helpers.models.hub import fetch, source_of
def allowed(limit, value):
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
cache = Path(constants.HF_HUB_CACHE)
allowed(resource.RLIMIT_FSIZE, 0)
attempt("full", lambda: source_of(ModelSpec("some/writer")).commit)
attempt("full, of one file", lambda: str(fetch(source_of(ModelSpec("some/encoder")), weights=True)))
allowed(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
allowed(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) - 1)
attempt("files", lambda: source_of(ModelSpec("some/pickle")).commit)
allowed(resource.RLIMIT_NOFILE, 256)
cache.mkdir(parents=True, exist_ok=True)
cache.chmod(0)
root = os.geteuid() == 0
os.seteuid(65534) if root else None
attempt("rights", lambda: source_of(ModelSpec("some/writer", revision="a" * 40)).commit)
os.seteuid(0) if root else None
cache.chmod(0o700)
"""


@pytest.fixture(scope="module")
def hindered(site, folder, tmp_path_factory):
    """What is said where this machine is the matter, and the hub does answer."""
    own = tmp_path_factory.mktemp("hindered")
    return interpreter(HERE, folder, endpoint=address(site), HF_HOME=str(own)).said, own


@pytest.mark.parametrize(
    ("what", "model", "cause"),
    [
        ("full", "some/writer", r"File too large\)\. Free some space, then run this again"),
        ("files", "some/pickle", r"Too many open files\)\. Restart the kernel, which closes them, or allow more"),
        ("rights", "some/writer", r"Permission denied\)\. Give yourself the right to it, then run this again"),
    ],
)
def test_what_this_machine_refuses_is_not_said_to_be_the_hubs_silence(hindered, what, model, cause):
    said, own = hindered
    place = re.escape(f"UserError: model '{model}' was found neither in the cache {own}/hub nor on the hub (")
    assert re.match(place + cause, said[what])
    assert "network" not in said[what] and "\n" not in said[what]


def test_a_download_for_which_there_is_no_room_says_so(hindered):
    pattern = "of the model 'some/encoder' could not be downloaded .File too large.. Free some space, then"
    assert re.search(pattern, hindered[0]["full, of one file"])


@pytest.mark.parametrize("spec", [ModelSpec(CAUSAL_LM), ModelSpec(".")])
def test_embedded_models_and_folders_are_not_the_hubs(spec):
    assert not spec.on_hub


def test_a_finished_run_needs_neither_hub_nor_cache_and_an_unfinished_one_is_refused(settings):
    settings, run = replace(settings, labeler=ModelSpec("some/nowhere")), Run(settings.folder)
    run.remember(hub={"labeler": {"name": "some/nowhere", "asked": None, "commit": MAIN}})
    with pytest.raises(UserError, match="'some/nowhere' was found neither in the cache"):
        pinned(settings)
    run.remember(stages={"label": {"fingerprint": "done", "files": {}}})
    assert pinned(settings).labeler.revision == MAIN


def test_models_larger_than_the_disk_are_refused(monkeypatch):
    monkeypatch.setattr(hub, "free_disk", lambda: 10**9)
    source = hub.Source("some/large", MAIN, {"model.safetensors": 2 * 10**9})
    with pytest.raises(UserError, match=r"need 2\.00GB .* and 1\.00GB are free.*HF_HOME"):
        hub.check_disk([source, source])


def test_the_t4_profile_pins_the_commits_that_are_known():
    pins = {role: t4()[role].revision for role in ("labeler", "writer", "classifier")}
    assert pins["labeler"] is None and all(len(pin) == 40 for role, pin in pins.items() if role != "labeler")
