"""On a Ray cluster of this machine with two worker processes, and models of a few thousand weights."""

import gc
import re
import sys
import threading
import time
from dataclasses import replace

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from tiny_models import saved, tiny_qwen2

from sirius_helpers.encoder.classifier import Classifier, new_model, save
from sirius_helpers.errors import UserError
from sirius_helpers.extras import scaleout, streaming
from sirius_helpers.extras.scaleout import LabelWorker, label_files, predict_files
from sirius_helpers.files.categories import read_categories
from sirius_helpers.label import label
from sirius_helpers.loaders import load_tokenizer
from sirius_helpers.settings import PROJECT, ModelSpec

AWKWARD = ["Ботинки малы", "", 'Чашка, "с трещиной"', "две\nстроки", "01", "null"]
BLOCK = 30


@pytest.fixture(scope="module", autouse=True)
def cluster():
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    options = {"object_store_memory": 128 * 2**20, "log_to_driver": False, "logging_level": "error"}
    for tries_left in (2, 1, 0):  # Ray gives its processes 30 s to start, too little where something else is at work
        try:
            ray.init(num_cpus=2 + streaming.SPARE, **options)
            break
        except Exception:
            ray.shutdown()
            if not tries_left:
                raise
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(streaming, "BLOCK", BLOCK)


@pytest.fixture
def adapter(settings, roberta, tmp_path):
    spec = ModelSpec(str(roberta))
    settings = replace(settings, classifier=spec, max_tokens=64)
    folder = tmp_path / "adapter"
    save(new_model(settings, 2), load_tokenizer(spec), folder, settings, ["обувь", "посуда"], temperature=1.0)
    return folder


def write_source(folder, files, rows):
    """CSV files of awkward texts, every row with an id that looks like a number."""
    folder.mkdir()
    table = pd.DataFrame({"text": [AWKWARD[n % len(AWKWARD)] for n in range(files * rows)]})
    table.insert(0, "id", [f"{n:06}" for n in range(len(table))])
    for n in range(files):
        table[n * rows : (n + 1) * rows].to_csv(folder / f"{n}.csv", index=False)
    return table


def read(output):
    return pd.concat([pq.read_table(path).to_pandas() for path in (output / "rows").glob("*.parquet")])


def kill_a_worker(rows, killed):
    """Kill one of the two model workers as soon as a result is there."""
    while not list(rows.glob("*.parquet")):
        time.sleep(0.01)
    workers = [p for p in psutil.process_iter(["cmdline"]) if "PredictWorker" in " ".join(p.info["cmdline"] or [])]
    workers[0].kill()
    killed += [workers[0].pid, len(list(rows.glob("*.parquet")))]


def test_a_killed_worker_is_replaced_and_no_row_is_lost_or_doubled(tmp_path, adapter, settings):
    table = write_source(tmp_path / "in", files=4, rows=450)
    output, killed = tmp_path / "out", []
    killer = threading.Thread(target=kill_a_worker, args=(output / "rows", killed), daemon=True)
    killer.start()
    predict_files(str(tmp_path / "in"), str(output), str(adapter), settings, workers=2)
    killer.join(10)
    assert killed and killed[1] < len(list((output / "rows").glob("*.parquet"))), "killed in the middle"
    found = read(output).sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(found[["id", "text"]], table, check_dtype=False)
    with Classifier.load(adapter, "cpu") as classifier:
        expected = dict(zip(AWKWARD, classifier(AWKWARD), strict=True))
    assert found.columns.tolist() == ["id", "text", "category", "confidence", "p_обувь", "p_посуда"]
    for row in found.head(len(AWKWARD)).to_dict("records"):
        assert [row["p_обувь"], row["p_посуда"]] == pytest.approx(expected[row["text"]], abs=0.02)


def test_a_run_that_stopped_says_why_and_goes_on_with_what_is_missing(tmp_path, adapter, settings):
    table = write_source(tmp_path / "in", files=2, rows=60)
    output, bad = tmp_path / "out", tmp_path / "in" / "1.csv"
    good = bad.read_text(encoding="utf-8")
    bad.write_text(good.replace("000119", ""), encoding="utf-8")
    with pytest.raises(UserError, match="row 30 of a block has no id"):
        predict_files(str(tmp_path / "in"), str(output), str(adapter), settings, workers=1)
    before = {path: path.stat().st_mtime_ns for path in (output / "rows").glob("*.parquet")}
    bad.write_text(good, encoding="utf-8")
    predict_files(str(tmp_path / "in"), str(output), str(adapter), settings, workers=1)
    assert before and before.items() <= {p: p.stat().st_mtime_ns for p in (output / "rows").glob("*.parquet")}.items()
    assert sorted(read(output)["id"]) == table["id"].tolist()
    with pytest.raises(UserError, match="holds results of another model"):
        label_files(str(tmp_path / "in"), str(output), settings)


