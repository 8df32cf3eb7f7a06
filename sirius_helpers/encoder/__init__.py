"""Texts to vectors and classes.

`embedding` gives vectors and the linear model on them, `classifier` is the encoder with LoRA, saved and loaded;
`trainer` trains it so that a kill costs an epoch at most. `scores` says how good it is and what its confidence is
worth, `label_noise` which labels it doubts. Not here: which rows are learned from (split.py), and the files of a run
(the stages).
"""
