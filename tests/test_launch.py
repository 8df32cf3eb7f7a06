"""Training in two processes that `accelerate launch` starts, against one; on the CPU, where they speak through gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tiny_models import tiny_roberta

from sirius_helpers import launch, processes
from sirius_helpers.models import ModelSpec
from sirius_helpers.runs import Run
from sirius_helpers.settings import PROJECT, Settings
from sirius_helpers.training import train

SCRIPT = """
import json, sys
from pathlib import Path
from sirius_helpers.models import ModelSpec
from sirius_helpers.settings import Settings
from sirius_helpers.training import train
values = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
for role in ("labeler", "writer", "classifier"):
    values[role] = ModelSpec(**values[role])
for folder in ("data", "checkpoints"):
    values[folder] = Path(values[folder])
train(Settings(**values))
"""


@pytest.fixture
def ready(settings, tmp_path):
    """Settings on a tiny model without dropout, whose draws would differ, and a split that a few epochs can learn."""
    for part in tiny_roberta(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0):
        part.save_pretrained(tmp_path / "roberta")
    rows = [(f"сапоги {n:02} промокли", "обувь", "train") for n in range(32)]
    rows += [(f"чашка {n:02} треснула", "посуда", "train") for n in range(32)]
    rows += [(f"сапоги {n} малы", "обувь", "validation") for n in range(40, 44)]
    rows += [(f"чашка {n} красивая", "посуда", "validation") for n in range(40, 44)]
    table = pd.DataFrame(rows, columns=["text", "category", "part"]).assign(synthetic=False)
    run = Run(settings.folder)
    run.folder.mkdir(parents=True)
    table.assign(source_id=range(len(table))).to_csv(run.path("split.csv"), index=False)
    changes = {"classifier": ModelSpec(str(tmp_path / "roberta")), "epochs": 3, "learning_rate": 2e-3, "batch_size": 16}
    changes |= {"lora_dropout": 0.0, "max_tokens": 64}
    return Settings(**{**vars(settings), **changes})


def test_two_processes_train_as_one_does(ready, tmp_path):
    alone = train(ready)
    both = Settings(**{**vars(ready), "run": "both"})
    split = Run(both.folder).path("split.csv")
    split.parent.mkdir(parents=True)
    split.write_bytes(Run(ready.folder).path("split.csv").read_bytes())
    (tmp_path / "settings.json").write_text(json.dumps(both.as_dict()), encoding="utf-8")
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    paths = {"PYTHONPATH": str(PROJECT), "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [*accelerate, *options, str(script), str(tmp_path / "settings.json")],
        env=os.environ | paths | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    together = pd.read_csv(Run(both.folder).path("history.csv"))
    assert together["train_loss"].iloc[-1] < together["train_loss"].iloc[0]
    for name in ("train_loss", "validation_loss"):
        assert together[name].to_numpy() == pytest.approx(alone[name].to_numpy(), rel=0.03), name
    assert {p.name for p in Path(both.folder).iterdir()} == {p.name for p in Path(ready.folder).iterdir()}


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes.count() == 3
    assert launch.main(["--profile", "cpu"]) == 2
    assert "a batch of 16 texts cannot be shared by 3 processes" in capsys.readouterr().err


def test_alone_a_process_is_the_first_and_waits_for_nobody():
    assert processes.is_first() and processes.count() == 1
    processes.wait_for_all()
