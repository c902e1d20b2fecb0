"""The unit under a real systemd: installed by serve.pyz itself, started, killed, reloaded, stopped.

Opt-in: `apt install systemd-container` and `python -m tools.devlab prepare systemd`, as root.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import serving
from tools.devlab import booted
from tools.devlab.common import UnavailableError

_CHECK = """\
python3 /opt/edgec/current/serve.pyz install --root /opt/edgec && echo installed
ask() { python3 -c 'import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())' "$1"; }
ask http://127.0.0.1:8093/readyz
first=$(systemctl show edgec-agent -p MainPID --value)
grep -E '^(Uid|CapBnd|NoNewPrivs|Seccomp):' /proc/$first/status
systemctl show edgec-agent -p DynamicUser
kill -9 $first
while [ "$(systemctl show edgec-agent -p MainPID --value)" = "$first" ] || ! systemctl -q is-active edgec-agent; do
  python3 -c 'import time; time.sleep(0.2)'
done
systemctl show edgec-agent -p NRestarts
systemctl reload edgec-agent && echo reloaded
systemctl stop edgec-agent && systemctl show edgec-agent -p Result
journalctl -u edgec-agent --no-pager | tail -20
"""


@pytest.mark.slow
def test_systemd_runs_the_unit(tmp_path: Path) -> None:
    place, root = tmp_path / "place", tmp_path / "edgec"
    place.mkdir()
    (place / "check.sh").write_text(_CHECK)
    digest = serving.flash(root, serving.pack(tmp_path / "a.edgec", int8=True)).digest
    try:
        said = booted.boot(place, {root: "/opt/edgec"}, timeout_s=400)
    except UnavailableError as error:
        pytest.skip(str(error))
    lines = said.splitlines()
    assert "installed" in lines, said
    assert digest in said
    assert '"ready": true' in said
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["Uid"].split()[0]) >= 61184, "a user that systemd made for it"
    assert (int(status["CapBnd"], 16), status["NoNewPrivs"], status["Seccomp"]) == (0, "1", "2")
    assert {"DynamicUser=yes", "NRestarts=1", "reloaded", "Result=success"} <= set(lines), said
