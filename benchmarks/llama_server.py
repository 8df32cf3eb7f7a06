"""llama.cpp's server on an embedded model, in a process of its own; prints its address and serves until killed.

python benchmarks/llama_server.py FOLDER [--f32] [--chat]     FOLDER: where the model is put together

The model is Gemma-3-270M, eight requests at once; with --chat Qwen2.5-Coder-1.5B-Instruct, one at a time.
"""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

F32, CHAT = "--f32", "--chat"


@contextmanager
def running(*options: str, seconds: float = 120) -> Iterator[tuple[subprocess.Popen, str]]:
    """The process and its address, such as http://127.0.0.1:43111/v1; with `F32` it computes as a loaded model does."""
    with tempfile.TemporaryDirectory(prefix="sirius-gguf-") as folder:  # here: a killed process clears nothing away
        command = [sys.executable, __file__, folder, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = process.stdout.readline().strip()
            if not address:
                raise RuntimeError(f"the server ended with code {process.wait(seconds)}")
            yield process, address
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def serve(folder: Path, options: list[str]) -> None:
    import xllamacpp

    from sirius_helpers.embedded.folders import SOURCES
    from sirius_helpers.embedded.weights import join_parts
    from sirius_helpers.settings import CAUSAL_LM, CHAT_LM

    said = os.dup(1)
    os.dup2(2, 1)  # llama.cpp's own log goes elsewhere
    path = folder / "model.gguf"
    join_parts(path, SOURCES[CHAT_LM if CHAT in options else CAUSAL_LM])
    if F32 in options:
        path = dequantised(path, folder / "f32.gguf")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    # Each slot reads a long prompt's beginning for itself, so the chat model gets a single one.
    slots, tokens = (1, 4096) if CHAT in options else (8, 1024)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = slots * tokens, slots, 0
    params.cpuparams.n_threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    params.hostnames, params.port = ["127.0.0.1"], 0
    server = xllamacpp.Server(params)
    os.write(said, f"{server.listening_address}/v1\n".encode())
    threading.Event().wait()


def dequantised(source: Path, target: Path) -> Path:
    """The same model with its weights written out in fp32: behind 4-bit weights llama.cpp rounds activations too."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, dequantize

    reader = GGUFReader(source)
    kept = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = GGUFWriter(target, kept.pop("general.architecture").contents())
    for name, field in kept.items():
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])
