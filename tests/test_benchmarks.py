"""How the benchmarks are told their model; what they measure is run by `make bench`."""

import subprocess
import sys

import pytest

from sirius_helpers.settings import CHAT_LM, PROJECT, ModelSpec

sys.path.insert(0, str(PROJECT / "benchmarks"))
from common import bench_settings


def test_a_model_named_in_the_environment_is_asked_and_writes_in_the_profiles_place(monkeypatch):
    monkeypatch.delenv("MODEL", raising=False)
    usual = bench_settings()
    monkeypatch.setenv("MODEL", "")  # as make hands it over where none is named
    assert bench_settings() == usual
    monkeypatch.setenv("MODEL", CHAT_LM)
    named = bench_settings()
    assert named.labeler == named.writer == ModelSpec(CHAT_LM, weights="bf16", chat=True)
    assert (named.labeler_kind, named.classifier) == ("llm", usual.classifier)


@pytest.mark.parametrize("model", ["", CHAT_LM])
def test_make_hands_the_model_over_and_installs_the_chat_models_packages_where_they_are_needed(model):
    command = ["make", "--dry-run", "--always-make", "bench-label", f"MODEL={model}"]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert f'MODEL="{model}" ' in said and "benchmarks/bench_label.py" in said
    assert ("[cpu,notebook,chat]" in said) == (model == CHAT_LM)
