"""Runs in litert-torch's environment: `python -m tools.peers.litert_torch_one CASE FILE`."""

from __future__ import annotations

import sys

import litert_torch  # type: ignore[import-not-found]  # only in the peer's own environment

from tools.peers.cases import case_named, example, torch_module


def main(name: str, path: str) -> None:
    """Convert the case's torch module and write the file."""
    case = case_named(name)
    litert_torch.convert(torch_module(case), example(case)).export(path)


if __name__ == "__main__":
    main(*sys.argv[1:3])
