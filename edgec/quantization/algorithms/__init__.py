"""Repairs of a quantized model: what brings accuracy back once the scales are chosen."""
