"""Where Python starts the service, from a checkout or from serve.pyz.

numpy may be nowhere but in the runtime that travelled with the release: that folder then comes to the path, under its
own name, since `current` will lead elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path


def _find_numpy() -> None:
    try:
        import numpy as np  # noqa: F401
    except ImportError:
        beside = Path(sys.argv[0]).resolve().parent / "runtime"
        if beside.is_dir():
            sys.path.append(str(beside.resolve()))


if __name__ == "__main__":
    _find_numpy()
    try:
        from edgec.service.main import main
    except ImportError as error:
        sys.stderr.write(f"error[service/runtime-missing]: {error}\n  hint install numpy and the model's runtime\n")
        sys.exit(3)
    sys.exit(main())
