import dataclasses

import pytest

from sirius_helpers import settings as module
from sirius_helpers.errors import UserError
from sirius_helpers.profiles import choose_profile
from sirius_helpers.settings import settings_for


def test_auto_says_which_profile_it_took_and_why(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    chosen = settings_for("auto")
    assert (chosen.profile, chosen.profile_reason) == ("cpu", "no CUDA device found")
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda _: "Tesla T4")
    chosen = settings_for("auto")
    assert (chosen.profile, chosen.profile_reason) == ("t4", "CUDA device found: Tesla T4")
    assert (chosen.labeler.weights, chosen.writer.weights) == ("nf4", "fp16")


@pytest.mark.parametrize("typo", ["gpu", "T4", "cpu ", ""])
def test_a_typo_in_the_profile_lists_the_allowed_ones(typo):
    with pytest.raises(UserError, match="not one of: auto, t4, cpu"):
        choose_profile(typo)


def test_t4_without_a_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="use PROFILE='auto' or 'cpu'"):
        settings_for("t4")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs=0: Input should be greater than or equal to 1"),
        ({"top_p": 1.5}, "top_p=1.5: Input should be less than or equal to 1"),
        ({"split": "random"}, "split='random': Input should be 'grouped' or 'seed'"),
        ({"run": "a/b"}, "not a plain folder name"),
        ({"run": ".."}, "not a plain folder name"),
        ({"epohcs": 3}, "unknown setting epohcs"),
        ({"near_duplicate": 0.9}, "near_duplicate=0.9: Input should be greater than or equal to 50"),
        ({"max_copy_similarity": 0.9}, "max_copy_similarity=0.9: Input should be greater"),
        ({"learning_rate": 0}, "learning_rate=0: Input should be greater than 0"),
        ({"learning_rate": "fast"}, "learning_rate='fast': Input should be a valid number"),
        ({"weight_decay": -0.01}, "weight_decay=-0.01: Input should be greater"),
        ({"class_weight_power": float("nan")}, "class_weight_power=nan: Input should be a finite number"),
        ({"few_shot_c": 0}, "few_shot_c=0: Input"),
        ({"baseline_c": -1}, "baseline_c=-1: Input"),
        ({"lora_targets": ()}, r"lora_targets=\(\): Tuple should have at least 1 item"),
        ({"lora_targets": "query"}, "lora_targets='query': Input should be a valid tuple"),
        ({"batch_size": 1.5}, "batch_size=1.5: Input should be a valid integer"),
        ({"max_synthetic": -1}, "max_synthetic=-1: Input"),
        ({"seed": -1}, "seed=-1: Input should be greater"),
        ({"labeler": "t-tech/T-lite-it-1.0"}, "labeler='t-tech/T-lite-it-1.0': Input should be .*ModelSpec"),
        ({"category_check": 2}, "category_check=2: Input should be a valid boolean"),
        ({"prompts": {"judge": "да?"}}, "prompts.judge='да\\?': Input should be a valid dictionary"),
    ],
)
def test_a_bad_value_is_named_on_creation(change, message):
    with pytest.raises(UserError, match=message):
        settings_for("cpu", **change)


def test_settings_cannot_be_changed_behind_a_stage():
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings_for("cpu").seed = 1


def test_a_number_may_be_text_and_a_folder_a_string(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = settings_for("cpu", learning_rate="1e-4", lora_targets=["query"], checkpoints="runs", run="mine")
    assert chosen.learning_rate == 1e-4 and chosen.lora_targets == ("query",)
    assert chosen.folder == tmp_path / "runs" / "mine"
