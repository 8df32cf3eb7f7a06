"""Model folders that are not what they seem: refused in one line, in the settings and by every loader."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_gemma3, tiny_qwen2, tiny_roberta, tiny_vision_gemma3
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    RobertaForMaskedLM,
    T5Config,
    T5Model,
    ViTConfig,
    ViTModel,
)

from sirius_helpers import loaders
from sirius_helpers.encoder.classifier import Classifier, new_model, save
from sirius_helpers.encoder.embedding import run_rows
from sirius_helpers.errors import UserError
from sirius_helpers.files.inputs import check_inputs
from sirius_helpers.files.journal import read_records
from sirius_helpers.label import label
from sirius_helpers.loaders import causal_lm, encoder, load_model, load_tokenizer
from sirius_helpers.models.batching import Batcher
from sirius_helpers.settings import ModelSpec
from sirius_helpers.show.forms import form_changes


def saved(folder, *parts):
    for part in parts:
        part.save_pretrained(folder)
    return folder


def configured(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def renamed(folder, name):
    """The weights under new names; those whose name is None are left out."""
    weights = {name(key): value for key, value in load_file(folder / "model.safetensors").items()}
    weights.pop(None, None)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def all_unknown():
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "boots": 4}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")


def resized(model, tokens):
    model.resize_token_embeddings(tokens)
    return model


def without_padding(tokenizer):
    tokenizer.pad_token = None
    return tokenizer


ENCODERS = {  # what is wrong with a folder -> how it is made, what is said of it
    "a wrapper's names": (lambda f: renamed(f, "module.{}".format), r"missing \(embeddings\.LayerNorm\.bias, …\)"),
    "a layer too few": (
        lambda f: renamed(f, lambda key: None if "layer.1." in key else key),
        r"16 missing \(encoder\.layer\.1\.attention",
    ),
    "a layer too many": (lambda f: configured(f, num_hidden_layers=1), r"16 left over \(encoder\.layer\.1\.attention"),
    "a layer too many behind a prefix": (
        lambda f: (renamed(f, "roberta.{}".format), configured(f, num_hidden_layers=1)),
        r"16 left over \((roberta\.)?encoder\.layer\.1\.attention",
    ),
    "an adapter's weights in the file": (
        lambda f: save_file(
            load_file(f / "model.safetensors") | {"encoder.layer.0.attention.self.query.lora_A.weight": torch.ones(2)},
            f / "model.safetensors",
            {"format": "pt"},
        ),
        r"1 left over \(encoder\.layer\.0\.attention\.self\.query\.lora_A\.weight\)",
    ),
    "another shape": (lambda f: configured(f, intermediate_size=96), r"6 of another shape \(encoder\.layer\.0\.inter"),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "has no tokenizer, or one that does not"),
    "one token for all": (lambda f: saved(f, all_unknown()), "has no tokenizer, or one that does not tell Russian"),
    "a larger tokenizer": (lambda f: saved(f, resized(tiny_roberta()[0], 300)), "knows 400 tokens and the model 300"),
    "no padding token": (
        lambda f: (saved(f, without_padding(tiny_roberta()[1])), configured(f, pad_token_id=None)),
        "has no padding token; write",
    ),
    "GPTQ": (lambda f: configured(f, quantization_config={"quant_method": "gptq", "bits": 4}), r"packed.*\(gptq\)"),
    "AWQ": (lambda f: configured(f, quantization_config={"quant_method": "awq", "bits": 4}), r"\(awq\).*made from"),
    "bitsandbytes": (
        lambda f: configured(f, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
        r"\(bitsandbytes\).*nf4",
    ),
    "two halves": (
        lambda f: saved(f, T5Model(T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, vocab_size=400))),
        r"is no text encoder (or language model )?\(T5Model\)",
    ),
    "half of two": (lambda f: (ENCODERS["two halves"][0](f), configured(f, architectures=["T5EncoderModel"])), "T5Enc"),
    "pictures": (
        lambda f: saved(
            f, ViTModel(ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2))
        ),
        r"is no text encoder (or language model )?\(ViTModel\)",
    ),
    "an adapter beside it": (lambda f: (f / "adapter_config.json").write_text("{}"), "holds an adapter and no whole"),
    "an unknown kind": (lambda f: configured(f, model_type="nothing"), "could not be loaded"),
    "settings of another type": (lambda f: configured(f, num_hidden_layers="two"), "could not be loaded"),
    "half a file": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:5_000]),
        "could not be loaded",
    ),
}


@pytest.mark.parametrize("fault", ENCODERS)
def test_an_encoder_that_is_not_what_it_seems_is_refused_before_any_work(tmp_path, settings, fault, monkeypatch):
    folder = saved(tmp_path / "my encoder", *tiny_roberta())
    harm, message = ENCODERS[fault]
    harm(folder)
    spec = ModelSpec(str(folder))
    for check in (
        lambda: check_inputs(replace(settings, classifier=spec)),
        lambda: check_inputs(replace(settings, labeler=spec)),
        lambda: (load_model(AutoModel, spec, "cpu"), load_tokenizer(spec)),
    ):
        with pytest.raises(UserError, match=f"my encoder.*{message}") as error:
            check()
        assert "\n" not in str(error.value)


WRITERS = {
    "a wrapper's names": (lambda f: renamed(f, "module.{}".format), r"missing \(lm_head\.weight, …\)"),
    "no head": (lambda f: renamed(f, lambda key: None if "lm_head" in key else key), r"1 missing \(lm_head\.weight\)"),
    "a layer too many": (
        lambda f: configured(f, num_hidden_layers=1, layer_types=["full_attention"]),
        r"12 left over \(model\.layers\.1\.",
    ),
    "an encoder": (lambda f: saved(f, tiny_roberta()[0]), r"is no language model \(RobertaModel\).*ForCausalLM"),
    "an encoder with a head": (
        lambda f: saved(f, RobertaForMaskedLM(tiny_roberta()[0].config)),
        r"is no language model \(RobertaForMaskedLM\)",
    ),
    "GPTQ": (lambda f: configured(f, quantization_config={"quant_method": "gptq", "bits": 4}), r"packed.*\(gptq\)"),
    "no room": (lambda f: configured(f, max_position_embeddings=200), r"room for 200 tokens; prompt '\w+', the"),
}


@pytest.mark.parametrize("fault", WRITERS)
@pytest.mark.parametrize("role", ["labeler", "writer"])
def test_a_language_model_that_is_not_what_it_seems_is_refused_before_any_work(tmp_path, settings, role, fault):
    folder = saved(tmp_path / "my writer", *tiny_qwen2())
    harm, message = WRITERS[fault]
    harm(folder)
    spec = ModelSpec(str(folder), chat=True)
    asked = replace(settings, **{role: spec}, labeler_kind="llm" if role == "labeler" else "few-shot")
    with pytest.raises(UserError, match=f"my writer.*{message}") as error:
        check_inputs(asked)
    assert "\n" not in str(error.value)
    if fault != "no room":
        with pytest.raises(UserError, match=message), causal_lm(spec, "cpu"):
            pytest.fail("was loaded")


HARMLESS = {
    "no pooler": lambda f: renamed(f, lambda key: None if "pooler" in key else key),
    "a head of another task": lambda f: saved(f, RobertaForMaskedLM(tiny_roberta()[0].config)),
    "old buffers": lambda f: save_file(
        load_file(f / "model.safetensors") | {"embeddings.position_ids": torch.arange(258)[None]},
        f / "model.safetensors",
        {"format": "pt"},
    ),
    "padding named by the configuration alone": lambda f: saved(f, without_padding(tiny_roberta()[1])),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_an_encoder_can_do_without_is_no_fault(tmp_path, settings, what):
    folder = saved(tmp_path / "encoder", *tiny_roberta())
    HARMLESS[what](folder)
    spec = ModelSpec(str(folder))
    check_inputs(replace(settings, classifier=spec))
    with encoder(spec, "cpu") as (_, tokenizer):
        assert tokenizer.pad_token == "<pad>"


def test_a_language_model_may_pad_with_its_end_token_and_have_a_tied_head(tmp_path, settings):
    model, tokenizer = tiny_qwen2(tie_word_embeddings=True, pad_token_id=None)
    spec = ModelSpec(str(saved(tmp_path / "writer", model, without_padding(tokenizer))), chat=True)
    check_inputs(replace(settings, writer=spec))
    with causal_lm(spec, "cpu") as (_, tokenizer):
        assert tokenizer.pad_token == tokenizer.eos_token == "<|im_end|>"


def test_more_tokens_than_positions_are_refused_before_the_first_stage_and_before_training(settings, roberta):
    """RoBERTa counts positions from behind the padding's: of 258 here, 256 hold tokens."""
    check_inputs(replace(settings, classifier=ModelSpec(str(roberta)), max_tokens=256))
    message = "reads at most 256 tokens of a text, and max_tokens is 257; set max_tokens=256 or less"
    for check in (check_inputs, lambda asked: new_model(asked, 2)):
        with pytest.raises(UserError, match=message):
            check(replace(settings, classifier=ModelSpec(str(roberta)), max_tokens=257))
    with pytest.raises(UserError, match="embedded:encoder reads at most 512"):
        check_inputs(replace(settings, max_tokens=513))


