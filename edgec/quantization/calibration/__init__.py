"""From samples to statistics of each tensor, kept on disk, and what the doctor and the ranges read from them."""
