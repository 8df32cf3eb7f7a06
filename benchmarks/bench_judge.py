"""Verdicts: the reference's way (two sampled `generate` calls of up to 10 tokens, one text at a time) against one
forward pass per batch with two seeded draws, on the same model and texts.
"""

from common import ReferenceWay, bench_settings, report, sample_reviews, take_turns

from sirius_helpers.llm.judge import judge_question, p_yes, verdicts
from sirius_helpers.loaders import causal_lm
from sirius_helpers.prompts import split_prompt, template_for

ROUNDS, TEXTS, BY_REFERENCE = 3, 120, 8  # the reference's way sees the first few of each round's texts


def main() -> None:
    settings = bench_settings()
    spec, texts = settings.writer, sample_reviews(TEXTS)
    with causal_lm(spec, settings.device) as (model, tokenizer):
        prefix, tail = split_prompt(template_for("judge", {}), tokenizer, spec.chat)
        generate = ReferenceWay(model, tokenizer, spec.chat)

        def ours(_: int) -> list[bool]:
            question = judge_question(model, tokenizer, settings)  # the prefix is encoded anew
            rows = p_yes(question, texts, settings)
            return [all(verdicts(p, settings.judge_draws, str(n))) for n, p in enumerate(rows)]

        def reference(part: list[str]) -> None:
            for text in part:
                for _ in range(settings.judge_draws):
                    options = {"temperature": settings.judge_temperature, "max_new_tokens": 10}
                    generate(prefix + text + tail, do_sample=True, **options)

        reference(texts[:1]), ours(0)  # warm-up
        rounds = take_turns(ours, reference, texts, ROUNDS, BY_REFERENCE)
        yes = sum(ours(0))
    print(f"{spec.name} ({spec.weights}) on {settings.device}: {yes} of {len(texts)} reviews pass as reviews")
    report("judge", rounds, "s/text")


if __name__ == "__main__":
    main()
