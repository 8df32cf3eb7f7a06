"""The budget's own arithmetic, and its run in small size."""

import sys

import pytest
import torch

from sirius_helpers.settings import PROJECT

sys.path.insert(0, str(PROJECT / "benchmarks"))
import synthetic
import t4_budget
import t4_work
from t4_work import Shape, Work


@pytest.mark.parametrize("role", ["labeler", "writer", "classifier"])
def test_published_shapes_have_the_published_number_of_weights(role):
    figures = synthetic.FIGURES[role]
    assert sum(weight.numel() for weight in synthetic.on_meta(figures.built()).parameters()) == figures.weights


def test_a_floor_is_the_slower_of_arithmetic_and_memory():
    assert Work(flops=10, moved=3).floor(flops=5, bandwidth=1) == 3
    assert Work(flops=10, moved=1).floor(flops=5, bandwidth=1) == 2


def test_work_is_what_torch_counts_in_a_forward():
    figures = synthetic.FIGURES["writer"]
    config = figures.built(**figures.small)
    model = synthetic.auto_class(config).from_config(config, attn_implementation="eager")
    shape, tokens = Shape(config, "fp32"), 12
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        model.get_decoder()(torch.zeros(1, tokens, dtype=torch.long))
    assert shape.read(tokens, tokens * tokens, 1).flops == pytest.approx(counter.get_total_flops(), rel=0.01)
    held = sum(w.nbytes for n, w in model.get_decoder().named_parameters() if w.dim() == 2 and "embed" not in n)
    assert shape.read(tokens, 0, 1).moved == held


def test_writing_reads_the_weights_once_for_each_step_of_a_batch():
    figures = synthetic.FIGURES["writer"]
    shape = Shape(figures.built(**figures.small), "bf16")
    one, two = (t4_work.writing_work(shape, 0, [10] * n, new=5, budget=30) for n in (2, 4))
    assert two.moved == 2 * one.moved and two.flops == 2 * one.flops
    together = t4_work.writing_work(shape, 0, [10] * 4, new=5, budget=60)
    assert together.flops == two.flops and together.moved < two.moved
    shared, whole = (t4_work.writing_work(shape, n, [60 - n] * 9, new=5, budget=130) for n in (50, 0))
    assert whole.flops > 2 * shared.flops


def test_every_stage_of_the_t4_profile_runs_and_is_counted_in_small_size(tmp_path, capsys):
    table = t4_budget.run(tmp_path, "cpu")
    assert table["stage"].tolist() == ["label", "paraphrase", "judge", "train", "predict"]
    assert (table[["loading", "seconds", "floor here", "T4 floor", "T4 projected", "host GiB"]] > 0).all().all()
    assert table["T4 projected"].to_numpy() == pytest.approx(
        (table["seconds"] * table["T4 floor"] / table["floor here"]).to_numpy()
    )
    assert "not how fast a T4 would be" in capsys.readouterr().out


def test_loading_in_nf4_never_holds_more_than_a_shard_beyond_what_is_kept(tmp_path, monkeypatch):
    figures = synthetic.FIGURES["labeler"]
    shape = figures.shape | figures.small | {"hidden_size": 1024, "intermediate_size": 4096}
    monkeypatch.setitem(synthetic.FIGURES, "labeler", synthetic.Figures(figures.name, figures.config, shape, {}))
    found = t4_budget.loader(tmp_path, layers=8, shard_bytes=160 * 2**20)
    assert len(list((tmp_path / "seven").glob("*.safetensors"))) == 2 and found["checkpoint"] > 200 * 2**20
    # A few matrices are under way at once, in two types: some 100 MiB here, whatever the shards' size.
    assert found["beyond what is held"] < found["largest shard"] <= 160 * 2**20 + 10_000
