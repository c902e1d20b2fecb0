"""The cases of `onnx.backend.test`, written once into a cache folder, so that a worker reads only what it runs."""

from __future__ import annotations

import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
#: Folders of onnx.backend.test.data that hold a model and its data for each case.
STORED_SUITES = ("simple", "pytorch-converted", "pytorch-operator")
SUITES = ("node", "preview", "ml", "training", *STORED_SUITES)
_DOMAIN_SUITES = {"ai.onnx.ml": "ml", "ai.onnx.preview": "preview", "ai.onnx.preview.training": "training"}
#: CI runs every case whose number leaves no remainder.
SLICE = 12
#: Raise it when the form of the cache changes.
_FORM = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One model with what it must compute. `data` holds pairs of inputs and outputs; a sequence is a list."""

    name: str
    suite: str
    op_type: str
    model: bytes
    data: list[tuple[list[Any], list[Any]]]
    rtol: float
    atol: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CaseRef:
    """Where a case lies in the cache."""

    name: str
    suite: str
    op_type: str
    path: Path

    def read(self) -> Case:
        """The case itself."""
        case = pickle.loads(self.path.read_bytes())
        assert isinstance(case, Case)
        return case


def all_cases() -> list[CaseRef]:
    """Every case of the suite that ships with the installed onnx, in a fixed order; written to the cache at first."""
    folder = ROOT / ".cache" / "conformance" / f"onnx-{onnx.__version__}-{_FORM}"
    index = folder / "index.pickle"
    if not index.is_file():
        _write(folder, index)
    rows = pickle.loads(index.read_bytes())
    return [CaseRef(name=n, suite=s, op_type=o, path=folder / s / f"{n}.pickle") for n, s, o in rows]


def _write(folder: Path, index: Path) -> None:
    rows = []
    for case in [*_node_cases(), *(c for suite in STORED_SUITES for c in _stored_cases(suite))]:
        path = folder / case.suite / f"{case.name}.pickle"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps(case))
        rows.append((case.name, case.suite, case.op_type))
    part = index.with_suffix(f".{os.getpid()}")
    part.write_bytes(pickle.dumps(rows))
    part.replace(index)


def _node_cases() -> list[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, about overflows the cases are made of
        from onnx.backend.test.loader import load_model_tests

        tests = load_model_tests(kind="node")
    result = []
    for test in sorted(tests, key=lambda t: t.name):
        assert test.model is not None and test.data_sets is not None
        node = test.model.graph.node[0]
        result.append(
            Case(
                name=test.name,
                suite=_DOMAIN_SUITES.get(node.domain, "node"),
                op_type=_op_type(test.name, test.model),
                model=test.model.SerializeToString(deterministic=True),
                data=[([_value(x) for x in i], [_value(x) for x in o]) for i, o in test.data_sets],
                rtol=test.rtol,
                atol=test.atol,
            )
        )
    return result


def _op_type(name: str, model: onnx.ModelProto) -> str:
    """What a case is about: its only operator, or for an expanded function body the case that it belongs to."""
    stem, _, rest = name.partition("_expanded")
    types = [n.op_type for n in model.graph.node if n.op_type != "Constant"]
    if rest or name.endswith("_expanded"):
        return f"{stem.removeprefix('test_').split('_')[0]} (expanded)"
    return max(set(types), key=lambda t: (types.count(t), t)) if types else "Constant"


def _stored_cases(suite: str) -> list[Case]:
    from onnx.backend.test.loader import load_model_tests

    result = []
    for test in sorted(load_model_tests(kind=suite), key=lambda t: t.name):
        assert test.model_dir is not None
        base = Path(test.model_dir)
        model = onnx.load(base / "model.onnx")
        data = [
            (_values(folder, "input", model.graph.input), _values(folder, "output", model.graph.output))
            for folder in sorted(base.glob("test_data_set_*"))
        ]
        result.append(
            Case(
                name=test.name,
                suite=suite,
                op_type=_op_type(test.name, model),
                model=model.SerializeToString(deterministic=True),
                data=data,
                rtol=test.rtol,
                atol=test.atol,
            )
        )
    return result


def _values(folder: Path, kind: str, specs: Any) -> list[Any]:
    count = len(list(folder.glob(f"{kind}_*.pb")))
    return [_stored(folder, kind, position, spec) for position, spec in enumerate(list(specs)[:count])]


def _stored(folder: Path, kind: str, position: int, value: onnx.ValueInfoProto) -> Any:
    data = (folder / f"{kind}_{position}.pb").read_bytes()
    which = value.type.WhichOneof("value")
    if which == "sequence_type":
        return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
    if which == "optional_type":
        return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
    return numpy_helper.to_array(onnx.TensorProto.FromString(data))


def _value(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, onnx.SparseTensorProto):
        return value.SerializeToString()
    if isinstance(value, (list, tuple)):
        return [_value(v) for v in value]
    return value if value is None or isinstance(value, (bytes, dict)) else np.asarray(value)
