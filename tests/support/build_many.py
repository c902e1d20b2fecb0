"""Build many files in one process: `python -m tests.support.build_many MODULE:FUNCTION FILE…`; one JSON line a file.

Runs apart from the tests because a damaged file may bring the process down; the memory it may take is limited.
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
import traceback
from pathlib import Path

from edgec.errors import EdgecError

MEMORY_BYTES = 6 << 30


def main(arguments: list[str]) -> None:
    """Call the function with each file; say `ok`, `error` with the code, or `traceback`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    module, _, name = arguments[0].partition(":")
    build = getattr(importlib.import_module(module), name)
    for file in arguments[1:]:
        start = time.monotonic()
        line: dict[str, str | float] = {"file": Path(file).name, "result": "ok", "code": "", "detail": ""}
        try:
            build(Path(file))
        except EdgecError as error:
            line |= {"result": "error", "code": error.code, "detail": error.render()}
        except BaseException:  # noqa: BLE001 - whatever escapes is what the test looks for
            line |= {"result": "traceback", "detail": traceback.format_exc()}
        line["seconds"] = round(time.monotonic() - start, 3)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
