"""Memory-saving loaders: one model at a time, its memory freed on exit whatever still points to it.

with causal_lm(settings.writer, settings.device) as (model, tokenizer):
    ...
"""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as progress_bars

from .errors import UserError, is_out_of_memory, refusal
from .kinds import Json, LanguageModel, Tokenizer
from .models import hub
from .models.batching import free_memory
from .models.checks import check_config, check_report, check_tokenizer
from .settings import EMBEDDED, ModelSpec, compute_dtype

AutoClass = type[AutoModel] | type[AutoModelForCausalLM]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "nf4-fp32": torch.float32}
PACKED = ("nf4", "nf4-fp32")
FREE_SOME = "Restart the kernel to free what else is loaded, or choose a smaller model"
# A model's own code is never run, and beside the folder's files nothing is asked for.
SAFE = {"trust_remote_code": False, "local_files_only": True}


@contextmanager
def _loaded(auto_class: AutoClass, spec: ModelSpec, device: str) -> Iterator[tuple[PreTrainedModel, Tokenizer]]:
    model = load_model(auto_class, spec, device)
    try:
        yield model, load_tokenizer(spec)
    finally:
        release(model)


encoder = partial(_loaded, AutoModel)  # a bidirectional encoder without a head, and its tokenizer


@contextmanager
def causal_lm(spec: ModelSpec, device: str, role: str = "writer") -> Iterator[tuple[LanguageModel, Tokenizer]]:
    """A causal language model and its tokenizer, padded on the left for generation; or the server that holds it.

    Where its scores turn out not to be finite, the error names the setting of its `role` that mends it.
    """
    if spec.server:
        from .extras.server import Server

        yield Server(spec), load_tokenizer(spec)
        return
    with _loaded(AutoModelForCausalLM, spec, device) as (model, tokenizer):
        tokenizer.padding_side = "left"
        vars(model)["if_not_finite"] = partial(_if_not_finite, spec, device, role)
        yield model, tokenizer


def local_name(spec: ModelSpec, weights: bool = False) -> str:
    """The folder that `from_pretrained` takes; a hub model's weights are downloaded only where they are asked for."""
    if spec.on_hub:
        with quiet(bars=weights):
            return str(hub.fetch(hub.source_of(spec), weights))
    if spec.name not in EMBEDDED:
        return spec.name
    from .embedded.folders import model_folder  # for CPUs alone

    return str(model_folder(spec.name))


def load_config(spec: ModelSpec, causal: bool | None = None) -> PretrainedConfig:
    """The configuration alone, of a model that can be loaded here: as a language model, as an encoder, or as either."""
    if Path(spec.name, "adapter_config.json").exists():  # transformers would look for another model to put it on
        raise UserError(f"{spec.name} holds an adapter and no whole model; merge the two, or name the model itself.")
    with _clear_errors(spec), quiet():
        config: PretrainedConfig = AutoConfig.from_pretrained(local_name(spec), **SAFE)
        check_config(spec.name, config, causal)
        return config


def load_tokenizer(spec: ModelSpec) -> Tokenizer:
    """The tokenizer alone, one that tells Russian words apart and can pad."""
    config = None if spec.server else load_config(spec)
    with _clear_errors(spec), quiet():
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(local_name(spec), **SAFE)
        check_tokenizer(spec.name, tokenizer, config)
        return tokenizer


def load_model(auto_class: AutoClass, spec: ModelSpec, device: str) -> PreTrainedModel:
    """Weights only from safetensors, in the type that `spec` names.

    On the device "meta" nothing is read but the weights' names and shapes: whether a model could be loaded.
    """
    load_config(spec, causal=auto_class is AutoModelForCausalLM)
    dtype, packed, real = plain_dtype(spec, device), spec.weights in PACKED, device != "meta"
    # Other shapes are reported, with all the rest, instead of raised.
    options: Json = {"use_safetensors": True, "dtype": dtype, **SAFE, "ignore_mismatched_sizes": True}
    if packed and real:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    if device != "cpu" or packed:
        # A named device: never spill to the host silently.
        options["device_map"] = {"": torch.cuda.current_device() if device == "cuda" else device}
    with _clear_errors(spec), quiet(bars=spec.name not in EMBEDDED and real):
        if real:
            check_fits(auto_class, spec, device)
        name = local_name(spec, weights=True)
        loaded: Any = auto_class.from_pretrained(name, output_loading_info=True, **options)
        model: PreTrainedModel = loaded[0].eval()
        check_report(spec.name, model, loaded[1])
        return model


def plain_dtype(spec: ModelSpec, device: str) -> torch.dtype:
    """Type of the weights that are not packed, and of the arithmetic: a T4 has no bf16, a CPU no fast fp16.

    bf16 is fp32 on a CPU without instructions for it: there the judge took seven times as long in bf16, a text half
    again.
    """
    if spec.weights == "nf4":
        return torch.float16 if device == "cuda" else torch.float32
    if spec.weights == "bf16" and device == "cpu":
        return compute_dtype(device) or torch.float32
    return DTYPES[spec.weights]


