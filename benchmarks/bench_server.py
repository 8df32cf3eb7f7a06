"""Labels from llama.cpp's server (the embedded Gemma-3-270M, 4-bit) against the same weights in memory (bf16)."""

from __future__ import annotations

from dataclasses import replace

import llama_server
from common import bench_settings, sample_reviews, seconds

from sirius_helpers.categories import read_categories
from sirius_helpers.labeling import label_question
from sirius_helpers.loaders import causal_lm
from sirius_helpers.settings import CAUSAL_LM, ModelSpec

REVIEWS = 240


def main() -> None:
    settings, texts = bench_settings(), sample_reviews(REVIEWS)
    taxonomy = read_categories(settings.data)
    found, took = {}, {}

    def ask(name: str, spec: ModelSpec) -> None:
        with causal_lm(spec, "cpu") as (model, tokenizer):
            question = label_question(model, tokenizer, taxonomy, replace(settings, labeler=spec))
            took[name] = seconds(lambda: found.update({name: question.log_probs(texts)}))

    ask("memory", ModelSpec(CAUSAL_LM, weights="bf16"))
    with llama_server.running() as (_, address):
        ask("server", ModelSpec(CAUSAL_LM, server=address))
    same = (found["memory"].argmax(1) == found["server"].argmax(1)).mean()
    print(f"server agreement={same:.3f} seconds={took['server']:.1f} memory={took['memory']:.1f} reviews={len(texts)}")


if __name__ == "__main__":
    main()
