"""Backends turn a float or QDQ model into an artifact; one module or package each, found by name."""