@pytest.mark.parametrize("way", ["in this process", "over fsspec and Ray"])
def test_labels_are_those_of_the_notebook(tmp_path, settings, data, way):
    saved(tmp_path / "labeler", tiny_qwen2())
    spec = ModelSpec(str(tmp_path / "labeler"), chat=True)
    settings = replace(settings, labeler=spec, labeler_kind="llm")
    expected, taxonomy = label(settings), read_categories(data)
    blank = pd.DataFrame({"id": ["blank"], "text": [None]})
    block = pa.Table.from_pandas(pd.concat([expected[["id", "text"]], blank]), preserve_index=False)
    if way == "in this process":
        worker = LabelWorker(taxonomy, settings)
        gc.collect()  # the worker holds its model
        found = worker(block).to_pandas()
    else:
        (tmp_path / "in").mkdir()
        pq.write_table(block, tmp_path / "in" / "0.parquet")
        label_files(f"local://{tmp_path}/in", f"local://{tmp_path}/out", settings, workers=1)  # not a scheme of Arrow's
        found = read(tmp_path / "out").set_index("id").loc[expected["id"]].reset_index()
        assert list((tmp_path / "out" / "done").rglob("*.parquet"))
    assert len(found) == len(expected) == 8
    assert found.columns.tolist() == ["id", "text", "category", "probabilities", "margin", "labeler"]
    same = ["id", "text", "category", "labeler"]
    pd.testing.assert_frame_equal(found[same], expected[same], check_dtype=False)
    for ours, theirs in zip(found["probabilities"], expected["probabilities"], strict=True):
        assert [ours[c.label] for c in taxonomy] == pytest.approx([theirs[c.label] for c in taxonomy], abs=1e-4)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_come_as_they_stand_in_the_files(tmp_path, kind):
    table = write_source(tmp_path / "in", files=2, rows=len(AWKWARD))
    if kind == "parquet":
        for path in (tmp_path / "in").glob("*.csv"):
            part = table[int(path.stem) * len(AWKWARD) :][: len(AWKWARD)]
            part.to_parquet(path.with_suffix(".parquet"), index=False)
            path.unlink()
    assert streaming._kind_of(str(tmp_path / "in")) == kind
    found = streaming._read(str(tmp_path / "in"), kind).to_pandas().sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(found, table, check_dtype=False)


def test_a_place_that_cannot_be_reached_names_what_is_missing(tmp_path, settings):
    for address, message in (("nowhere://x", "nowhere://x cannot be reached: .*nowhere"), ("az://x", "adlfs")):
        with pytest.raises(UserError, match=message):
            label_files(address, str(tmp_path / "out"), settings)


def test_without_ray_the_command_is_one_line_with_the_remedy(monkeypatch, data, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sirius_helpers.extras.streaming")
    assert scaleout.main(["label", "in", "out", "--profile", "cpu", "--data", str(data)]) == 2
    assert capsys.readouterr().err == (
        f"Error: the Python package 'ray' is missing; install it with: pip install -e \"{PROJECT}[scaleout]\"\n"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sirius_helpers.errors.UserError: row 3 has no id; add it.", "^row 3 has no id; add it.$"),
        ("ValueError: no such number", "^the run stopped: ValueError: no such number Start it again"),
    ],
)
def test_what_a_worker_reports_is_said_in_one_line(text, message):
    pages = f"ray::MapWorker() (pid=1)\n  File x\n{text}\n\nThe above was the cause of:\nray.UserCodeException: a hint"
    assert re.search(message, str(streaming._in_one_line(RuntimeError(pages))))


@pytest.mark.parametrize(
    ("files", "message"),
    [([], "holds no .csv and no .parquet files"), (["a.csv", "b.parquet"], "holds both .csv and .parquet files")],
)
def test_a_folder_that_cannot_be_read_is_refused_before_a_worker_starts(tmp_path, settings, files, message):
    (tmp_path / "in").mkdir()
    for name in files:
        (tmp_path / "in" / name).touch()
    with pytest.raises(UserError, match=message):
        label_files(str(tmp_path / "in"), str(tmp_path / "out"), settings)
    with pytest.raises(UserError, match="no .csv and no .parquet"):
        label_files(str(tmp_path / "absent"), str(tmp_path / "out"), settings)


def test_more_workers_than_the_cluster_has_slots_are_refused(tmp_path, settings):
    write_source(tmp_path / "in", files=1, rows=2)
    with pytest.raises(UserError, match="3 workers do not fit: the cluster has 4 CPUs.*Ask for at most 2"):
        label_files(str(tmp_path / "in"), str(tmp_path / "out"), settings, workers=3)
