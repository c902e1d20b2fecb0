"""Calibration and quantization: samples, statistics, the plan with its reasons, and the QDQ model."""
