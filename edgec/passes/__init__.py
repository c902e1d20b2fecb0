"""Transformations of a model, each in a file of its own; their orders are written in `pipelines`."""
