"""A slice of ONNX's test suite through each backend: what passed must pass, and nothing may be wrong or crash.

`expected_<backend>.txt` lists what must pass; `make conformance` writes it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.backends.base import backend_names
from tools.conformance.cases import SLICE, all_cases
from tools.conformance.pool import run_all

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_names())
def test_slice(backend: str) -> None:
    expected = set((HERE / f"expected_{backend}.txt").read_text().split())
    results = run_all([(ref, backend) for ref in all_cases()[::SLICE]], workers=2, limit_s=60)
    broken = [f"{r.name}: {r.verdict} {r.reason} {r.detail}" for r in results if r.verdict not in ("pass", "refused")]
    assert not broken, "\n".join(broken)
    lost = [
        f"{r.name}: {r.reason} {r.detail}" for r in results if r.verdict != "pass" and f"{r.suite}/{r.name}" in expected
    ]
    assert not lost, "\n".join(lost)
    missing = expected - {f"{r.suite}/{r.name}" for r in results}
    assert not missing, f"not in the suite of this onnx version: {sorted(missing)[:5]}"
