"""Resize, sampling, signals and detection in LiteRT against ONNX Runtime and its reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from edgec.errors import EdgecError
from edgec.tensors import Array
from tests.support.single_op import Node, check, draw, ints
from tests.support.tflite import emit

IMAGE = draw(1, 2, 5, 7)


def floats(*values: float) -> Array:
    return np.asarray(values, np.float32)


def reference(node: Node) -> list[Array]:
    """What ONNX's own reference computes."""
    declared = [np.zeros((1,), np.float32)] * node.outputs
    loaded = onnx.load_from_string(node.model(constant=False, declared=declared).to_bytes())
    return [np.asarray(y) for y in ReferenceEvaluator(loaded).run(None, node.feeds)]


MODES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
RESIZES = [
    Node("Resize", IMAGE, None, floats(1, 1, *scale), coordinate_transformation_mode=mode, mode=kind)
    for mode, kind, scale in itertools.product(MODES, ["nearest", "linear", "cubic"], [(2, 3), (0.6, 1.7)])
]
MORE_RESIZES = [
    Node("Resize", IMAGE, None, None, ints(1, 2, 9, 4), mode="linear", antialias=1),
    Node("Resize", IMAGE, None, None, ints(1, 2, 3, 4), mode="cubic", antialias=1, cubic_coeff_a=-0.5),
    Node("Resize", IMAGE, None, None, ints(9, 4), mode="cubic", axes=[2, 3], exclude_outside=1),
    Node("Resize", IMAGE, None, None, ints(9, 9), axes=[3, 2], keep_aspect_ratio_policy="not_larger"),
    Node("Resize", IMAGE, None, None, ints(9, 9), axes=[2, 3], keep_aspect_ratio_policy="not_smaller", mode="linear"),
    Node("Resize", draw(2, 3, 6), None, floats(1, 1, 2.5), mode="linear"),
    Node("Resize", draw(1, 1, 3, 4, 5), None, floats(1, 1, 2, 1.5, 2), mode="linear"),
    Node("Resize", draw(4, 6), None, floats(2, 0.5), mode="cubic"),
    Node("Resize", IMAGE, None, floats(1, 2, 2, 1), mode="nearest", coordinate_transformation_mode="asymmetric"),
    *(
        Node("Resize", IMAGE, None, floats(1, 1, 2.3, 0.65), nearest_mode=rounding)
        for rounding in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor")
    ),
    *(
        Node(
            "Resize",
            IMAGE,
            floats(0.2, -0.3, 0.9, 0.8),
            None,
            ints(4, 6),
            axes=[2, 3],
            mode=kind,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=7.0,
        )
        for kind in ("nearest", "linear")
    ),
]


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "run-time"])
@pytest.mark.parametrize("node", RESIZES + MORE_RESIZES, ids=repr)
def test_resize(node: Node, constant: bool) -> None:
    check(node, constant=constant, expected=reference(node))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "bool"])
def test_resize_of_other_types(dtype: str) -> None:
    x = draw(1, 2, 4, 4, dtype=dtype)
    node = Node("Resize", x, None, floats(1, 1, 2, 2))
    check(node, constant=True, expected=[x.repeat(2, 2).repeat(2, 3)])
    if dtype != "bool":
        linear = Node("Resize", x, None, floats(1, 1, 2, 2), mode="linear")
        check(linear, constant=True, expected=reference(linear), tolerance=1e-3)


@pytest.mark.parametrize("corners", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample(mode: str, padding: str, corners: int) -> None:
    grid = draw(2, 4, 3, 2, seed=3) * np.float32(0.9)
    node = Node("GridSample", draw(2, 3, 5, 6), grid, data=(0, 1), opset=20)
    node.attributes.update(mode=mode, padding_mode=padding, align_corners=corners)
    check(node, constant=True)
    check(node, constant=False)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_grid_sample_in_three_dimensions(mode: str) -> None:
    node = Node("GridSample", draw(1, 2, 3, 4, 5), draw(1, 2, 3, 2, 3, seed=1), data=(0, 1), opset=20, mode=mode)
    check(node, constant=False)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, samples: int, transform: str) -> None:
    rois = floats(0, 0, 5, 4, 1, 2, 9, 8, -3, -2, 4, 20).reshape(3, 4)
    node = Node(
        "RoiAlign",
        draw(2, 3, 8, 9),
        rois,
        ints(1, 0, 1),
        output_height=2,
        output_width=3,
        sampling_ratio=samples,
        spatial_scale=0.9,
        coordinate_transformation_mode=transform,
        mode=mode,
    )
    for constant in (True, False):
        check(node, constant=constant, expected=reference(node))


