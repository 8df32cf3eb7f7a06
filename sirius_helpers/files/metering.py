"""Peak memory of a piece of work: of the process, and of its part of the GPU.

Knows the process and the GPU; not what the work is.

    with Meter() as meter:
        ...
    meter.peaks()                          # {"peak_memory": 1.2} or also "peak_gpu_memory", in GiB
"""

from __future__ import annotations

import threading

import psutil
import torch

EVERY = 0.05  # seconds between two looks at the process; a shorter peak may be missed


class Meter:
    """Watches from a thread, because the operating system's own peak counts from the start of the process."""

    def __enter__(self) -> Meter:
        self._process, self._done = psutil.Process(), threading.Event()
        self._peak = self._process.memory_info().rss
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def peaks(self) -> dict[str, float]:
        """The highest readings so far, in GiB."""
        self._look()
        found = {"peak_memory": round(self._peak / 2**30, 2)}
        if torch.cuda.is_available():
            found["peak_gpu_memory"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return found

    def _watch(self) -> None:
        while not self._done.wait(EVERY):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._process.memory_info().rss)
