"""The t4 profile's code from labels to submission, on tiny random models of the same architectures on the CPU."""

import json

import pandas as pd
import pytest
from tiny_models import saved, tiny_qwen2, tiny_roberta

from sirius_helpers import settings as module
from sirius_helpers.augment import augment
from sirius_helpers.evaluate import HUMAN, ORIGINAL, evaluate
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import Run, begin
from sirius_helpers.label import label
from sirius_helpers.predict import predict
from sirius_helpers.review import review
from sirius_helpers.settings import ModelSpec, Settings
from sirius_helpers.split import split
from sirius_helpers.train import train


@pytest.fixture
def t4(tmp_path, data, monkeypatch):
    """The t4 profile as it is, with its three models exchanged for tiny ones, on the CPU."""
    values = module.t4()
    for role, pair in (
        ("labeler", tiny_qwen2(3, hidden_size=64)),  # one that files reviews under both categories
        ("writer", tiny_qwen2(1)),
        ("classifier", tiny_roberta()),
    ):
        saved(tmp_path / role, pair)
        spec = values[role]
        # fp16 arithmetic is a GPU's: the CPU lacks half of its kernels
        weights = "bf16" if spec.weights == "fp16" else spec.weights
        values[role] = ModelSpec(str(tmp_path / role), weights=weights, chat=spec.chat)
    values["second_labeler"] = values["classifier"]
    values |= {"device": "cpu", "epochs": 2, "max_attempts": 2, "max_new_tokens": 12, "max_synthetic": 6}
    values |= {"max_tokens": 64, "bootstrap": 50}
    return Settings(**values, profile_reason="test", data=data, run="tiny", checkpoints=tmp_path / "checkpoints")


def test_every_stage_runs_and_hands_over_by_file(t4, data):
    (data / "human_labels.csv").write_text(
        'text,category\n"Сандалии порвались",обувь\n"Чашка с трещиной",посуда\n', encoding="utf-8"
    )
    begin(t4)
    labels = label(t4)
    assert set(labels["category"]) <= {"обувь", "посуда"}
    assert all(sum(p.values()) == pytest.approx(1, abs=1e-4) for p in labels["probabilities"])
    review(t4)
    augment(t4)
    run = Run(t4.folder)
    attempts = read_records(run.path("synthetic.jsonl")) + read_records(run.path("rejected.jsonl"))
    assert attempts and all(record["attempt"] < 2 for record in attempts)
    table = split(t4)
    assert set(table["part"]) == {"train", "validation", "test"}
    train(t4)
    metrics = evaluate(t4)
    assert set(metrics["scores"][ORIGINAL]) == {"baseline", "adapter"}
    assert metrics["scores"][HUMAN]["adapter"]["rows"] == 2
    predict(t4)
    submission = pd.read_csv(run.path("submission.csv"))
    assert submission.columns.tolist() == ["category"] and len(submission) == 2
    assert set(submission["category"]) <= {"обувь", "посуда"}
    stages = json.loads(run.path("run.json").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == ["label", "review", "opinions", "augment", "split", "train", "evaluate", "predict"]


def test_every_stage_reuses_what_is_there(t4, monkeypatch):
    stages = (label, review, augment, split, train, evaluate, predict)
    for stage in stages:
        stage(t4)
    run = Run(t4.folder)
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "run.json"}
    for name in ("llm.labelers", "augment"):
        monkeypatch.setattr(f"sirius_helpers.{name}.causal_lm", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("sirius_helpers.encoder.classifier.load_model", lambda *_: pytest.fail("a model was loaded"))
    for stage in stages:
        stage(t4)
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.name != "run.json"} == before