def test_layers_that_the_classifier_has_not_are_refused_before_the_first_stage_and_before_training(settings, tmp_path):
    asked = replace(settings, classifier=ModelSpec(str(saved(tmp_path / "model", *tiny_qwen2()))))
    for check in (check_inputs, lambda asked: new_model(asked, 2)):
        with pytest.raises(UserError, match=r"lora_targets \['dense', 'key', .* are not layers of .*q_proj"):
            check(asked)


def test_a_text_as_long_as_the_positions_goes_through(settings, roberta):
    with encoder(ModelSpec(str(roberta)), "cpu") as (model, _):
        assert torch.isfinite(model(torch.full((1, 256), 5)).last_hidden_state).all()
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 257), 5))


def test_an_encoder_that_gives_no_numbers_is_refused_and_labels_nothing(tmp_path, settings):
    model, tokenizer = tiny_roberta()
    model.get_input_embeddings().weight.data[100:] = torch.nan
    broken = ModelSpec(str(saved(tmp_path / "broken", model, tokenizer)))
    with pytest.raises(UserError, match="broken: what the encoder makes of texts are no numbers"):
        label(replace(settings, labeler=broken))
    assert not read_records(settings.folder / "labels.jsonl")


def test_a_batch_that_overflows_in_16_bits_is_done_again_in_32(roberta):
    def forward(inputs):
        rows = inputs["input_ids"][:, :1].float()
        return rows + torch.inf if torch.is_autocast_enabled("cpu") else rows

    options = {"prefix": "", "batcher": Batcher(64), "dtype": torch.bfloat16}
    rows = run_rows(forward, ["сапоги", "чашка"], load_tokenizer(ModelSpec(str(roberta))), "cpu", **options)
    assert np.isfinite(rows).all() and rows.shape == (2, 1)


