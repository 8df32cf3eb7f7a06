import json
import tracemalloc
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from conftest import no_file_longer_than
from tiny_models import tiny_roberta
from tqdm.std import tqdm

from sirius_helpers import predict as prediction
from sirius_helpers.encoder.classifier import Classifier, new_model, save
from sirius_helpers.encoder.scores import calibrated
from sirius_helpers.errors import UserError
from sirius_helpers.files.reviews import read_texts
from sirius_helpers.files.runs import Run
from sirius_helpers.loaders import load_tokenizer
from sirius_helpers.predict import predict, texts_of, write_pieces
from sirius_helpers.settings import ModelSpec
from sirius_helpers.show.tables import prediction_rows

TEXTS = ["Ботинки малы", "", 'Чашка, "с трещиной"', "две\nстроки", "возврат\rкаретки", "Ботинки малы, " * 30] * 3


@pytest.fixture
def ready(settings, data, tmp_path):
    """Settings of a run with a random adapter; test.csv holds awkward texts."""
    model, tokenizer = tiny_roberta()
    model.save_pretrained(tmp_path / "roberta"), tokenizer.save_pretrained(tmp_path / "roberta")
    spec = ModelSpec(str(tmp_path / "roberta"))
    settings = replace(settings, classifier=spec, max_tokens=64)
    adapter = Run(settings.folder).path("adapter")
    save(new_model(settings, 2), load_tokenizer(spec), adapter, settings, ["обувь", "посуда"], temperature=1.0)
    cells = "\n".join('"' + text.replace('"', '""') + '"' for text in TEXTS)
    (data / "test.csv").write_text(f"text\n{cells}\n", encoding="utf-8", newline="")
    return settings


def put_temperature(adapter, found):
    """Replace the field of the saved adapter by what `found` holds, {} for an adapter that never had it."""
    path = adapter / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    del config["temperature"]
    path.write_text(json.dumps(config | found), encoding="utf-8")


def read(path):
    return pd.read_csv(path, keep_default_na=False)


