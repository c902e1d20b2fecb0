"""How long quantization takes beside NNCF's default: the same model and samples, one right after the other.

Once with the samples that calibrate the row in the table, and once with 300, which is NNCF's own default, or with as
many as the row's data has, or as NNCF is expected to take in five minutes. Everything is measured anew each time, a row
at a time: unlike the figures of the table, seconds are true only of the machine as it was.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tools.accuracy_part import MOST_SAMPLES, folder_of, write_json
from tools.accuracy_runs import code_digest, facts_of, make_more, seconds_of

#: How long NNCF may be expected to take for more samples than the row's own.
LIMIT_S = 300.0


def affordable(samples: int, seconds: float) -> int:
    """How many samples NNCF is expected to take in the limit, by the seconds that some take it; no fewer than those.

    Its seconds grow no faster than its samples.
    """
    return max(samples, min(MOST_SAMPLES, int(samples * LIMIT_S / max(seconds, 1e-3))))


def time_row(name: str) -> dict[str, Any] | None:
    """Seconds of both with the row's own samples and with more, kept beside its outputs; None without material."""
    facts = facts_of(name, "material")
    if facts is None:
        return None
    own = facts["samples"][0]
    runs = [_run(name, folder_of(name) / "calibration.npz", own)]
    theirs = runs[0]["nncf_s"]
    if theirs is not None and (count := affordable(own, theirs)) > own:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "calibration.npz"
            if (made := make_more(name, count, path)) > own:
                runs.append(_run(name, path, made))
    found = {"code": code_digest(), "runs": runs}
    write_json(folder_of(name) / "time.json", found)
    return found


def _run(name: str, calibration: Path, samples: int) -> dict[str, Any]:
    ours, theirs = (seconds_of(name, calibration, nncf=nncf) for nncf in (False, True))
    return {"samples": samples, "edgec_s": ours, "nncf_s": theirs}
