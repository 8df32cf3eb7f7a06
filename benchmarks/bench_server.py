"""Labels from llama.cpp's server against the same weights in memory: the embedded Gemma-3-270M, twice.

In fp32 both compute alike, so the labels say whether the prompts, answers and probabilities are the same. In the
server's own 4-bit format llama.cpp rounds the activations as well, which the loaded model (bf16) does not.
"""

from dataclasses import replace

import llama_server
import numpy as np
from common import bench_settings, sample_reviews, seconds

from sirius_helpers.files.categories import read_categories
from sirius_helpers.llm.labelers import label_question
from sirius_helpers.loaders import causal_lm
from sirius_helpers.settings import CAUSAL_LM, ModelSpec

REVIEWS = 240


def main() -> None:
    settings, texts = bench_settings(), sample_reviews(REVIEWS)
    taxonomy = read_categories(settings.data)

    def ask(spec: ModelSpec) -> tuple[float, np.ndarray]:
        """The seconds it took, and log-probabilities (reviews × categories)."""
        with causal_lm(spec, "cpu") as (model, tokenizer):
            question = label_question(model, tokenizer, taxonomy, replace(settings, labeler=spec))
            found = []
            return seconds(lambda: found.append(question.log_probs(texts))), found[0]

    for name, weights, options in (("fp32", "fp32", [llama_server.F32]), ("4-bit", "bf16", [])):
        memory, ours = ask(ModelSpec(CAUSAL_LM, weights=weights))
        with llama_server.running(*options) as (_, address):
            server, theirs = ask(ModelSpec(CAUSAL_LM, server=address))
        same, apart = (ours.argmax(1) == theirs.argmax(1)).mean(), np.abs(ours - theirs).mean()
        print(f"server {name} agreement={same:.3f} difference={apart:.3f} seconds={server:.1f} memory={memory:.1f}")


if __name__ == "__main__":
    main()
