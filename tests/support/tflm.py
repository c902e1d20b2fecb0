"""What LiteRT's reference kernels make of a model: the oracle for TensorFlow Lite Micro."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgec.tensors import Array

#: In a process of its own: the kernels may abort.
_RUN = """
import json, sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
model, folder = sys.argv[1:]
runner = Interpreter(model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
runner.allocate_tensors()
files = json.load(open(folder + "/names.json"))
for detail in runner.get_input_details():
    runner.set_tensor(detail["index"], np.load(folder + "/" + files[detail["name"]]))
runner.invoke()
names = {}
for n, detail in enumerate(runner.get_output_details()):
    np.save(f"{folder}/out{n}.npy", runner.get_tensor(detail["index"]))
    names[detail["name"]] = f"out{n}.npy"
open(folder + "/outputs.json", "w").write(json.dumps(names))
"""


def reference_outputs(model: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name from LiteRT's BUILTIN_REF kernels."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {}
        for n, (key, value) in enumerate(feeds.items()):
            np.save(folder / f"in{n}.npy", value)
            files[key] = f"in{n}.npy"
        (folder / "names.json").write_text(json.dumps(files))
        subprocess.run([sys.executable, "-c", _RUN, str(model), name], check=True, capture_output=True)
        outputs = json.loads((folder / "outputs.json").read_text())
        return {key: np.load(folder / file) for key, file in outputs.items()}