def check_fits(auto_class: AutoClass, spec: ModelSpec, device: str) -> int:
    """What the weights need, in bytes; more than is free is refused, before they are downloaded or read."""
    with _clear_errors(spec):
        needed, free = weight_bytes(auto_class, spec, device), free_bytes(device)
    if needed > free:
        raise UserError(
            f"{spec.name} ({spec.weights}) does not fit: its weights need {needed / 2**30:.1f} GiB of "
            f"{'GPU' if device == 'cuda' else 'host'} memory and {free / 2**30:.1f} GiB are free. {FREE_SOME}."
        )
    return needed


def skeleton(auto_class: AutoClass, spec: ModelSpec) -> PreTrainedModel:
    """A model without its weights, from its configuration alone."""
    config = AutoConfig.from_pretrained(local_name(spec), **SAFE)
    with torch.device("meta"):
        # `from_config` has no annotations, and `untyped_calls_exclude` does not see it through the two classes.
        model: PreTrainedModel = auto_class.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
    return model


def weight_bytes(auto_class: AutoClass, spec: ModelSpec, device: str) -> int:
    """What a model's weights will take, from its configuration alone."""
    model = skeleton(auto_class, spec)
    # Tied weights count once.
    size: dict[torch.Tensor, float] = dict.fromkeys(model.parameters(), plain_dtype(spec, device).itemsize)
    if spec.weights in PACKED:
        head = model.get_output_embeddings()
        packed = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
        size |= dict.fromkeys(packed, 0.5 + 4 / 64)  # half a byte, and an fp32 scale for each block of 64
    return round(sum(p.numel() * bytes_each for p, bytes_each in size.items()))


def _if_not_finite(spec: ModelSpec, device: str, role: str) -> str:
    """What to do where a model's scores are not finite; only fp16 is too narrow for a sound model."""
    said = f"{role} {spec.name} ({spec.weights}): its scores are not finite"
    if plain_dtype(spec, device) != torch.float16:
        return f"{said}. Its weights are damaged or hold no trained model; load them again or choose another model."
    wider = replace(spec, weights="nf4-fp32" if spec.weights in PACKED else "fp32")
    now, then = (weight_bytes(AutoModelForCausalLM, one, device) / 2**30 for one in (spec, wider))
    usual = vars(ModelSpec(""))
    values = {name: value for name, value in vars(wider).items() if name == "weights" or value != usual[name]}
    return (
        f"{said}: fp16 overflows, as Qwen2's can. In the settings, CHANGES = {{{role!r}: {values!r}}} computes in "
        f"fp32; it is slower, and the weights take {then:.1f} GiB instead of {now:.1f}."
    )


def free_bytes(device: str) -> int:
    """Memory that a new model may take on the device."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def memory(device: str) -> dict[str, str]:
    """The device's name and free memory, as a person reads them."""
    host = {"free host memory": f"{free_bytes('cpu') / 2**30:.1f} GiB"}
    if device == "cpu":
        return {"device": f"CPU, {os.cpu_count()} cores", **host}
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info())
    return {"device": torch.cuda.get_device_name(0), **host, "free GPU memory": f"{free:.1f} of {total:.1f} GiB"}


@contextmanager
def quiet(bars: bool = False) -> Iterator[None]:
    """Without the libraries' hints and warnings, nor, but for `bars`, their progress bars: those of a download."""
    logger, had_bars = logging.getLogger("transformers"), progress_bars.is_progress_bar_enabled()
    level = logger.level
    logger.setLevel(logging.ERROR)
    if not bars:
        progress_bars.disable_progress_bar()  # the hub's too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if had_bars:
            progress_bars.enable_progress_bar()


def release(model: torch.nn.Module) -> None:
    """Empty a model's tensors, so that its memory is free even while a name or a traceback holds the model."""
    tensors: list[Any] = [*model.parameters(), *model.buffers()]
    for tensor in tensors:
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        if hasattr(tensor, "quant_state"):
            tensor.quant_state = None
    free_memory()


@contextmanager
def _clear_errors(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what, kind = "could not be loaded", "folder" if Path(spec.name).exists() else "model"
        advice = "Check the name, the network, and that it has whole *.safetensors weights and needs no code of its own"
        if is_out_of_memory(error):
            what, advice = f"does not fit into memory as {spec.weights}", FREE_SOME
        elif not isinstance(error, FileNotFoundError) and (refused := refusal(error)):
            advice = refused[2]
        raise UserError(f"{kind} {spec.name!r} {what}: {reason.rstrip('.')}. {advice}.") from error
