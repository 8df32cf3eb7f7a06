"""Work in length-sorted batches that always fit: a budget of padded tokens that halves on out-of-memory.
And the bar that says how far it is.

    batcher = Batcher(tokens=16_384)
    batcher.run(lengths, work)             # work(indices) for one batch after the other
"""

import gc
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import torch
from tqdm.std import tqdm

from ..errors import UserError, is_out_of_memory


class Batcher:
    """Cuts work into batches of at most `tokens` padded tokens and remembers what fitted."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def run(self, lengths: Sequence[int], work: Callable[[list[int]], None]) -> None:
        """Call `work` with the indices of each batch, longest first, so that memory runs out early or never.

        Whoever starts again with the unfinished items gets the same batches as an unbroken run.
        """
        left = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
        while left:
            longest = max(1, lengths[left[0]])
            batch = left[: max(1, self.tokens // longest)]
            try:
                work(batch)
                left = left[len(batch) :]
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise UserError(
                        f"out of memory on a single text of {longest} tokens; free memory (restart the kernel), "
                        "choose a smaller model or lower max_tokens."
                    ) from error
                self.tokens = len(batch) // 2 * longest
            free_memory()  # outside the except block: the traceback holds the failed batch's tensors


def free_memory() -> None:
    """Give unreferenced memory back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def progress(total: int, what: str) -> "tqdm[NoReturn]":
    """A progress bar with an ETA, as plain text. Its size is given: the terminal around a kernel may have no rows."""
    return tqdm(total=total, desc=what, file=sys.stdout, ncols=79, nrows=20, mininterval=0.5)
