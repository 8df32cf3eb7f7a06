import os
import sys

import pytest
import torch

from sirius_helpers.errors import UserError
from sirius_helpers.models.batching import Batcher, progress


def batches_of(lengths, tokens, fits=10**9):
    seen, batcher = [], Batcher(tokens)

    def work(batch):
        if len(batch) * max(lengths[i] for i in batch) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(batch)

    batcher.run(lengths, work)
    return seen, batcher


def test_batches_are_sorted_by_length_and_stay_under_the_budget():
    seen, _ = batches_of([3, 9, 1, 9, 2], tokens=18)
    assert seen == [[1, 3], [0, 4, 2]]


def test_a_text_longer_than_the_budget_goes_alone():
    seen, _ = batches_of([50, 1], tokens=10)
    assert seen == [[0], [1]]


def test_out_of_memory_halves_the_budget_and_every_item_is_done_once():
    lengths = [8] * 10
    seen, batcher = batches_of(lengths, tokens=80, fits=24)
    assert sorted(i for batch in seen for i in batch) == list(range(10))
    assert max(map(len, seen)) <= 3 and batcher.tokens <= 24


def test_one_text_that_does_not_fit_is_a_clear_error():
    with pytest.raises(UserError, match="single text of 8 tokens"):
        batches_of([8, 8], tokens=100, fits=4)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("could not create a primitive"),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_known_however_a_library_says_it(error):
    failed = []

    def work(batch):
        if len(batch) > 2:
            failed.append(len(batch))
            raise error

    Batcher(40).run([10] * 4, work)
    assert failed == [4]


def test_other_errors_pass_through():
    def broken(_):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        Batcher(10).run([1], broken)


def test_what_is_left_after_a_stop_gets_the_batches_of_an_unbroken_run():
    lengths = [5, 3, 9, 1, 7, 7, 2, 4]
    seen, _ = batches_of(lengths, tokens=14)
    for finished in range(len(seen)):
        done = {i for batch in seen[:finished] for i in batch}
        left = [i for i in range(len(lengths)) if i not in done]
        again, _ = batches_of([lengths[i] for i in left], tokens=14)
        assert [[left[i] for i in batch] for batch in again] == seen[finished:]


def test_a_bar_is_seen_on_a_terminal_that_says_it_has_no_rows(monkeypatch):
    reader, writer = os.openpty()  # of that kind, until it is given a size
    with open(writer, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        progress(5, "label").close()
        terminal.flush()
        assert b"label:   0%" in os.read(reader, 1000)
    os.close(reader)
