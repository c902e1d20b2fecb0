"""Own rules for operators that runtimes lack: each result against ONNX Runtime, numpy or ONNX's reference."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgec.graph.model import Model
from edgec.passes.decompose import decompose
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array
from tests.support.graphs import assert_same, graph, operators, run_ort


def taken_apart(model: Model, op: str) -> Model:
    result = decompose(canonicalize(model), {op})
    assert op not in operators(result)
    return result


def values(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(model: Model, feeds: dict[str, Array]) -> list[Array]:
    outputs = ReferenceEvaluator(onnx.load_model_from_string(model.to_bytes())).run(None, feeds)
    return [np.asarray(output) for output in outputs]


@pytest.mark.parametrize(
    "attributes",
    [
        'mode="linear"',
        'mode="linear", coordinate_transformation_mode="align_corners"',
        'mode="linear", coordinate_transformation_mode="asymmetric"',
        'mode="linear", coordinate_transformation_mode="half_pixel_symmetric"',
        'mode="cubic"',
        'mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5',
        'mode="cubic", coordinate_transformation_mode="pytorch_half_pixel"',
        'mode="linear", antialias=1',
        'mode="nearest"',
        'mode="nearest", nearest_mode="ceil", coordinate_transformation_mode="asymmetric"',
        'mode="nearest", nearest_mode="floor"',
    ],
)
@pytest.mark.parametrize("scales", [(1, 1, 0.6, 0.5), (1, 1, 2, 1.75)])
def test_resize(attributes: str, scales: tuple[float, ...]) -> None:
    sizes = [int(n * s) for n, s in zip((1, 2, 6, 8), scales, strict=True)]
    text = f"(float[1,2,6,8] x) => (float{sizes} y) {{ y = Resize<{attributes}>(x, e, s) }}"
    constants = {"e": np.zeros(0, np.float32), "s": np.asarray(scales, np.float32)}
    model = graph(text, constants=constants)
    feeds = {"x": values(1, 2, 6, 8)}
    legal = taken_apart(model, "Resize")
    if "align_corners" not in attributes:
        assert_same(model, legal, feeds, relative=1e-5)
        return
    # ONNX counts size · scale with its fraction here, ONNX Runtime without
    wanted = reference(model, feeds)[0]
    np.testing.assert_allclose(run_ort(legal, feeds)["y"], wanted, rtol=1e-4, atol=1e-5)


def test_resize_by_scales_that_come_at_run_time() -> None:
    text = (
        '(float[1,1,4,4] x, float[4] s) => (float[1,1,8,6] y) <float[0] e = {}> { y = Resize<mode="linear">(x, e, s) }'
    )
    model = graph(text)
    feeds = {"x": values(1, 1, 4, 4), "s": np.asarray([1, 1, 2, 1.5], np.float32)}
    assert_same(model, taken_apart(model, "Resize"), feeds, relative=1e-5)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_running_products_along_an_axis_that_comes_at_run_time(exclusive: int, reverse: int, axis: int) -> None:
    text = f"""(float[3,5] x, int64 a) => (float[3,5] y)
    {{ y = CumProd<exclusive={exclusive}, reverse={reverse}>(x, a) }}"""
    x = values(3, 5)
    rolled = np.flip(x, axis) if reverse else x
    wanted = np.cumprod(rolled, axis)
    if exclusive:
        wanted = np.concatenate(
            [np.ones_like(wanted.take([0], axis)), wanted.take(range(wanted.shape[axis] - 1), axis)], axis
        )
    wanted = np.flip(wanted, axis) if reverse else wanted
    got = run_ort(taken_apart(graph(text, opset=26), "CumProd"), {"x": x, "a": np.asarray(axis)})["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "result", "attributes", "numpy_form"),
    [
        ("float[2,8,1]", "float[2,8,2]", "", lambda x: np.fft.fft(x[..., 0], axis=1)),
        ("float[2,8,2]", "float[2,8,2]", "inverse=1", lambda x: np.fft.ifft(x[..., 0] + 1j * x[..., 1], axis=1)),
        ("float[2,9,1]", "float[2,5,2]", "onesided=1", lambda x: np.fft.rfft(x[..., 0], axis=1)),
    ],
)
def test_fourier(inputs: str, result: str, attributes: str, numpy_form: object) -> None:
    shape = [int(d) for d in inputs[6:-1].split(",")]
    text = f"({inputs} x) => ({result} y) <int64 a = {{1}}> {{ y = DFT<{attributes}>(x, , a) }}".replace("<>", "")
    x = values(*shape)
    wanted = numpy_form(x)  # type: ignore[operator]  # a lambda of the table
    got = run_ort(taken_apart(graph(text), "DFT"), {"x": x})["y"]
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32"])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts_of_signed_numbers(kind: str, direction: str) -> None:
    text = f'({kind}[6] x, {kind}[6] s) => ({kind}[6] y) {{ y = BitShift<direction="{direction}">(x, s) }}'
    info = np.iinfo(kind)
    x = np.asarray([info.min, info.max, -7, 5, -1, 100], kind)
    s = np.asarray([1, 3, 2, 0, info.bits - 1, info.bits], kind)
    wide = x.astype(np.int64)
    wanted = (wide << s) if direction == "LEFT" else (wide >> s)
    wanted[-1] = 0
    got = run_ort(taken_apart(graph(text, opset=26), "BitShift"), {"x": x, "s": s})["y"]
    np.testing.assert_array_equal(got, wanted.astype(kind))


def test_remainders_of_floats_take_the_sign_of_the_divisor() -> None:
    model = graph("(float[6] x, float[6] d) => (float[6] y) { y = Mod(x, d) }", opset=26)
    x = np.asarray([5.5, -5.5, 5.5, -5.5, -3.0, 4.0], np.float32)
    d = np.asarray([2.0, 2.0, -2.0, -2.0, np.inf, 2.0], np.float32)
    legal = decompose(canonicalize(model), {"Mod"})
    assert [n.attributes["fmod"].as_int() for n in legal.nodes() if n.op_type == "Mod"] == [1]
    np.testing.assert_array_equal(run_ort(legal, {"x": x, "d": d})["y"], np.mod(x, d))


def test_same_bits_of_another_sign() -> None:
    text = "(int8[3] x, uint16[2] z) => (uint8[3] y, int16[2] w) { y = BitCast<to=2>(x) w = BitCast<to=5>(z) }"
    got = run_ort(
        taken_apart(graph(text, opset=26), "BitCast"),
        {"x": np.asarray([-1, -128, 127], np.int8), "z": np.asarray([65535, 7], np.uint16)},
    )
    np.testing.assert_array_equal(got["y"], np.asarray([255, 128, 127], np.uint8))
    np.testing.assert_array_equal(got["w"], np.asarray([-1, 7], np.int16))


def test_bits_of_floats_stay_for_the_backend_to_refuse() -> None:
    model = graph("(float[3] x) => (int32[3] y) { y = BitCast<to=6>(x) }", opset=26)
    assert operators(decompose(canonicalize(model), {"BitCast"}))["BitCast"] == 1


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_batch_first_recurrent_layers(op: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    text = f"""(float[2,5,3] x, float[2,1,4] h) => (float[2,5,1,4] y, float[2,1,4] z)
    {{ y, z = {op}<hidden_size=4, layout=1>(x, w, r, , , h) }}"""
    constants = {"w": values(1, 4 * gates, 3, seed=1), "r": values(1, 4 * gates, 4, seed=2)}
    model = graph(text, constants=constants)
    legal = decompose(model, lambda node: node.op_type == op and "layout" in node.attributes)
    assert operators(legal)[op] == 1 and operators(legal)["Transpose"] == 4
    feeds = {"x": values(2, 5, 3), "h": values(2, 1, 4, seed=3)}
    wanted = reference(model, feeds)
    got = run_ort(legal, feeds)
    # ONNX's reference gives one step of Y for layout=1: compare the state
    np.testing.assert_allclose(got["z"], wanted[1].reshape(got["z"].shape), rtol=1e-4, atol=1e-5)


def test_wrapped_padding_that_comes_at_run_time() -> None:
    model = graph('(float[3,4] x, int64[4] p) => (float[6,4] y) { y = Pad<mode="wrap">(x, p) }')
    feeds = {"x": values(3, 4), "p": np.asarray([2, -1, 1, 1])}
    got = run_ort(taken_apart(model, "Pad"), feeds)["y"]
    wanted = np.pad(feeds["x"], ((2, 1), (0, 0)), mode="wrap")[:, [1, 2, 3, 0]]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode: str, padding: str, corners: int) -> None:
    text = f"""(float[2,3,4,5] x, float[2,6,7,2] g) => (float[2,3,6,7] y)
    {{ y = GridSample<mode="{mode}", padding_mode="{padding}", align_corners={corners}>(x, g) }}"""
    feeds = {"x": values(2, 3, 4, 5), "g": values(2, 6, 7, 2, seed=1)}
    model = graph(text)
    assert_same(model, taken_apart(model, "GridSample"), feeds, relative=1e-5)


def test_max_unpool_into_a_larger_output() -> None:
    text = """(float[1,1,2,2] x, int64[1,1,2,2] i, int64[4] o) => (float[1,1,5,5] y)
    { y = MaxUnpool<kernel_shape=[2,2], strides=[2,2]>(x, i, o) }"""
    feeds = {"x": values(1, 1, 2, 2), "i": np.asarray([[[[0, 3], [9, 15]]]]), "o": np.asarray([1, 1, 5, 5])}
    got = run_ort(taken_apart(graph(text), "MaxUnpool"), feeds)["y"]
    wanted = np.zeros(16, np.float32)
    wanted[[0, 3, 9, 15]] = feeds["x"].ravel()
    np.testing.assert_array_equal(got, np.pad(wanted.reshape(1, 1, 4, 4), ((0, 0), (0, 0), (0, 1), (0, 1))))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_determinants(n: int) -> None:
    x = values(3, n, n)
    got = run_ort(taken_apart(graph(f"(float[3,{n},{n}] x) => (float[3] y) {{ y = Det(x) }}"), "Det"), {"x": x})["y"]
    np.testing.assert_allclose(got, np.linalg.det(x.astype(np.float64)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_caches(mode: str) -> None:
    text = f"""(float[2,1,4,3] p, float[2,1,2,3] u, int64[2] w) => (float[2,1,4,3] y)
    {{ y = TensorScatter<mode="{mode}">(p, u, w) }}"""
    start = [0, 2] if mode == "linear" else [1, 3]
    feeds = {"p": values(2, 1, 4, 3), "u": values(2, 1, 2, 3, seed=1), "w": np.asarray(start)}
    wanted = feeds["p"].copy()
    for batch, begin in enumerate(start):
        for step in range(2):
            wanted[batch, 0, (begin + step) % 4] = feeds["u"][batch, 0, step]
    got = run_ort(taken_apart(graph(text, opset=24), "TensorScatter"), feeds)["y"]
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("runtime", [False, True])
@pytest.mark.parametrize("extra", ["", ", pads=[1,0,1,0], strides=[2,1]", ", dilations=[1,2]"])
def test_columns_to_images(extra: str, runtime: bool) -> None:
    sizes = {"": (6, 12), ", pads=[1,0,1,0], strides=[2,1]": (6, 9), ", dilations=[1,2]": (6, 4)}[extra]
    inputs = ", int64[2] b" if runtime else ""
    text = f"""(float[1,{sizes[0]},{sizes[1]}] x{inputs}) => (float[1,1,5,5] y)
    {{ y = Col2Im<dilations=[1,1]{extra}>(x, i, b) }}"""
    text = text.replace("dilations=[1,1], dilations", "dilations")
    constants = {"i": np.asarray([5, 5])} | ({} if runtime else {"b": np.asarray([2, 3])})
    model = graph(text, constants=constants)
    feeds = {"x": values(1, *sizes)} | ({"b": np.asarray([2, 3])} if runtime else {})
    assert_same(model, taken_apart(model, "Col2Im"), feeds, relative=1e-6)


def test_celu_in_half_precision() -> None:
    model = graph("(float16[5] x) => (float16[5] y) { y = Celu<alpha=2.0>(x) }", opset=26)
    x = np.asarray([-5, -0.5, 0, 1, 20], np.float16)
    wide = x.astype(np.float32)
    wanted = np.maximum(wide, 0) + np.minimum(2 * np.expm1(wide / 2), 0)
    got = run_ort(taken_apart(model, "Celu"), {"x": x})["y"]
    np.testing.assert_allclose(got.astype(np.float32), wanted, rtol=5e-3)
