"""Readers of calibration data, one module a kind of file."""
