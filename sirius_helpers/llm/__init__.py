"""A language model asked and sampled.

Asked: `questions.ClosedQuestion` (probabilities of allowed answers, one forward pass), through `asking.closed_question`
(a named prompt); `labelers` and `judge` are its two uses. Sampled: `sampler.Sampler`, by `candidates.fill`, which has
texts written, filtered (`filters`) and judged, and tries again for what `quotas.plan` wants. `tokens` and
`answer_tree` turn prompts, reviews and answers into tokens; `diversity` measures what came out. Not here: the
prompts' words (prompts.py), loading (loaders.py), files of a run (the stages).
"""
