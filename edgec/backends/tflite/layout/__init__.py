"""Whole-graph layout: one storage order a tensor, chosen so that the fewest elements are transposed.

roles says what each operator allows, solve chooses, rewrite carries it out.
"""

from edgec.backends.tflite.layout.rewrite import assign_layout

__all__ = ["assign_layout"]
