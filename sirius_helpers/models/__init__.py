"""What the loaders need to know of models and memory.

`hub` finds a model's commit and its safetensors, `checks` tells whether a model is what its place needs, `batching`
runs work in batches that fit, `text_tokens` turns texts and prompts into ids.
"""
