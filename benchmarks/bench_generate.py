"""Synthetic reviews: the reference's way (one candidate at a time, the judge by two sampled `generate` calls of up to
10 tokens) against batches with a shared prefix, on the same model, originals and rule of acceptance.

Both ways draw their candidates from the same distribution, so an attempt is accepted equally often; that share is
taken from our way's larger sample, and both times are for one accepted review.
"""

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from common import ReferenceWay, bench_settings, report, sample_reviews, take_turns

from sirius_helpers.files.journal import Journal
from sirius_helpers.llm.candidates import Writer, fill
from sirius_helpers.llm.filters import bare, first_reason
from sirius_helpers.llm.quotas import Wanted
from sirius_helpers.loaders import causal_lm
from sirius_helpers.prompts import split_prompt, template_for

ROUNDS, ORIGINALS, BY_REFERENCE = 2, 64, 4


def main() -> None:
    settings = replace(bench_settings(), max_attempts=1)
    spec, reviews = settings.writer, sample_reviews(ORIGINALS)
    with causal_lm(spec, settings.device) as (model, tokenizer), tempfile.TemporaryDirectory() as folder:
        writer = Writer(model, tokenizer, settings)
        prefix, tail = split_prompt(template_for("judge", {}), tokenizer, spec.chat)
        generate = ReferenceWay(model, tokenizer, spec.chat)
        known = [bare(text) for text in reviews]
        accepted = attempts = 0

        def ours(number: int) -> None:
            nonlocal accepted, attempts
            kept, refused = (Journal(Path(folder, f"{name}{number}.jsonl"), "bench") for name in ("kept", "refused"))
            wanted = [Wanted(f"{number}-{n}", 1, "", text) for n, text in enumerate(reviews)]
            fill(wanted, writer, kept, refused, reviews, settings)
            accepted, attempts = accepted + len(kept.records), attempts + len(reviews)

        def reference(part: list[str]) -> None:
            for text in part:
                shared, rest = writer.prompt(text)
                whole = (0, [*writer.tokens.prefix_ids[:shared], *rest])  # nothing is shared with other prompts
                (candidate,) = writer.write([whole], [random.getrandbits(63)])
                if first_reason(candidate, text, known, settings):
                    continue
                for _ in range(settings.judge_draws):
                    options = {"temperature": settings.judge_temperature, "max_new_tokens": 10}
                    generate(prefix + candidate + tail, do_sample=True, **options)

        reference(reviews[:1])  # warm-up
        rounds = take_turns(ours, reference, reviews, ROUNDS, BY_REFERENCE)
    share = max(accepted, 1) / attempts
    print(f"{spec.name} ({spec.weights}) on {settings.device}: {accepted} of {attempts} attempts accepted")
    report("generate", [(own / share, other / share) for own, other in rounds], "s/accepted review")


if __name__ == "__main__":
    main()