def test_a_chat_model_that_sees_pictures_is_asked_as_a_language_model(tmp_path, settings):
    folder = str(saved(tmp_path / "vision", *tiny_vision_gemma3()))
    changes = form_changes("cpu", labeler=folder)
    assert changes["labeler_kind"] == "llm"
    asked = replace(settings, **changes)
    check_inputs(asked)
    labels = label(asked)
    assert len(labels) == 8 and all(sum(p.values()) == pytest.approx(1, abs=1e-4) for p in labels["probabilities"])
    with pytest.raises(UserError, match=r"is no text encoder \(Gemma3ForConditionalGeneration\)"):
        check_inputs(replace(settings, classifier=ModelSpec(folder)))
    configured(tmp_path / "vision", architectures=["Qwen2VLForConditionalGeneration"], model_type="qwen2_vl")
    with pytest.raises(UserError, match="is no text encoder or language model"):  # transformers cannot ask this one
        form_changes("cpu", labeler=folder)


def test_weights_in_a_folder_are_checked_without_being_read(tmp_path, settings, monkeypatch):
    folder = saved(tmp_path / "writer", *tiny_gemma3())
    devices, real = [], loaders.AutoModelForCausalLM.from_pretrained

    def watched(*arguments, **options):
        devices.append(options["device_map"][""])
        return real(*arguments, **options)

    monkeypatch.setattr(loaders.AutoModelForCausalLM, "from_pretrained", watched)
    check_inputs(replace(settings, writer=ModelSpec(str(folder), weights="nf4")))
    assert devices == ["meta"]
    model = load_model(AutoModelForCausalLM, ModelSpec(str(folder)), "meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (lambda key: None if "head" in key else key, r"damaged .*: 2 weights are missing, .* such as .*head"),
        (lambda key: None if "lora_B" in key and "layer.1." in key else key, r"missing, .* such as .*lora_B"),
        (lambda key: key.replace("encoder", "module.encoder"), "damaged or belongs to another encoder"),
    ],
)
def test_an_adapter_that_is_not_whole_is_refused(settings, roberta, name, message):
    asked = replace(settings, classifier=ModelSpec(str(roberta)))
    folder = settings.folder / "adapter"
    save(new_model(asked, 2), load_tokenizer(asked.classifier), folder, asked, ["обувь", "посуда"], temperature=1.0)
    Classifier.load(folder, "cpu")
    path = folder / "adapter_model.safetensors"
    weights = {name(key): value for key, value in load_file(path).items() if name(key)}
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=f"{message}.*run the stage 'train' again"):
        Classifier.load(folder, "cpu")


def test_an_adapter_of_another_shape_is_refused(settings, roberta):
    asked = replace(settings, classifier=ModelSpec(str(roberta)))
    folder = settings.folder / "adapter"
    save(new_model(asked, 3), load_tokenizer(asked.classifier), folder, asked, ["обувь", "посуда"], temperature=1.0)
    with pytest.raises(UserError, match="2 weights .*of another shape.*head.*run the stage 'train' again"):
        Classifier.load(folder, "cpu")
