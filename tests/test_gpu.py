"""The proof's own arithmetic, and its run in small size."""

import sys

import bitsandbytes
import pytest
import torch

from sirius_helpers.loaders import causal_lm
from sirius_helpers.settings import PROJECT, ModelSpec

sys.path.insert(0, str(PROJECT / "benchmarks"))
import gpu
import synthetic
from roofline import Counted, Rates


@pytest.mark.parametrize("role", ["labeler", "writer", "classifier"])
def test_published_shapes_have_the_published_number_of_weights(role):
    figures = synthetic.FIGURES[role]
    assert sum(weight.numel() for weight in synthetic.on_meta(figures.built()).parameters()) == figures.weights


def test_a_product_is_counted_with_its_arithmetic_its_bytes_and_the_kind_of_its_numbers():
    one, other = torch.ones(64, 32), torch.ones(32, 16)
    with Counted() as single:
        one @ other
    with Counted() as half:
        one.half() @ other.half()
    assert single.operations == [(2 * 64 * 32 * 16, False, 4 * (64 * 32 + 32 * 16 + 64 * 16))]
    assert half.operations[-1] == (2 * 64 * 32 * 16, True, 2 * (64 * 32 + 32 * 16 + 64 * 16))


@pytest.mark.parametrize(
    ("work", "moved"),
    [
        (lambda x: x.view(-1).unsqueeze(0).expand(7, -1), 0),  # the same memory, seen in another way
        (lambda x: x.add_(1), 2 * 4_000),
        (lambda x: x[:, :1].expand(-1, 10).sum(1), 4 * 100 + 4 * 100),  # what is expanded is read once
        (lambda x: torch.nn.functional.embedding(torch.tensor([3]), x), 2 * 40),  # a row, not the table
    ],
)
def test_bytes_are_those_that_an_operation_reads_or_writes(work, moved):
    table = torch.ones(100, 10)
    with Counted() as counted:
        work(table)
    assert counted.moved == moved


def test_a_layer_is_counted_in_inference_too():
    layer, rows = torch.nn.Linear(8, 8), torch.ones(4, 8)
    with torch.inference_mode(), Counted() as counted:
        layer(rows)
    assert counted.flops == 2 * 4 * 8 * 8


def test_a_layer_of_packed_weights_is_counted_like_any_other():
    layer = bitsandbytes.nn.Linear4bit(64, 32, bias=False, quant_type="nf4", compute_dtype=torch.float32).to("cpu")
    with torch.inference_mode(), Counted() as counted:
        layer(torch.ones(4, 64))
    assert counted.flops == 2 * 4 * 64 * 32


def test_a_backward_pass_is_counted_too():
    layer, rows = torch.nn.Linear(8, 8, bias=False), torch.ones(4, 8, requires_grad=True)
    with Counted() as counted:
        layer(rows).sum().backward()
    assert counted.flops == 3 * 2 * 4 * 8 * 8


def test_each_operation_takes_as_long_as_the_slower_of_its_arithmetic_and_its_memory():
    counted = Counted()
    counted.operations = [(1_000, True, 10), (1_000, False, 10), (0, False, 1_000), (0, False, 1)]
    assert counted.seconds(Rates(half=100, single=10, memory=50, kernel=1)) == 10 + 100 + 20 + 1


def test_every_stage_runs_is_counted_and_checked_in_small_size(tmp_path, capsys):
    proof, good = gpu.prove(tmp_path)
    assert good, capsys.readouterr().out
    assert [row["stage"] for row in proof.stages] == list(gpu.SMALL)
    assert all(row[name] > 0 for row in proof.stages for name in ("seconds", "host", "flops", "moved", "T4"))
    assert len(proof.checks) == 11
    text = gpu.report(proof, 1.0)
    assert all(f"| {stage} |" in text for stage in gpu.SMALL) and "fails" not in text


def test_a_check_that_fails_stops_nothing_and_is_told(tmp_path):
    proof = gpu.Proof.__new__(gpu.Proof)
    proof.checks = []
    proof.check("good", lambda: (True, "as it should"))
    proof.check("raises", lambda: 1 / 0)
    assert [good for _, good, _ in proof.checks] == [True, False]
    assert "ZeroDivisionError" in proof.checks[1][2]


def test_loading_in_nf4_never_holds_more_than_a_shard_beyond_what_is_kept(tmp_path):
    figures = synthetic.FIGURES["labeler"]
    shape = figures.small | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8}
    folder = synthetic.checkpoint(tmp_path / "model", figures.built(**shape), 160 * 2**20, torch.bfloat16)
    shards = [path.stat().st_size for path in folder.glob("*.safetensors")]
    assert len(shards) == 2 and sum(shards) > 200 * 2**20
    before = gpu.own_memory()
    with gpu.Peak() as peak, causal_lm(ModelSpec(str(folder), weights="nf4"), "cpu"):
        held = gpu.own_memory() - before
    # A few matrices are under way at once, in two types: some 100 MiB here, whatever the shards' size.
    assert peak.host - before - held < max(shards) <= 160 * 2**20 + 10_000
