"""A language model asked and sampled.

Asked: `questions.closed_question` (probabilities of a prompt's allowed answers, one forward pass); `labelers` and
`judge` are its two uses. Sampled: `sampler.Sampler`, by `candidates.fill`, which has texts written, filtered
(`filters`) and judged, and tries again for what `quotas.plan` wants; `diversity` measures what came out. Not here: the
prompts' words (prompts.py) and tokens (models/), loading (loaders.py), files of a run (the stages).
"""