@pytest.mark.parametrize(("group", "offset_group", "masked"), [(1, 1, True), (2, 1, False), (1, 2, True), (2, 2, True)])
def test_deformable_convolution(group: int, offset_group: int, masked: bool) -> None:
    x, w = draw(2, 4, 4, 4), draw(4, 4 // group, 3, 2, seed=1)
    offset = draw(2, offset_group * 12, 2, 3, seed=2)
    mask = draw(2, offset_group * 6, 2, 3, seed=3) if masked else None
    operands = [x, w, offset, draw(4, seed=4), mask] if masked else [x, w, offset]
    node = Node("DeformConv", *operands, group=group, offset_group=offset_group, strides=[2, 1], pads=[1, 0, 0, 0])
    for constant in (True, False):
        check(node, constant=constant, expected=reference(node), tolerance=1e-4)


def test_affine_grid() -> None:
    for corners, shape, theta in ((0, (2, 3, 4, 5), draw(2, 2, 3)), (1, (1, 2, 3, 4, 2), draw(1, 3, 4))):
        node = Node("AffineGrid", theta, ints(*shape), opset=20, align_corners=corners)
        for constant in (True, False):
            check(node, constant=constant)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 0, 2, 1]},
        {"dilations": [2, 1], "pads": [1, 1, 1, 1]},
    ],
    ids=str,
)
def test_col2im(attributes: dict[str, Any]) -> None:
    image, block = (6, 5), (3, 2)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads = attributes.get("pads", [0] * 4)
    columns = [(image[i] + pads[i] + pads[i + 2] - dilations[i] * (block[i] - 1) - 1) // strides[i] + 1 for i in (0, 1)]
    x = draw(2, 3 * 6, columns[0] * columns[1])
    node = Node("Col2Im", x, ints(*image), ints(*block), **attributes)
    for constant in (True, False):
        check(node, constant=constant)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [None, 5, 8, 12])
def test_dft(onesided: int, inverse: int, length: int | None) -> None:
    x = draw(2, 8, 3, 2 if inverse or not onesided else 1)
    operands = [x, None if length is None else np.asarray(length, np.int64), np.asarray(1, np.int64)]
    node = Node("DFT", *operands, opset=20, onesided=onesided, inverse=inverse)
    expected = reference(node)
    check(node, constant=True, expected=expected)
    if not (onesided and not inverse and length):
        check(node, constant=False, expected=expected)


def test_length_of_a_onesided_dft_must_be_known() -> None:
    node = Node("DFT", draw(1, 8, 1), np.asarray(8, np.int64), np.asarray(1, np.int64), opset=20, onesided=1)
    with pytest.raises(EdgecError) as caught:
        emit(node.model(constant=False, declared=reference(node)))
    assert [f.rule for f in caught.value.findings] == ["tflite/dft-length"]


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("length", [8, 7])
@pytest.mark.parametrize("windowed", [True, False])
def test_stft(onesided: int, length: int, windowed: bool) -> None:
    window = draw(length, seed=1) if windowed else None
    size = np.asarray(length, np.int64)
    node = Node("STFT", draw(2, 30, 1), np.asarray(5, np.int64), window, size, opset=17, onesided=onesided)
    expected = reference(node)
    for constant in (True, False):
        check(node, constant=constant, expected=expected)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(op: str, periodic: int) -> None:
    node = Node(op, np.asarray(9, np.int64), data=(), opset=17, periodic=periodic)
    for constant in (True, False):
        check(node, constant=constant, expected=[y.astype(np.float32) for y in reference(node)])


def test_mel_filters() -> None:
    numbers = [np.asarray(v, np.int64) for v in (8, 64, 8192)] + [np.asarray(v, np.float32) for v in (100, 4000)]
    node = Node("MelWeightMatrix", *numbers, data=(), opset=17)
    for constant in (True, False):
        check(node, constant=constant, expected=reference(node))


@pytest.mark.parametrize("centre", [0, 1])
@pytest.mark.parametrize("limits", [(3, 0.5, 0.2), (20, 0.3, None), (2, None, None)], ids=str)
def test_non_max_suppression(centre: int, limits: tuple[float | None, ...]) -> None:
    rng = np.random.default_rng(1)
    corner, size = rng.uniform(0, 6, (2, 12, 2)), rng.uniform(1, 4, (2, 12, 2))
    boxes = np.concatenate([corner, size if centre else corner + size], 2).astype(np.float32)
    scores = rng.uniform(0, 1, (2, 3, 12)).astype(np.float32)
    most, overlap, least = limits
    operands: list[Array | None] = [boxes, scores, ints(int(most or 0))]
    operands += [None if v is None else floats(v) for v in (overlap, least)]
    while operands[-1] is None:
        operands.pop()
    node = Node("NonMaxSuppression", *operands, data=(0, 1), opset=11, center_point_box=centre)
    for constant in (True, False):
        check(node, constant=constant)


def test_adaptive_sampling_is_refused() -> None:
    node = Node("RoiAlign", draw(1, 1, 4, 4), draw(1, 4), ints(0), output_height=2, output_width=2)
    with pytest.raises(EdgecError) as caught:
        emit(node.model(constant=False, declared=[draw(1, 1, 2, 2)]))
    assert [f.rule for f in caught.value.findings] == ["tflite/sampling-ratio"]
