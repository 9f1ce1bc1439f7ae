"""Latents and text embeddings of a dataset's samples, made ahead of training, unit by unit."""
