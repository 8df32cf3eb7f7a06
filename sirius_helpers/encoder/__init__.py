"""Texts to vectors (`embedding`) and classes (`classifier`, which `trainer` trains).

`scores` says how good the classes are and what their confidence is worth, `label_noise` which labels are doubtful.
"""
