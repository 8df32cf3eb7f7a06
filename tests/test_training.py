import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_split
from datasets import Dataset
from tiny_models import saved, tiny_roberta

from sirius_helpers import train as training
from sirius_helpers.encoder import trainer
from sirius_helpers.encoder.classifier import Classifier, new_model
from sirius_helpers.encoder.embedding import Linear, fit_linear
from sirius_helpers.encoder.scores import fit_temperature
from sirius_helpers.encoder.trainer import class_weights, new_trainer
from sirius_helpers.errors import UserError
from sirius_helpers.files.runs import Run
from sirius_helpers.settings import ModelSpec
from sirius_helpers.train import best_epoch, targets_of, train


@pytest.fixture
def ready(settings, roberta):
    """Settings on the tiny model, with a split of reviews that a few epochs can learn."""
    rows = [(f"сапоги {n} промокли", "обувь", "train") for n in range(24)]
    rows += [(f"чашка {n} треснула", "посуда", "train") for n in range(12)]
    rows += [(f"сапоги {n} малы", "обувь", "validation") for n in range(40, 44)]
    rows += [(f"чашка {n} красивая", "посуда", "validation") for n in range(40, 44)]
    write_split(settings, rows)
    changes = {"classifier": ModelSpec(str(roberta)), "epochs": 4, "learning_rate": 5e-3, "batch_size": 8}
    changes |= {"lora_dropout": 0.0, "max_tokens": 64, "label_smoothing": 0.0}
    return replace(settings, **changes)


def test_the_loss_falls_and_the_kept_epoch_is_the_best_weighted_f1_of_the_second_half(ready, monkeypatch):
    scores = iter([0.9, 0.95, 0.6, 0.7, 0.8, 0.7, 0.5, 0.6])  # weighted and macro of four epochs
    monkeypatch.setattr(trainer, "f1_score", lambda *_, **__: next(scores))
    history = train(ready)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["weighted_f1"].tolist() == [0.9, 0.6, 0.8, 0.5]
    assert history["kept"].tolist() == [False, False, True, False]
    assert best_epoch(history)["weighted_f1"] == 0.8


def test_the_adapter_is_safetensors_and_json_with_id2label_and_no_pickle(ready):
    train(ready)
    folder = Run(ready.folder).path("adapter")
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} <= {".safetensors", ".json", ".txt"}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "обувь", "1": "посуда"}
    targets = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert targets == sorted(ready.lora_targets)  # peft's own set is in another order in each process
    assert not list(Run(ready.folder).folder.glob("training-*"))


def test_training_that_breaks_down_says_so_and_leaves_no_adapter(ready, monkeypatch):
    monkeypatch.setattr(trainer, "weighted_loss", lambda *_: lambda outputs, *_, **__: outputs.logits.sum() * torch.nan)
    with pytest.raises(UserError, match=r"broke down in epoch 1: .* Lower learning_rate \(it is 0.005\)"):
        train(ready)
    assert not Run(ready.folder).path("adapter").exists()


def test_the_saved_adapter_gives_the_scores_of_its_best_epoch(ready):
    history = train(ready)
    table = pd.read_csv(Run(ready.folder).path("split.csv"))
    rows = table[table["part"] == "validation"]
    with Classifier.load(Run(ready.folder).path("adapter"), "cpu") as classifier:
        guess = [classifier.labels[i] for i in classifier(rows["text"].tolist()).argmax(1)]
    right = np.mean([a == b for a, b in zip(guess, rows["category"], strict=True)])
    assert right == pytest.approx(best_epoch(history)["weighted_f1"], abs=0.07)


def test_the_saved_temperature_is_the_kept_epochs_on_the_originals_of_the_validation_part(ready):
    path = Run(ready.folder).path("split.csv")
    table = pd.read_csv(path)
    rows = table[table["part"] == "validation"]
    wrong = rows.assign(synthetic=True, category=rows["category"].iloc[::-1].to_numpy())
    pd.concat([table, wrong]).to_csv(path, index=False)
    train(ready)
    with Classifier.load(Run(ready.folder).path("adapter"), "cpu") as classifier:
        found, classifier.temperature = classifier.temperature, 1.0
        raw = classifier(rows["text"].tolist())
    assert found == pytest.approx(fit_temperature(raw, rows["category"].map(classifier.labels.index)), rel=0.02)
    assert found != pytest.approx(1, rel=0.1)


def adapter_bytes(settings):
    folder = Run(settings.folder).path("adapter")
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_equal_settings_give_equal_adapters_and_a_second_call_reuses(ready, capsys):
    train(ready)
    first = adapter_bytes(ready)
    train(ready)
    assert "reused" in capsys.readouterr().out
    shutil.rmtree(Run(ready.folder).path("adapter"))
    train(ready)
    assert adapter_bytes(ready) == first


