"""A slice of the acceptance runs on real trained models, each against the same bars (`tools/acceptance.py` has all)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import acceptance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20_cifar10", "ulfg_slim"])
def test_real_models_pass_their_bars(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    done = list(acceptance.rows(name))
    if any(row.get("skipped") for row in done):
        pytest.skip("; ".join(miss for row in done for miss in row["misses"]))
    assert len(done) == len(acceptance.BUILDS)
    assert {f"{row['target']} {row['precision']}": row["misses"] for row in done if row["misses"]} == {}
