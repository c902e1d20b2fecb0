"""Real models from every kind of source, built for both targets and validated: `python -m tools.sources`."""
