"""What the device itself shows: memory of the processes, and temperatures."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(pid: int) -> int:
    """Memory of a process; 0 where it cannot be seen."""
    try:
        with Path(f"/proc/{pid}/status").open() as status:
            for line in status:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


def temperatures(base: Path = Path("/sys/class/thermal")) -> dict[str, float]:
    """Degrees Celsius by zone (`thermal_zone0 cpu-thermal`); empty where there are none."""
    found = {}
    for zone in sorted(base.glob("thermal_zone*")):
        try:
            celsius = int((zone / "temp").read_text()) / 1e3
        except (OSError, ValueError):  # some zones refuse to be read
            continue
        try:
            kind = (zone / "type").read_text().strip()
        except OSError:
            kind = ""
        found[f"{zone.name} {kind}".strip()] = celsius
    return found
