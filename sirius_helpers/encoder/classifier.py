"""The classifier itself: an encoder with LoRA adapters, mean pooling and a linear head; saved and loaded.

A saved adapter is a folder of safetensors and JSON: no pickle.

    with Classifier.load(folder / "adapter", device="cpu") as classifier:
        probabilities = classifier(["Сапоги промокают"])            # (texts, labels)
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from tqdm.std import tqdm
from transformers import AutoModel, BatchEncoding, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ..errors import UserError
from ..kinds import Json, Tokenizer
from ..loaders import load_model, load_tokenizer, quiet, release
from ..models.batching import Batcher
from ..models.checks import check_layers, check_positions
from ..settings import ModelSpec, Settings, compute_dtype
from .embedding import mean_pooled, run_rows

WEIGHTS = "adapter_model.safetensors"


class MeanPoolClassifier(nn.Module):
    """Encoder, mean over the tokens, unit length, linear head."""

    def __init__(self, encoder: PreTrainedModel, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, labels)
        self.config = encoder.config  # peft and the Trainer look for it

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Logits in fp32, (batch, labels), of ids and mask, both (batch, tokens); the loss is the trainer's."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        with torch.autocast(hidden.device.type, enabled=False):
            return SequenceClassifierOutput(logits=self.head(mean_pooled(hidden, attention_mask)))


def new_model(settings: Settings, labels: int) -> PeftModel:
    """The base encoder with fresh adapters; only they and the head are trained."""
    model = _base(settings.classifier, settings.device, settings.max_tokens, labels).to(settings.device)
    check_layers(settings.classifier.name, model.encoder, settings.lora_targets)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.lora_targets),
        exclude_modules=r".*pooler.*",  # mean pooling does not use it
        modules_to_save=["head"],
    )
    with quiet():
        return get_peft_model(model, config)


def save(
    model: PeftModel, tokenizer: Tokenizer, folder: Path, settings: Settings, labels: Sequence[str], temperature: float
) -> None:
    """Adapter and head as safetensors, the tokenizer, and config.json: id2label, temperature and base model."""
    config: Any = model.peft_config["default"]
    config.target_modules = sorted(config.target_modules)  # a set's order differs: equal runs, equal files
    with quiet():
        model.save_pretrained(str(folder), safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # an empty template; the evaluation writes model_card.md
    tokenizer.save_pretrained(folder)
    text = json.dumps(config_of(settings, labels, temperature), ensure_ascii=False, indent=2)
    (folder / "config.json").write_text(text, encoding="utf-8")


def config_of(settings: Settings, labels: Sequence[str], temperature: float) -> Json:
    """What config.json holds."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "temperature": temperature,
        "base": vars(settings.classifier),
        "max_tokens": settings.max_tokens,
    }


class Classifier:
    """A trained model, ready for any number of texts; its logits are divided by `temperature`."""

    def __init__(self, model: nn.Module, tokenizer: Tokenizer, config: Json, device: str, tokens_per_batch: int):
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.labels: list[str] = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        self.temperature: float = config["temperature"]
        self.prefix, self.max_tokens = config["base"]["text_prefix"], config["max_tokens"]
        self.batcher = Batcher(tokens_per_batch)  # remembers from call to call what fitted into memory

    @classmethod
    def load(cls, folder: Path, device: str, tokens_per_batch: int = 16_384) -> "Classifier":
        """From a folder that `save` wrote, the adapter merged into its encoder; UserError where it is not whole."""
        folder = Path(folder)
        path = folder / "config.json"
        for file in (path, folder / "adapter_config.json", folder / WEIGHTS):
            if not file.exists():
                raise UserError(f"{file} is missing; run the stage 'train' first: it makes this folder.")
        try:
            config: Json = json.loads(path.read_bytes())
        except ValueError:
            raise UserError(f"{path} is damaged; run the stage 'train' again: it makes this folder.") from None
        found: Any = config.get("temperature")  # 1 in its place would pass for calibrated
        if type(found) not in (int, float) or not 0 < found < math.inf:
            raise UserError(
                f"{path} holds no temperature of the confidence, a number above 0; run the stage 'train' again."
            )
        base = ModelSpec(**config["base"])
        model = _base(base, device, config["max_tokens"], len(config["id2label"]))
        with quiet():
            merged = _with_adapter(model, folder).merge_and_unload().to(device).eval()
        return cls(merged, load_tokenizer(base), config, device, tokens_per_batch)

    def __call__(self, texts: Sequence[str], bar: "tqdm[NoReturn] | None" = None) -> np.ndarray:
        """Probabilities of every label, (texts, labels); `bar` is told how many texts are done."""
        if not len(texts):
            return np.empty((0, len(self.labels)), dtype=np.float32)

        def forward(inputs: BatchEncoding) -> torch.Tensor:
            return torch.softmax(self.model(**inputs).logits / self.temperature, dim=-1)

        return run_rows(
            forward,
            texts,
            self.tokenizer,
            self.device,
            prefix=self.prefix,
            batcher=self.batcher,
            max_tokens=self.max_tokens,
            dtype=compute_dtype(self.device),
            bar=bar,
        )

    def __enter__(self) -> "Classifier":
        return self

    def __exit__(self, *_: object) -> None:
        release(self.model)


def _base(spec: ModelSpec, device: str, max_tokens: int, labels: int) -> MeanPoolClassifier:
    encoder = load_model(AutoModel, spec, device)
    check_positions(spec.name, encoder, max_tokens)
    return MeanPoolClassifier(encoder, labels)


def _with_adapter(model: MeanPoolClassifier, folder: Path) -> PeftModel:
    """The model with the saved adapter and head. peft would leave at random what the file lacks."""
    try:
        adapted: PeftModel = get_peft_model(model, LoraConfig.from_pretrained(str(folder)))
        weights = load_file(folder / WEIGHTS)
    except (SafetensorError, ValueError, TypeError) as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({error}); run the stage 'train' again.") from error
    wanted, found = (
        {(name, tuple(weight.shape)) for name, weight in part.items()}
        for part in (get_peft_model_state_dict(adapted), weights)
    )
    if other := sorted({name for name, _ in wanted ^ found}):
        raise UserError(
            f"{folder / WEIGHTS} is damaged or belongs to another encoder: {len(other)} weights are missing, left over "
            f"or of another shape, such as {other[0]}; run the stage 'train' again."
        )
    set_peft_model_state_dict(adapted, weights)
    return adapted
