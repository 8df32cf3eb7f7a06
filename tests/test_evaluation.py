import json
import shutil

import pandas as pd
import pytest
from huggingface_hub import ModelCard
from tiny_models import tiny_roberta

from sirius_helpers import train as training
from sirius_helpers.encoder.classifier import Classifier
from sirius_helpers.encoder.scores import ALL, ORIGINAL, calibration_error
from sirius_helpers.evaluate import evaluate, human_rows, leak_report, worst_errors
from sirius_helpers.files.runs import WRITES, Run, begin, digest
from sirius_helpers.settings import ModelSpec, Settings
from sirius_helpers.train import train


def test_the_leak_report_counts_sources_and_near_duplicates_on_the_learning_side():
    table = pd.DataFrame(
        [
            ("сапоги промокли", "s1", "train"),
            ("обувь не держит воду", "s1", "test"),  # its original is in train
            ("Сапоги промокли!", "s2", "test"),  # a near-duplicate is in train
            ("чашка треснула", "s3", "test"),
            ("чашка с трещиной", "s3", "test"),  # source on the same side: no leak
            ("плед колется", "s4", "validation"),
            ("плед колючий очень", "s4", "test"),  # validation chooses the model, so it counts
        ],
        columns=["text", "source_id", "part"],
    ).assign(category="x", synthetic=False)
    assert leak_report(table, 90) == {
        "held_out": 5,
        "source_in_training": 2,
        "near_duplicate_in_training": 1,
        "either": 3,
    }


def test_human_rows_leave_out_what_the_model_learned_from():
    rows = [("Сапоги малы", "s1", "train"), ("чашка бита", "s2", "test"), ("плед колется", "s3", "test")]
    rows += [("колючий такой плед", "s3", "train")]  # a paraphrase of a held-out review
    table = pd.DataFrame(rows, columns=["text", "source_id", "part"])
    texts = ["сапоги  малы", "сапоги малы!", "Чашка бита", "чашка бита", "плед колется", "лампа", " "]
    human = pd.DataFrame({"text": texts})
    rows = human_rows(table, human, dict.fromkeys(["чашка бита", "лампа"], "a"), 90)
    assert rows.to_dict("list") == {"text": ["Чашка бита", "лампа"], "category": ["a", "a"]}


def test_the_worst_errors_are_wrong_rows_by_confidence():
    rows = pd.DataFrame(
        {
            "source_id": ["1", "2", "3"],
            "text": ["x", "y", "z"],
            "category": ["a", "a", "b"],
            "predicted": ["b", "a", "a"],
            "confidence": [0.6, 0.99, 0.9],
        }
    )
    assert worst_errors(rows)["id"].tolist() == ["3", "1"]


@pytest.fixture
def trained(settings, tmp_path):
    """Settings of a run with a tiny adapter, trained on a split in which paraphrases leak."""
    model, tokenizer = tiny_roberta()
    model.save_pretrained(tmp_path / "roberta"), tokenizer.save_pretrained(tmp_path / "roberta")
    colours = ["белая", "синяя", "красная", "чёрная", "жёлтая", "серая", "тёмная", "бурая"]
    parts = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2
    rows = [(f"чашка {colours[n]} треснула", "посуда", f"d{n}", False, part) for n, part in enumerate(parts)]
    rows += [(f"сапоги {colours[n]} малы", "обувь", f"s{n}", False, part) for n, part in enumerate(parts)]
    rows += [("посудина раскололась в дороге", "посуда", "d0", True, "test")]
    run = Run(settings.folder)
    run.folder.mkdir(parents=True)
    table = pd.DataFrame(rows, columns=["text", "category", "source_id", "synthetic", "part"])
    table.to_csv(run.path("split.csv"), index=False)
    labels = table[~table["synthetic"]].rename(columns={"source_id": "id"}).assign(labeler="imported:mine.csv")
    labels[["id", "text", "category", "labeler"]].to_csv(run.path("labels.csv"), index=False)
    changes = {"classifier": ModelSpec(str(tmp_path / "roberta")), "epochs": 2, "max_tokens": 64, "bootstrap": 50}
    settings = Settings(**{**vars(settings), **changes, "split": "seed", "near_duplicate": 99})
    begin(settings)
    train(settings)
    return settings


