"""A flash in a process of its own, to be killed: `python -m tools.crashtest.client BUNDLE WHERE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgec.devices.inventory import Device
from edgec.devices.open import open_device
from edgec.devices.probe import probe
from tools.crashtest.trials import flash


def main() -> None:
    """Flash."""
    where = json.loads(sys.argv[2])
    device = Device(name="killed", address=where["address"], options=where["options"])
    with open_device(device) as transport:
        flash(Path(sys.argv[1]), transport, where["root"], probe(transport))


if __name__ == "__main__":
    main()
