import errno
import gc
import os
import re

import pytest
import torch
from tiny_models import saved, tiny_gemma3, tiny_qwen2, tiny_roberta
from transformers import AutoModelForCausalLM, Qwen2Config

from sirius_helpers import loaders
from sirius_helpers.errors import UserError
from sirius_helpers.loaders import causal_lm, encoder, load_tokenizer, plain_dtype, release, weight_bytes
from sirius_helpers.settings import ModelSpec


@pytest.fixture
def qwen(tmp_path):
    return saved(tmp_path / "qwen", tiny_qwen2(hidden_size=64))


def bytes_held(model):
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("weights", ["nf4", "nf4-fp32"])
def test_nf4_weights_take_a_fraction_and_still_give_finite_scores(qwen, weights):
    with causal_lm(ModelSpec(qwen), "cpu") as (model, tokenizer):
        full = model.model.layers[0].mlp.up_proj.weight
        full_bytes = full.nbytes
    with causal_lm(ModelSpec(qwen, weights=weights), "cpu") as (model, tokenizer):
        layer = model.model.layers[0].mlp.up_proj
        assert type(layer).__name__ == "Linear4bit" and layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.nbytes * 8 == full_bytes
        logits = model(**tokenizer("Сапоги промокают", return_tensors="pt")).logits
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("weights", "fast", "dtype"),
    [
        ("fp32", True, torch.float32),
        ("fp16", False, torch.float16),
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.float32),  # a CPU that emulates it
    ],
)
def test_the_named_type_is_the_type_in_memory(qwen, monkeypatch, weights, fast, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast)
    with causal_lm(ModelSpec(qwen, weights=weights), "cpu") as (model, tokenizer):
        assert {p.dtype for p in model.parameters()} == {dtype}
        assert tokenizer.padding_side == "left" and tokenizer.pad_token


@pytest.mark.parametrize("weights", ["fp32", "nf4"])
def test_memory_is_free_after_the_block_even_while_a_name_holds_the_model(qwen, weights):
    with causal_lm(ModelSpec(qwen, weights=weights), "cpu") as (model, _):
        assert bytes_held(model) > 50_000
    assert bytes_held(model) == 0


def test_models_are_loaded_one_after_another_and_none_stays(tmp_path):
    folders = [
        (causal_lm, saved(tmp_path / "q", tiny_qwen2())),
        (causal_lm, saved(tmp_path / "g", tiny_gemma3())),
        (encoder, saved(tmp_path / "r", tiny_roberta())),
    ]
    held = []
    for loader, folder in folders:
        with loader(ModelSpec(folder), "cpu") as (model, _):
            held.append(model)
            assert [bytes_held(m) > 0 for m in held] == [False] * (len(held) - 1) + [True]
    gc.collect()
    assert sum(map(bytes_held, held)) == 0


def test_memory_is_freed_when_the_block_fails(qwen):
    with pytest.raises(ZeroDivisionError), causal_lm(ModelSpec(qwen), "cpu") as (model, _):
        raise ZeroDivisionError
    assert bytes_held(model) == 0


def test_a_tied_head_is_released_too():
    model, _ = tiny_gemma3()
    release(model)
    assert bytes_held(model) == 0


def test_a_model_that_is_not_there_is_named_with_the_remedy():
    with pytest.raises(UserError, match="model 'no-such/model' was found neither in the cache .*Check the network"):
        load_tokenizer(ModelSpec("no-such/model"))


def test_pickled_weights_are_refused(tmp_path):
    model, tokenizer = tiny_roberta()
    folder = saved(tmp_path / "r", (model, tokenizer))
    (tmp_path / "r" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "r" / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"could not be loaded"), encoder(ModelSpec(folder), "cpu"):
        pass


SEVEN_B = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "vocab_size": 152064}
SEVEN_B |= {"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}


@pytest.mark.parametrize(("weights", "gib"), [("nf4", 5.449), ("nf4-fp32", 7.480), ("fp16", 14.185), ("fp32", 28.370)])
def test_the_need_of_a_7b_model_is_known_from_its_config_alone(tmp_path, weights, gib):
    Qwen2Config(**SEVEN_B).save_pretrained(tmp_path)
    needed = weight_bytes(AutoModelForCausalLM, ModelSpec(str(tmp_path), weights=weights), "cuda")
    assert needed / 2**30 == pytest.approx(gib, abs=0.001)


@pytest.mark.parametrize("weights", ["nf4", "bf16", "fp32"])
@pytest.mark.parametrize("make", [tiny_qwen2, tiny_gemma3])
def test_the_computed_need_is_what_the_loaded_weights_take(tmp_path, make, weights):
    spec = ModelSpec(saved(tmp_path, make(hidden_size=64)), weights=weights)
    with causal_lm(spec, "cpu") as (model, _):
        held = {p.data_ptr(): p.nbytes for p in model.parameters()}  # tied weights lie in one place
        scales = [p.quant_state.absmax.nbytes for p in model.parameters() if hasattr(p, "quant_state")]
        assert weight_bytes(AutoModelForCausalLM, spec, "cpu") == sum(held.values()) + sum(scales)


@pytest.mark.parametrize(
    ("weights", "mended", "cost"),
    [("nf4", "nf4-fp32", r"7\.5 GiB instead of 5\.4"), ("fp16", "fp32", r"28\.4 GiB instead of 14\.2")],
)
def test_what_mends_an_overflow_on_a_gpu_is_a_setting_and_its_cost_is_said(tmp_path, weights, mended, cost):
    Qwen2Config(**SEVEN_B).save_pretrained(tmp_path)
    spec = ModelSpec(str(tmp_path), weights=weights, chat=True, revision="abc")
    said = loaders._if_not_finite(spec, "cuda", "labeler")
    values = {"name": str(tmp_path), "weights": mended, "chat": True, "revision": "abc"}
    assert re.search(cost, said) and f"CHANGES = {{'labeler': {values}}} computes in fp32" in said
    assert plain_dtype(spec, "cuda") == torch.float16
    assert plain_dtype(ModelSpec(**values), "cuda") == torch.float32


def test_a_model_larger_than_the_free_memory_is_refused_before_its_weights_are_read(monkeypatch, qwen):
    monkeypatch.setattr(loaders, "free_bytes", lambda device: 100_000)
    monkeypatch.setattr(loaders.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("was read"))
    message = r"\(fp32\) does not fit: its weights need 0\.0 GiB of host memory and 0\.0 GiB are free.*smaller model"
    with pytest.raises(UserError, match=message), causal_lm(ModelSpec(qwen), "cpu"):
        pass


def test_a_model_too_large_for_the_card_says_so(monkeypatch, qwen):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")

    monkeypatch.setattr(loaders.AutoModelForCausalLM, "from_pretrained", full)
    expected = pytest.raises(UserError, match="does not fit into memory.*choose a smaller model")
    with expected, causal_lm(ModelSpec(qwen), "cpu"):
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "Too many open files. Restart the kernel"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device. Free some space.$"),
        (OSError("no file named model.safetensors"), "no file named .*Check the name, the network"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/no/such/folder/model"), "Check the name, the network"),
    ],
    ids=str,
)
def test_what_keeps_a_model_from_loading_is_named_with_its_own_remedy(monkeypatch, qwen, error, said):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(loaders.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(UserError, match=f"could not be loaded: .*{said}"), causal_lm(ModelSpec(qwen), "cpu"):
        pass