def test_every_row_gets_a_category_in_order_whatever_its_text(ready):
    table = predict(ready)
    written = read(Run(ready.folder).path("predictions.csv"))
    assert written["text"].tolist() == TEXTS
    assert table["category"].tolist() == written["category"].tolist()
    assert table["confidence"].tolist() == written["confidence"].tolist()
    assert written.columns.tolist() == ["text", "category", "confidence", "p_обувь", "p_посуда"]
    assert written[["p_обувь", "p_посуда"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert (written["confidence"] == written[["p_обувь", "p_посуда"]].max(axis=1)).all()
    submission = read(Run(ready.folder).path("submission.csv"))
    assert submission["category"].tolist() == table["category"].tolist()


def test_a_sample_of_the_predictions_finds_its_texts_again_line_breaks_or_not(ready):
    table, run = predict(ready), Run(ready.folder)
    written = read(run.path("predictions.csv"))
    for n in (5, 99):
        rows = prediction_rows(run, table, n)
        assert len(rows) == min(n, len(TEXTS))
        assert rows.to_dict("index") == written.loc[rows.index, list(rows)].to_dict("index")


def test_chunks_change_nothing_but_the_order_of_work(ready, monkeypatch):
    run = Run(ready.folder)
    whole = predict(ready)
    run.path("predictions.csv").unlink()
    monkeypatch.setattr(prediction, "CHUNK", 4)
    chunked = predict(ready)
    assert read(run.path("predictions.csv"))["text"].tolist() == TEXTS
    assert read(run.path("submission.csv"))["category"].tolist() == chunked["category"].tolist()
    assert chunked["category"].tolist() == whole["category"].tolist()
    assert chunked["confidence"].to_numpy() == pytest.approx(whole["confidence"].to_numpy(), abs=0.01)
    assert not [
        path.name for path in run.folder.iterdir() if path.name.startswith("predictions-") or ".part" in path.name
    ]


def test_a_killed_prediction_goes_on_with_the_missing_chunks(ready, monkeypatch):
    run = Run(ready.folder)
    whole = predict(ready)
    run.path("predictions.csv").unlink()
    monkeypatch.setattr(prediction, "CHUNK", 4)
    calls, call = [], Classifier.__call__

    def killed_at_the_third_chunk(self, texts, bar=None):
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return call(self, texts, bar)

    monkeypatch.setattr(Classifier, "__call__", killed_at_the_third_chunk)
    with pytest.raises(KeyboardInterrupt):
        predict(ready)
    assert not run.path("predictions.csv").exists()
    assert predict(ready)["category"].tolist() == whole["category"].tolist()
    assert calls == [4, 4, 4, 4, 4, 2]  # two finished, one killed, the three that were missing


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: data.rindex(b"\n", 0, -1) + 1],  # a row short
        lambda data: data[:-4],
        lambda data: data.replace("Чашка".encode(), "Кружка".encode()),
        lambda data: b"\xff" + data,
    ],
)
def test_a_damaged_chunk_is_predicted_again_and_a_whole_one_is_not(ready, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(prediction, "CHUNK", 6)
    done, call = [], Classifier.__call__
    monkeypatch.setattr(Classifier, "__call__", lambda self, texts, bar: done.append(texts) or call(self, texts, bar))
    with Classifier.load(Run(ready.folder).path("adapter"), "cpu") as classifier:
        pieces = write_pieces(TEXTS, len(TEXTS), classifier, tmp_path / "work")
        whole = [piece.read_bytes() for piece in pieces]
        pieces[1].write_bytes(damage(whole[1]))
        assert write_pieces(TEXTS, len(TEXTS), classifier, tmp_path / "work") == pieces
    assert [piece.read_bytes() for piece in pieces] == whole
    assert len(done) == 4


def test_a_full_disk_leaves_no_part_and_keeps_the_old_predictions(ready, tmp_path):
    pieces = [tmp_path / "0.csv", tmp_path / "1.csv"]
    for piece in pieces:
        piece.write_text("text,category\n" + "Ботинки малы,обувь\n" * 50, encoding="utf-8")
    target = tmp_path / "whole" / "predictions.csv"
    target.parent.mkdir()
    target.write_bytes(b"old")
    submission = target.with_name("submission.csv")
    with no_file_longer_than(1_000), pytest.raises(UserError, match="predictions.csv.* could not be written"):
        prediction.join(pieces, target, submission)
    assert target.read_bytes() == b"old" and list(target.parent.iterdir()) == [target]
    prediction.join(pieces, target, submission)
    assert len(read(target)) == len(read(submission)) == 100


def test_labels_and_texts_that_look_like_numbers_or_nothing_stay_as_they_are(ready, data):
    adapter = Run(ready.folder).path("adapter")
    save(new_model(ready, 2), load_tokenizer(ready.classifier), adapter, ready, ["NA", "007"], temperature=1.0)
    (data / "test.csv").write_text("text\n01\nnull\n", encoding="utf-8")
    table = predict(ready)
    written = pd.read_csv(Run(ready.folder).path("predictions.csv"), keep_default_na=False, dtype=str)
    assert written["text"].tolist() == ["01", "null"] and set(table["category"]) <= {"NA", "007"}
    lines = Run(ready.folder).path("submission.csv").read_text(encoding="utf-8").splitlines()
    assert lines == ["category", *table["category"]]


def test_the_saved_temperature_divides_the_logits(ready):
    adapter = Run(ready.folder).path("adapter")
    with Classifier.load(adapter, "cpu") as classifier:
        plain = classifier(TEXTS)
    put_temperature(adapter, {"temperature": 0.1})
    with Classifier.load(adapter, "cpu") as classifier:
        assert classifier(TEXTS) == pytest.approx(calibrated(plain, 0.1), abs=0.01)


DAMAGED = [{"temperature": found} for found in (None, "1.5", True, [], 0, -1.5, float("nan"), float("inf"))]


@pytest.mark.parametrize("found", [{}, *DAMAGED], ids=str)
def test_an_adapter_without_a_positive_temperature_is_refused_with_the_remedy(ready, found):
    put_temperature(Run(ready.folder).path("adapter"), found)
    with pytest.raises(UserError, match="config.json holds no temperature .* run the stage 'train' again"):
        predict(ready)


def test_a_torn_config_is_refused_with_the_remedy(ready):
    adapter = Run(ready.folder).path("adapter")
    (adapter / "config.json").write_text('{"id2label": {"0": "обу')
    with pytest.raises(UserError, match="config.json is damaged; run the stage 'train' again"):
        Classifier.load(adapter, "cpu")


def test_the_bar_counts_every_text_once_and_no_text_is_no_row(ready):
    with Classifier.load(Run(ready.folder).path("adapter"), "cpu") as classifier, tqdm() as bar:
        assert classifier(TEXTS, bar).shape == (len(TEXTS), 2) and bar.n == len(TEXTS)
        assert classifier([]).shape == (0, 2)


def test_memory_does_not_grow_with_the_number_of_texts(ready, data, monkeypatch):
    """The whole stage with a stand-in for the model, so that what is measured is ours: chunks, tables and files."""
    monkeypatch.setattr(prediction, "CHUNK", 500)

    class Scripted:
        labels = ["обувь", "посуда"]

        def __call__(self, texts, bar):
            return np.tile(np.float32([[0.75, 0.25]]), (len(texts), 1))

    monkeypatch.setattr(Classifier, "load", lambda *_: nullcontext(Scripted()))

    def peak(count):
        (data / "test.csv").write_text("text\n" + "Ботинки малы\n" * count, encoding="utf-8")
        tracemalloc.start()
        assert len(predict(ready)) == count
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(500)  # imports
    few, many = peak(10_000), peak(40_000)  # both more than a reader's buffer holds
    assert many - few < 30_000 * 60  # bytes for a category and a confidence; a text would be three times as much
    assert len(read(Run(ready.folder).path("submission.csv"))) == 40_000


PLAIN = ["text\nа\n", 'text\r\n"а, б"\r\n""\r\n', 'id,text\n1,"а\rб\nв"\n2,\n', "\ufefftext\n NA \n007"]
UNUSUAL = ["text;id\nа;1\n", "Text\nа\n", "text\nа, б\n", "\n\ntext\nа\n", "text\nа\n\nб\n", "text\nи\u0306\n"]
UNUSUAL += ["text\n" + "а" * 40 + "\0\n", "text\n" + "а;\n" * 12, "text\rа\rб\r", 'text,id\nа,1\n"б",2\n,\n']


@pytest.mark.parametrize("content", [*PLAIN, *UNUSUAL])
def test_texts_are_those_of_the_tables_reader_and_a_plain_file_is_never_held_as_a_whole(data, monkeypatch, content):
    path = data / "test.csv"
    path.write_bytes(content.encode())
    expected = read_texts(path)
    if content in PLAIN:
        monkeypatch.setattr(prediction, "read_texts", lambda path: pytest.fail("the whole file was read"))
    count, texts = texts_of(path)
    assert (count, list(texts)) == (len(expected), expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("text\n", "no rows"), ("id\n1\n", "no column 'text'"), ("text,id\nа,1\nб\n", "row 2")],
)
def test_a_file_that_cannot_be_read_with_certainty_is_refused_as_the_tables_reader_does(data, content, message):
    (data / "test.csv").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        texts_of(data / "test.csv")
