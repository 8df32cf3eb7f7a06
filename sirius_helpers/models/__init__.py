"""What the loaders need to know of models and memory.

`hub` finds a model's commit and its safetensors, `checks` tells whether a model is what its place needs, `batching`
runs work in batches that fit, `text_tokens` turns texts into ids in which a marker is no token. Not here: loading
(loaders.py), a model by name (`ModelSpec` of settings.py), and what a model is asked (llm/, encoder/).
"""
