"""Repairs of an int8 model, and the ladder that tries them on samples they have not learnt from."""
