"""Texts to vectors and classes.

`embedding.embed` gives vectors, `baseline` the linear model on them, `classifier` the encoder with LoRA, saved and
loaded; `trainer` and `checkpoints` train it so that a kill costs an epoch at most. `scores` and `calibration` say how
good it is, `label_noise` which labels it doubts. Not here: which rows are learned from (split.py), and the files of a
run (the stages).
"""
