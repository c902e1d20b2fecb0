"""Bodies of requests: whatever bytes come, arrays or a refusal; and ports convert as the bundle's bindings do."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from edgec.artifact import IoBinding
from edgec.bundle.manifest import IoFacts
from edgec.service.bodies import parse_json, parse_npz, plain, write_json, write_npz
from edgec.service.ports import Port
from edgec.service.problems import ServiceError
from edgec.tensors import DType, QParams, TensorSpec

LIMIT = 1 << 20


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def refusal(parse: Any, *arguments: Any) -> str:
    with pytest.raises(ServiceError) as caught:
        parse(*arguments)
    assert caught.value.status in (400, 413)
    return caught.value.code


@given(st.binary(max_size=400))
def test_any_bytes_are_arrays_or_refused(data: bytes) -> None:
    for parse in (parse_json, lambda body: parse_npz(body, LIMIT)):
        try:
            found = parse(data)
        except ServiceError as error:
            assert error.status in (400, 413)
        else:
            assert isinstance(found, dict)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)
_FACTS = {"name": "x", "shape": [2, -1], "dtype": "uint8"}
_PORT = Port({"source": _FACTS, "artifact": _FACTS})


@given(_json)
def test_any_json_is_taken_whole_or_refused(value: Any) -> None:
    try:
        array = parse_json(json.dumps({"inputs": {"x": value}}).encode())["x"]
        taken = _PORT.source.take(np.asarray(array))
    except ServiceError as error:
        assert error.status == 400
        return
    assert taken.dtype == np.uint8
    assert np.asarray(value).tolist() == taken.tolist()


@given(st.data())
def test_a_damaged_npz_is_arrays_or_refused(data: st.DataObject) -> None:
    body = bytearray(npz(x=np.arange(12, dtype=np.float32).reshape(3, 4), y=np.zeros(3, np.int8)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = parse_npz(bytes(body), LIMIT)
    except ServiceError as error:
        assert error.status in (400, 413)
    else:
        assert sum(a.nbytes for a in found.values()) <= LIMIT


@given(
    arrays_of.arrays(
        st.sampled_from([np.dtype(t) for t in ("<f4", ">f8", "<i2", "u1", "?")]),
        arrays_of.array_shapes(min_dims=0, max_side=4),
    )
)
def test_npz_gives_back_what_was_put_in(value: Any) -> None:
    for order in (value, np.asfortranarray(value)):
        found = parse_npz(npz(x=order), LIMIT)["x"]
        assert found.dtype == value.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found, value)


def _member(data: bytes, name: str = "x.npy") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, data)
    return out.getvalue()


def _header(text: str) -> bytes:
    padded = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY\x09\x00",
        _header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"12345678",
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, -1)}") + b"1234",
        _header("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}") + b"1234",
        _header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}") + b"1234",
        _header("__import__('os').abort()"),
        _header("(" * 200),
    ],
)
def test_headers_that_lie_are_refused(data: bytes) -> None:
    assert refusal(parse_npz, _member(data), LIMIT) == "bad-npz"


def test_sizes_are_held_against_the_limit_before_anything_is_unpacked() -> None:
    out = io.BytesIO()
    np.savez_compressed(out, x=np.zeros(LIMIT + 1, np.uint8))
    assert refusal(parse_npz, out.getvalue(), LIMIT) == "too-large"
    assert refusal(parse_npz, npz(**{f"a{i}": np.zeros(1) for i in range(300)}), LIMIT) == "too-large"


def test_names_with_paths_are_only_names() -> None:
    value = _header("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}") + b"7"
    assert list(parse_npz(_member(value, "../../etc/passwd.npy"), LIMIT)) == ["../../etc/passwd"]


def test_json_has_no_nan() -> None:
    value = plain(np.array([1.0, np.nan, np.inf], np.float32))
    assert json.loads(write_json(value)) == [1.0, None, None]
    with np.load(io.BytesIO(write_npz({"y": np.array([np.nan])})), allow_pickle=False) as arrays:
        assert np.isnan(arrays["y"][0])


_SHAPE, _PERM = (1, 2, 3, 4), (0, 2, 3, 1)


@pytest.mark.parametrize(
    ("dtype", "q"),
    [
        (DType.FLOAT32, None),
        (DType.INT8, QParams.per_tensor(0.05, 3)),
        (DType.UINT8, QParams.per_tensor(0.1, 128)),
        (DType.INT16, QParams(scale=(0.01, 0.02), zero_point=(0, 0), axis=3)),
    ],
)
@pytest.mark.parametrize("perm", [None, _PERM])
def test_ports_convert_as_bindings_do(dtype: DType, q: QParams | None, perm: tuple[int, ...] | None) -> None:
    if perm is None and q is not None and q.axis is not None:
        q = QParams(scale=q.scale, zero_point=q.zero_point, axis=1)
    shape = _SHAPE if perm is None else tuple(_SHAPE[axis] for axis in perm)
    binding = IoBinding(
        source=TensorSpec(name="x", shape=_SHAPE, dtype=DType.FLOAT32),
        artifact=TensorSpec(name="x_in", shape=shape, dtype=dtype, qparams=q),
        perm=perm,
    )
    port = Port(IoFacts.of(binding).model_dump(mode="json"))
    x = np.random.default_rng(3).normal(scale=20.0, size=_SHAPE).astype(np.float32)
    inside = port.to_artifact(x)
    np.testing.assert_array_equal(inside, binding.to_artifact(x))
    assert inside.dtype == dtype.numpy
    np.testing.assert_array_equal(port.to_source(inside), binding.to_source(inside))


@pytest.mark.parametrize(
    ("value", "dtype", "taken"),
    [
        ([[1, 2]], "uint8", True),
        ([[256, 2]], "uint8", False),
        ([[-1, 2]], "uint8", False),
        ([[1.0, 2.0]], "int32", False),
        ([[1, 2]], "float32", True),
        ([[True, False]], "bool", True),
        ([[1, 0]], "bool", False),
        ([[True, False]], "float32", False),
        ([[1e39, 0.0]], "float32", False),
        ([[float("inf"), 0.0]], "float32", True),
        ([[1, 2], [3, 4]], "uint8", False),
        ([1, 2], "uint8", False),
        ([["a", "b"]], "float32", False),
        ([["a", "straße"]], "str", True),
        ([[1, 2]], "str", False),
        ([["a"]], "str", False),
    ],
)
def test_what_an_input_takes(value: Any, dtype: str, taken: bool) -> None:
    facts = {"name": "x", "shape": [1, 2], "dtype": dtype}
    side = Port({"source": facts, "artifact": facts}).source
    if taken:
        assert side.take(np.asarray(value)).dtype.kind == np.dtype(dtype).kind
        assert dtype == "str" or side.take(np.asarray(value)).dtype == np.dtype(dtype)
    else:
        assert refusal(side.take, np.asarray(value)) == "bad-input"
