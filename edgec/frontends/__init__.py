"""Where models come from: one module a source kind, found by name."""
