"""A zoo of Transformers architectures, built small with random weights: what builds, how exact, how fast."""
