"""A language model asked and sampled.

Asked: `questions` gives the probabilities of a prompt's allowed answers; `labelers` and `judge` are its two uses.
Sampled: `candidates.fill` has texts written by `sampler`, refused by `filters` and judged, until there is what
`quotas.plan` wants; `diversity` measures what came out.
"""
