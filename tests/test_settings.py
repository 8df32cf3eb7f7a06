import dataclasses
import shutil
from dataclasses import replace

import pytest

from sirius_helpers import settings as module
from sirius_helpers.errors import UserError
from sirius_helpers.label import labeler_identity
from sirius_helpers.settings import SAMPLE, SAMPLES, ModelSpec, choose_profile, model_content, settings_for
from sirius_helpers.train import _identity

LARGE = 40 * SAMPLES * SAMPLE


def test_auto_says_which_profile_it_took_and_why(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    chosen = settings_for("auto")
    assert (chosen.profile, chosen.profile_reason) == ("cpu", "no CUDA device found")
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module.torch.cuda, "get_device_name", lambda _: "Tesla T4")
    chosen = settings_for("auto")
    assert (chosen.profile, chosen.profile_reason) == ("t4", "CUDA device found: Tesla T4")
    assert (chosen.labeler.weights, chosen.writer.weights) == ("nf4", "fp16")


CHAT = {"name": "embedded:chat-lm", "chat": True}


@pytest.mark.parametrize(("profile", "labeler"), [("chat", "bf16"), ("rehearsal", "nf4")])
@pytest.mark.parametrize("cuda", [False, True])
def test_the_chat_models_profiles_ask_and_write_with_it_on_a_cpu(monkeypatch, profile, labeler, cuda):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: cuda)
    chosen = settings_for(profile)
    assert (chosen.profile, chosen.profile_reason, chosen.device) == (profile, "asked for", "cpu")
    assert chosen.labeler == ModelSpec(weights=labeler, **CHAT) and chosen.labeler_kind == "llm"
    assert chosen.writer == ModelSpec(weights="bf16", **CHAT)
    assert chosen.classifier == settings_for("cpu").classifier  # the embedded encoder
    assert chosen.second_labeler == chosen.classifier and (chosen.second_weight > 0) == (profile == "chat")
    assert not any(spec.on_hub for spec in (chosen.labeler, chosen.writer, chosen.classifier))
    assert chosen.prompts == {}  # those of the base model are not for it


def test_the_rehearsal_differs_from_t4_in_models_device_and_sizes_alone():
    t4, rehearsal = module.t4(), module.rehearsal()
    other = {"profile", "device", "labeler", "second_labeler", "writer", "classifier"}
    other |= {"max_synthetic", "max_attempts", "max_new_tokens", "tokens_per_batch"}
    assert {name for name in t4 | rehearsal if t4.get(name) != rehearsal.get(name)} == other
    assert t4["labeler"].weights == rehearsal["labeler"].weights == "nf4"
    assert all(profile[role].chat for profile in (t4, rehearsal) for role in ("labeler", "writer"))


@pytest.mark.parametrize("typo", ["gpu", "T4", "cpu ", ""])
def test_a_typo_in_the_profile_lists_the_allowed_ones(typo):
    with pytest.raises(UserError, match="not one of: auto, t4, cpu, chat, rehearsal"):
        choose_profile(typo)


def test_t4_without_a_gpu_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="use PROFILE='auto', 'cpu' or 'chat'"):
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
        ({"prior_correction": 2}, "prior_correction=2: Input should be a valid boolean"),
        ({"second_weight": 1.5}, "second_weight=1.5: Input should be less than or equal to 1"),
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
