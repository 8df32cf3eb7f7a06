"""Predictions: the reference's way (one text at a time, fp32, padded to 256 tokens, the adapter unmerged) against
merged weights, batches sorted by length and autocast, on the same encoder, adapter and texts.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import bench_settings, report, sample_reviews, take_turns

from sirius_helpers.encoder.classifier import Classifier, new_model, save
from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.loaders import load_tokenizer

ROUNDS, TEXTS, BY_REFERENCE, PADDED = 3, 240, 8, 256  # the reference's way sees a few of each round's texts


def main() -> None:
    settings = bench_settings()
    spec, texts = settings.classifier, sample_reviews(TEXTS)
    labels = labels_of(read_categories(settings.data))
    torch.manual_seed(settings.seed)
    model, tokenizer = new_model(settings, len(labels)).eval(), load_tokenizer(spec)
    with torch.no_grad():  # a fresh adapter changes nothing and a fresh head has no opinion; trained ones do
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
            elif weight.requires_grad and "head" in name:
                weight.normal_(std=4)

    def reference(part: list[str]) -> np.ndarray:
        rows = []
        for text in part:
            inputs = tokenizer(
                spec.text_prefix + text, padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt"
            ).to(settings.device)
            with torch.inference_mode():
                logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
            rows.append(torch.softmax(logits, dim=-1)[0].cpu().numpy())
        return np.stack(rows)

    with TemporaryDirectory() as folder:
        save(model, tokenizer, Path(folder), settings, labels, temperature=1.0)
        with Classifier.load(Path(folder), settings.device, settings.tokens_per_batch) as classifier:
            gap = np.abs(reference(texts[:BY_REFERENCE]) - classifier(texts)[:BY_REFERENCE]).max()  # and a warm-up
            rounds = take_turns(lambda _: classifier(texts), reference, texts, ROUNDS, BY_REFERENCE)
    print(f"{spec.name} on {settings.device}: probabilities differ by at most {gap:.4f}")
    report("predict", rounds, "s/text")


if __name__ == "__main__":
    main()