def test_a_killed_training_goes_on_from_its_last_checkpoint_to_the_same_adapter(ready, monkeypatch):
    history = train(ready)
    whole = adapter_bytes(ready)
    shutil.rmtree(Run(ready.folder).path("adapter"))
    on_evaluate, epochs = trainer._Bar.on_evaluate, []

    def killed_in_epoch_three(self, args, state, control, **rest):
        on_evaluate(self, args, state, control, **rest)
        epochs.append(state.epoch)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer._Bar, "on_evaluate", killed_in_epoch_three)
    with pytest.raises(KeyboardInterrupt):
        train(ready)
    assert list(Run(ready.folder).folder.glob("training-*"))
    epochs.append(None)
    again = train(ready)
    assert epochs[4:] == [3.0, 4.0]  # the two finished epochs are not trained again
    pd.testing.assert_frame_equal(again, history)
    assert adapter_bytes(ready) == whole


def test_class_weights_favour_rare_classes_by_the_chosen_power():
    categories = pd.Series(["a"] * 9 + ["b"])
    flat = class_weights(categories, ["a", "b", "absent"], 0.0)
    assert flat.tolist() == [1.0, 1.0, 0.0]
    root = class_weights(categories, ["a", "b", "absent"], 0.5)
    assert root[1] / root[0] == pytest.approx(3.0)
    assert (root[0] * 9 + root[1]) / 10 == pytest.approx(1.0)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c"]])
def test_the_linear_baseline_agrees_with_scikit_learn_and_never_answers_an_unseen_label(names, tmp_path):
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    truth = rng.choice(names, 60)
    vectors = rng.normal(size=(60, 5)) + np.array([[names.index(t)] * 5 for t in truth])
    linear = fit_linear(vectors, truth, [*names, "unseen"], c=1.0)
    linear.save(tmp_path)
    found = Linear.load(tmp_path)(vectors)
    expected = LogisticRegression(C=1.0, max_iter=2000).fit(vectors, truth).predict_proba(vectors)
    assert found[:, :-1] / found[:, :-1].sum(1, keepdims=True) == pytest.approx(expected, abs=1e-4)
    assert (found.argmax(1) < len(names)).all()


def test_the_head_starts_at_the_linear_solution():
    head = torch.nn.Linear(3, 2)
    linear = Linear(np.ones((2, 3), dtype=np.float32), np.array([1, -1], dtype=np.float32))
    training.start_head(head, linear)
    assert head.weight.tolist() == [[1, 1, 1]] * 2 and head.bias.tolist() == [1, -1]


def test_unknown_adapter_layers_are_named(ready):
    with pytest.raises(UserError, match=r"lora_targets \['q_proj'\] are not layers"):
        train(replace(ready, lora_targets=("q_proj",)))


def test_one_category_only_is_a_clear_error(ready):
    path = Run(ready.folder).path("split.csv")
    path.write_text(path.read_text(encoding="utf-8").replace("посуда", "обувь"), encoding="utf-8")
    with pytest.raises(UserError, match="all 36 training rows of .*split.csv have the same category"):
        train(ready)


def test_categories_that_the_taxonomy_no_longer_names_are_a_clear_error(ready):
    path = Run(ready.folder).path("split.csv")
    path.write_text(path.read_text(encoding="utf-8").replace("посуда", "чай"), encoding="utf-8")
    with pytest.raises(UserError, match="split.csv holds categories that .*data does not name .any longer.: чай. Run"):
        train(ready)


def test_accumulated_batches_learn_as_one_large_batch_does(ready, tmp_path):
    """Loss and gradient of a step, with every version of the Trainer."""
    pair = tiny_roberta(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    saved(tmp_path / "still", pair)
    rows = [{"input_ids": [5 + n, 7, 9 + n], "labels": [float(n % 2), float(1 - n % 2)]} for n in range(8)]
    found = []
    for size in (8, 2):
        changes = {"classifier": ModelSpec(str(tmp_path / "still")), "batch_size": size, "accumulation": 8 // size}
        settings = replace(ready, epochs=1, **changes)
        torch.manual_seed(0)
        sets = dict.fromkeys(("train", "validation"), Dataset.from_list(rows))
        one = new_trainer(new_model(settings, 2), pair[1], sets, torch.ones(2), tmp_path / str(size), settings)
        one.train()
        found.append([one.state.log_history[0][name] for name in ("loss", "grad_norm")])
    assert found[1] == pytest.approx(found[0], rel=0.02)  # half precision; a sum would be four times as large
    assert found[0][0] == pytest.approx(np.log(2), abs=0.3)  # the mean over rows, however many targets each has


def test_a_row_teaches_its_labels_probabilities_or_else_its_category_alone():
    rows = pd.DataFrame({"category": ["a", "b", "b"], "p_a": [0.6, 0.0, 0.07], "p_b": [0.2, 0.0, 0.93]})
    assert targets_of(rows, ["a", "b"]) == pytest.approx(np.array([[0.75, 0.25], [0, 1], [0.07, 0.93]]))
    assert targets_of(rows[["category"]], ["b", "a"]).tolist() == [[0, 1], [1, 0], [1, 0]]
    assert targets_of(rows, ["a", "b", "new"]).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]  # of another list