def test_evaluation_leaves_the_adapter_untouched_and_training_finished(trained, capsys):
    run = Run(trained.folder)
    before = digest(run.path("adapter"))
    evaluate(trained)
    assert digest(run.path("adapter")) == before
    assert all(run.path(name).exists() for name in WRITES["evaluate"])
    train(trained)
    assert "reused" in capsys.readouterr().out


def test_the_calibration_error_is_told_without_and_with_the_adapters_temperature(trained, monkeypatch):
    run, errors = Run(trained.folder), []
    monkeypatch.setattr(training, "fit_temperature", lambda *_: 0.2)  # far from 1
    shutil.rmtree(run.path("adapter"))
    train(trained)
    table = pd.read_csv(run.path("split.csv"))
    rows = table[(table["part"] == "test") & ~table["synthetic"]]
    found = evaluate(trained)["calibration"]
    with Classifier.load(run.path("adapter"), "cpu") as classifier:
        assert found["temperature"] == classifier.temperature == 0.2
        for temperature in (1.0, 0.2):
            classifier.temperature = temperature
            answers = classifier(rows["text"].tolist())
            right = answers.argmax(1) == rows["category"].map(classifier.labels.index)
            errors.append(calibration_error(answers.max(1), right))
    assert [found["error_before"], found["error_after"]] == pytest.approx(errors, abs=0.005)
    assert errors[0] != pytest.approx(errors[1], abs=0.01)


def test_the_scores_of_rows_that_leak_stand_beside_those_that_do_not(trained):
    metrics = evaluate(trained)
    assert metrics["leaks"]["either"] == 1
    rows = {name: models["adapter"]["rows"] for name, models in metrics["by_leak"].items()}
    assert rows == {"leaked": 1, "not leaked": 4}
    assert {name: m["adapter"]["rows"] for name, m in metrics["scores"].items()} == {ALL: 5, ORIGINAL: 4}
    assert metrics["coverage"][0]["rows"] == metrics["calibration"]["rows"] == 4


def test_a_second_evaluation_writes_the_same_files(trained):
    run = Run(trained.folder)
    evaluate(trained)
    first = {name: digest(run.path(name)) for name in WRITES["evaluate"]}
    run.path("metrics.json").unlink()
    evaluate(trained)
    assert {name: digest(run.path(name)) for name in WRITES["evaluate"]} == first


def test_the_model_card_holds_data_labelers_scores_and_limits_and_no_path_of_the_machine(trained, tmp_path):
    metrics = evaluate(trained)
    card = Run(trained.folder).path("model_card.md").read_text(encoding="utf-8")
    metadata = ModelCard(card).data.to_dict()
    assert metadata["language"] == "ru" and metadata["pipeline_tag"] == "text-classification"
    assert "license" not in metadata and "base_model" not in metadata  # the owner's to say; a local folder is none
    assert "- 16 by `imported:mine.csv`" in card
    assert "| посуда | 4 | 2 | 2 | 1 |" in card and "| all | 8 | 4 | 4 | 1 |" in card
    assert "{value:.3f} [{low:.3f}, {high:.3f}]".format(**metrics["scores"][ORIGINAL]["baseline"]["macro_f1"]) in card
    assert "paraphrases of one review may stand on both sides" in card and "| leaked | adapter | 1 |" in card
    assert "Fewer than 10 original training reviews: обувь (4), посуда (4)." in card
    assert "| paraphrases | example phrases |" in card
    assert f"temperature {metrics['calibration']['temperature']:.2f}, fitted on 4" in card
    assert "`roberta`" in card and str(tmp_path) not in card
    assert 'Classifier.load("checkpoints/test/adapter", device="cpu")' in card


def test_metrics_are_plain_json_numbers(trained):
    evaluate(trained)
    text = Run(trained.folder).path("metrics.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
