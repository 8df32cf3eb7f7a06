"""Labels: the reference's way (one prompt at a time, greedy `generate` of up to 20 tokens, the text searched for a
category) against the closed question, on the same model and reviews.
"""

from dataclasses import replace

from common import ReferenceWay, bench_settings, forward_flops, matmul_rate, report, sample_reviews, take_turns

from sirius_helpers.files.categories import described, labels_of, read_categories
from sirius_helpers.llm.labelers import label_prompt, label_question
from sirius_helpers.loaders import causal_lm
from sirius_helpers.prompts import split_prompt
from sirius_helpers.settings import CAUSAL_LM, ModelSpec

ROUNDS, REVIEWS, BY_REFERENCE = 3, 120, 8  # the reference's way sees the first few of each round's reviews


def main() -> None:
    settings = bench_settings()
    spec = settings.labeler if settings.labeler_kind == "llm" else ModelSpec(CAUSAL_LM, weights="bf16")
    settings = replace(settings, labeler=spec)
    taxonomy, reviews = read_categories(settings.data), sample_reviews(REVIEWS)
    with causal_lm(spec, settings.device) as (model, tokenizer):
        template = label_prompt(taxonomy, settings)
        prefix, tail = split_prompt(template, tokenizer, spec.chat, categories=described(taxonomy))
        generate = ReferenceWay(model, tokenizer, spec.chat)

        def ours(_: int) -> None:
            question = label_question(model, tokenizer, taxonomy, settings)  # prefix encoded anew
            rows.append(question.log_probs(reviews))

        def reference(part: list[str]) -> None:
            for text in part:
                answers.append(generate(prefix + text + tail, do_sample=False, max_new_tokens=20))

        rows: list = []
        answers: list[str] = []
        reference(reviews[:1]), ours(0)  # warm-up
        answers.clear(), rows.clear()
        rounds = take_turns(ours, reference, reviews, ROUNDS, BY_REFERENCE)

        question = label_question(model, tokenizer, taxonomy, settings)
        fixed, tree = len(question.prompt.prefix_ids), len(question.tree.ids)
        sizes = [len(rest) + tree for _, rest in map(question.prompt.with_text, reviews)]
        pairs = fixed * fixed // 2 + sum(size * fixed + size * size // 2 for size in sizes)
        flops = forward_flops(model, fixed + sum(sizes), pairs)
        ceiling = matmul_rate(model.dtype, settings.device)
        achieved = flops / (min(own for own, _ in rounds) * len(reviews))
        labels = labels_of(taxonomy)
        chosen = [labels[i] for i in rows[0].argmax(1)]
        valid = sum(answer.strip() in labels for answer in answers)
        same = sum(answer.strip() == own for answer, own in zip(answers, chosen, strict=False))
    print(f"{spec.name} ({spec.weights}) on {settings.device}: prefix {fixed} tokens, {tree} nodes in the answer tree")
    print(f"reference: {valid} of {len(answers)} answers are categories; {same} are what the closed question says")
    print(f"our forward: {achieved / 1e9:.0f} GFLOP/s, {achieved / ceiling:.0%} of this machine's {ceiling / 1e9:.0f}")
    report("label", rounds, "s/review")


if __name__ == "__main__":
    main()
