"""Decide what runs in int8, with which scales, and why: pure functions of model, statistics and target."""
