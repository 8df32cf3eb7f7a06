import shutil
from dataclasses import replace

import pytest

from sirius_helpers.label import labeler_identity
from sirius_helpers.models import SAMPLE, SAMPLES, ModelSpec, model_content
from sirius_helpers.train import _identity

LARGE = 40 * SAMPLES * SAMPLE


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(bytes(LARGE))
    return path


def test_a_copy_elsewhere_is_the_same_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    assert model_content(folder) == model_content(tmp_path / "copy")


def rewrite_last_half(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: LARGE // 2] + b"\1" * (LARGE // 2))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text("[]"),
        lambda folder: (folder / "config.json").rename(folder / "other.json"),
        lambda folder: (folder / "model.safetensors").write_bytes(bytes(LARGE + 1)),
        rewrite_last_half,
    ],
)
def test_a_folder_with_another_name_size_or_content_is_another_model(folder, change):
    before = model_content(folder)
    change(folder)
    assert model_content(folder) != before


def test_a_model_replaced_at_its_old_path_makes_labels_and_adapter_stale(folder, settings):
    spec = ModelSpec(str(folder))
    settings = replace(settings, labeler=spec, writer=spec, classifier=spec)
    before = labeler_identity(settings, []), _identity(settings)
    rewrite_last_half(folder)
    after = labeler_identity(settings, []), _identity(settings)
    assert before[0] != after[0] and before[1] != after[1]


def test_a_model_from_elsewhere_is_known_by_its_name():
    assert "content" not in ModelSpec("ai-forever/ruRoberta-large").identity
