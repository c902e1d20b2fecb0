"""Run as a script by the torch frontend: reads what it is asked, exports, and answers in JSON; see `_child`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Started as a file, edgec may be nowhere on the path (a checkout that is not installed).
sys.path.append(str(Path(__file__).resolve().parents[3]))

from edgec.errors import EdgecError
from edgec.frontends._handover import give, give_example


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from edgec.frontends._torch.job import Job, run

    folder = Path(request.pop("folder"))
    request["inputs"] = {name: tuple(shape) for name, shape in request["inputs"].items()}
    try:
        result = run(Job(**request))
        give(result.model, folder)
        give_example(result.inputs, result.outputs, folder)
    except EdgecError as error:
        return {"error": error.finding.as_dict(), "findings": [finding.as_dict() for finding in error.findings]}
    return {"name": result.name, "findings": [finding.as_dict() for finding in result.findings]}


if __name__ == "__main__":
    asked, answered = Path(sys.argv[1]), Path(sys.argv[2])
    sys.argv = ["edgec"]  # the user's own module may read the command line while it is imported
    answered.write_text(json.dumps(_answer(json.loads(asked.read_text()))))
