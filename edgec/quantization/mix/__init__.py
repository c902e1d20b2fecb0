"""Which parts of a model leave int8, for how much time and memory."""
