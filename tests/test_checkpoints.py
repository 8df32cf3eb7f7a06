import json
import pickle
from dataclasses import replace

import pytest
from conftest import write_split

from sirius_helpers.encoder import trainer
from sirius_helpers.encoder.trainer import STATE, last_whole_checkpoint
from sirius_helpers.files.runs import Run, digest
from sirius_helpers.settings import ModelSpec
from sirius_helpers.train import train


def checkpoint(folder, step, best):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / STATE).write_text(json.dumps({"best_model_checkpoint": f"/elsewhere/checkpoint-{best}"}))
    (path / "optimizer.pt").write_bytes(b"numbers")
    return path


@pytest.mark.parametrize(
    "breaks",
    [
        lambda path: (path / STATE).unlink(),
        lambda path: (path / STATE).write_text('{"best_model'),
        lambda path: (path / STATE).write_text(""),
        lambda path: (path / "optimizer.pt").write_bytes(b""),
    ],
)
def test_a_checkpoint_cut_short_is_removed_and_the_one_before_it_taken(tmp_path, breaks):
    for step in (2, 9, 10):
        newest = checkpoint(tmp_path, step, best=2)
    assert last_whole_checkpoint(tmp_path) == newest
    breaks(newest)
    assert last_whole_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert not newest.exists()


def test_a_checkpoint_without_its_best_one_counts_for_nothing(tmp_path):
    checkpoint(tmp_path, 4, best=2)
    assert last_whole_checkpoint(tmp_path) is None
    assert last_whole_checkpoint(tmp_path / "never made") is None


@pytest.fixture
def ready(settings, roberta):
    """Settings and a split on which patience runs out after seven epochs: from the fifth on nothing gets better."""
    rows = [(f"сапоги {n} промокли", "обувь", "train") for n in range(12)]
    rows += [(f"чашка {n} треснула", "посуда", "train") for n in range(6)]
    rows += [("сапоги малы", "обувь", "validation"), ("чашка красивая", "посуда", "validation")]
    write_split(settings, rows)
    changes = {"classifier": ModelSpec(str(roberta)), "epochs": 8, "patience": 2, "learning_rate": 1e-9}
    return replace(settings, **changes, batch_size=8, max_tokens=32, lora_dropout=0.3)


def results(settings):
    return [digest(settings.folder / name) for name in ("adapter", "history.csv")]


def killed(settings, monkeypatch, event, times):
    """Train until an event has come so many times."""
    plain, left = getattr(trainer._Bar, event), [times]

    def dies(self, args, state, control, **rest):
        plain(self, args, state, control, **rest)
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer._Bar, event, dies)
        train(settings)


@pytest.mark.parametrize(("event", "times"), [("on_evaluate", 6), ("on_step_end", 17), ("on_train_end", 1)])
def test_patience_goes_on_counting_where_a_kill_came(ready, monkeypatch, event, times):
    killed(ready, monkeypatch, event, times)
    train(ready)
    broken = replace(ready, run="whole")
    broken.folder.mkdir()
    (broken.folder / "split.csv").write_bytes((ready.folder / "split.csv").read_bytes())
    assert len(train(broken)) == 7
    assert results(broken) == results(ready)


def test_a_moved_folder_keeps_its_best_checkpoint(ready, monkeypatch):
    """The kept epoch is the third; the last one's weights would be others."""
    ready = replace(ready, learning_rate=5e-2, epochs=4)
    history = train(ready)
    assert history["kept"].tolist() == [False, False, True, False]
    whole = results(ready)
    (ready.folder / "adapter" / "config.json").unlink()
    killed(ready, monkeypatch, "on_train_end", 1)
    ready.folder.rename(ready.folder.with_name("moved"))
    moved = replace(ready, run="moved")
    train(moved)
    assert results(moved) == whole


def test_no_code_in_a_checkpoint_is_run(ready, monkeypatch, tmp_path, poison):
    killed(ready, monkeypatch, "on_evaluate", 3)
    poisoned = list(ready.folder.glob("training-*/checkpoint-*/*.p*t*"))
    assert {path.name for path in poisoned} >= {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    assert not list(ready.folder.rglob("*.bin"))
    for path in poisoned:
        path.write_bytes(pickle.dumps(poison))
    with pytest.raises(pickle.UnpicklingError, match="weights_only|Weights only"):
        train(ready)
    assert not (tmp_path / "was run").exists()
    assert Run(ready.folder).memory["stages"]["train"]["fingerprint"] is None
