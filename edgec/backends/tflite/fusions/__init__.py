"""Rewrites of TIR that take out whole operators: one family a file, each exact and of no model in particular."""
