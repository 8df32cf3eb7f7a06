"""Training steps: the reference's way (every text padded to 256 tokens, fp32) against padding to the batch's longest
text, batches of similar length and autocast, on the same encoder, adapter, optimiser and texts.
"""

from collections.abc import Sequence

import torch
from common import bench_settings, report, sample_reviews, seconds
from torch import nn
from transformers.trainer_pt_utils import LengthGroupedSampler

from sirius_helpers.encoder.classifier import new_model
from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.loaders import load_tokenizer
from sirius_helpers.settings import compute_dtype

ROUNDS, TEXTS, PADDED = 3, 240, 256


def main() -> None:
    settings = bench_settings()
    spec, size = settings.classifier, settings.batch_size
    labels = labels_of(read_categories(settings.data))
    tokenizer = load_tokenizer(spec)
    ids = tokenizer([spec.text_prefix + text for text in sample_reviews(TEXTS)], truncation=True, max_length=PADDED)
    ids = ids["input_ids"]
    torch.manual_seed(settings.seed)
    model = new_model(settings, len(labels)).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    targets = torch.randint(len(labels), (len(ids),))
    grouped = LengthGroupedSampler(size, lengths=[len(x) for x in ids], generator=torch.Generator().manual_seed(0))

    def step(batch: Sequence[int], dtype: torch.dtype | None, **padding) -> None:
        inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt", **padding)
        inputs = inputs.to(settings.device)
        with torch.autocast(settings.device, dtype=dtype, enabled=dtype is not None):
            logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        nn.functional.cross_entropy(logits, targets[list(batch)].to(settings.device)).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step(), optimiser.zero_grad()

    def reference(batch: Sequence[int]) -> None:
        step(batch, None, padding="max_length", max_length=PADDED)

    def ours(batches: Sequence[Sequence[int]]) -> None:
        for batch in batches:
            step(batch, compute_dtype(settings.device))

    order = list(grouped)
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    reference(batches[0]), ours(batches[:1])  # warm-up
    rounds = []
    for n in range(ROUNDS):  # together our rounds are an epoch, so that every length has its share
        part = batches[n::ROUNDS]
        theirs = seconds(lambda part=part: reference(part[0])) / size
        rounds.append((seconds(lambda part=part: ours(part)) / sum(map(len, part)), theirs))
    own, other = (sorted(1 / x for x in column)[len(column) // 2] for column in zip(*rounds, strict=True))
    print(f"{spec.name} on {settings.device}, batches of {size}: {own:.1f} samples a second, reference {other:.1f}")
    report("train", rounds, "s/sample")


if __name__ == "__main__":
    main()
