"""Training in two processes that `accelerate launch` starts, against one; on the CPU, where they speak through gloo."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import write_split
from tiny_models import saved, tiny_roberta

from sirius_helpers.encoder.trainer import weighted_loss
from sirius_helpers.extras import launch
from sirius_helpers.files.runs import Run, begin
from sirius_helpers.settings import CAUSAL_LM, PROJECT, ModelSpec, Settings
from sirius_helpers.train import train


@pytest.fixture
def ready(settings, tmp_path):
    """Settings on a tiny model without dropout, whose draws would differ, and a split that a few epochs can learn."""
    saved(tmp_path / "roberta", tiny_roberta(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    rows = [(f"сапоги {n:02} промокли", "обувь", "train") for n in range(32)]
    rows += [(f"чашка {n:02} треснула", "посуда", "train") for n in range(32)]
    rows += [(f"сапоги {n} малы", "обувь", "validation") for n in range(40, 44)]
    rows += [(f"чашка {n} красивая", "посуда", "validation") for n in range(40, 44)]
    write_split(settings, rows)
    changes = {"classifier": ModelSpec(str(tmp_path / "roberta")), "epochs": 3, "learning_rate": 2e-3, "batch_size": 16}
    changes |= {"lora_dropout": 0.0, "max_tokens": 64}
    return replace(settings, **changes)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def test_two_processes_train_as_one_does_and_the_notebook_reuses_it(ready, tmp_path, capsys):
    alone = train(ready)
    assert not torch.distributed.is_initialized()
    both = replace(ready, run="both")
    split = Run(both.folder).path("split.csv")
    split.parent.mkdir(parents=True)
    split.write_bytes(Run(ready.folder).path("split.csv").read_bytes())
    begin(both)
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    options += ["--main_process_port", free_port()]
    paths = {"PYTHONPATH": str(PROJECT), "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [*accelerate, *options, "-m", "sirius_helpers.extras.launch", "--run", str(both.folder)],
        env=os.environ | paths | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    together = pd.read_csv(Run(both.folder).path("history.csv"))
    assert together["train_loss"].iloc[-1] < together["train_loss"].iloc[0]
    for name in ("train_loss", "validation_loss"):
        assert together[name].to_numpy() == pytest.approx(alone[name].to_numpy(), rel=0.03), name
    assert {p.name for p in both.folder.iterdir()} == {p.name for p in ready.folder.iterdir()}
    capsys.readouterr()
    train(both)
    assert "reused" in capsys.readouterr().out


def test_a_run_is_trained_on_its_own_settings_not_on_a_profiles(settings, monkeypatch):
    changes = {"epochs": 7, "classifier": ModelSpec(CAUSAL_LM, revision="abc"), "prompts": {"label": {"user": "?"}}}
    begin(replace(settings, **changes))
    trained = []
    monkeypatch.setattr(launch, "train", trained.append)
    monkeypatch.setattr(Settings, "checkpoints", settings.checkpoints)
    assert launch.main(["--run", "test"]) == launch.main(["--run", str(settings.folder)]) == 0
    assert trained == [replace(settings, **changes)] * 2


def test_a_run_that_never_began_is_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Settings, "checkpoints", tmp_path)
    assert launch.main(["--run", "absent"]) == 2
    assert capsys.readouterr().err.endswith(
        "absent/run.json is missing or holds no settings of this version; run the notebook's cells under 'Settings' "
        "first: they write it.\n"
    )


@pytest.mark.parametrize(
    ("processes", "place", "message"),
    [
        (2, 1, ""),
        (2, 2, "each process needs a GPU of its own, and 2 are visible"),
        (3, 1, "a batch of 16 texts cannot be shared by 3 processes"),
    ],
)
def test_processes_that_share_no_batch_or_a_gpu_are_refused(settings, monkeypatch, capsys, processes, place, message):
    begin(replace(settings, device="cuda", batch_size=16))
    trained = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "train", trained.append)
    launched = SimpleNamespace(num_processes=processes, local_process_index=place)
    monkeypatch.setattr(launch, "PartialState", lambda cpu, timeout: launched)
    assert launch.main(["--run", str(settings.folder)]) == (2 if message else 0)
    assert message in capsys.readouterr().err and bool(trained) == (not message)


def test_the_class_weights_are_where_the_logits_are():
    outputs = SimpleNamespace(logits=torch.empty(3, 2, device="meta"))
    loss = weighted_loss(torch.tensor([0.5, 1.5]), label_smoothing=0.05)
    target, rows = torch.empty(3, 2, device="meta"), torch.tensor(6, device="meta")
    assert loss(outputs, target, rows).device.type == "meta"
