"""Old forms of operators compute the same in the pinned opset, as ONNX Runtime sees it."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import EdgecError
from edgec.graph.model import MAX_OPSET, MIN_OPSET, Model
from edgec.graph.verify import verify
from edgec.passes.pipelines import canonicalize
from edgec.passes.upgrade_opset import upgrade_opset
from edgec.tensors import Array
from tests.support.graphs import assert_same, graph, operators, random_feeds

Constants = dict[str, Array]


def ints(*values: int) -> Array:
    return np.asarray(values, np.int64)


def floats(*values: float) -> Array:
    return np.asarray(values, np.float32)


#: text, opsets, constants
CASES: dict[str, tuple[str, tuple[int, ...], Constants]] = {
    "batchnorm": (
        "(float[2,3,4,5] x) => (float[2,3,4,5] y) { y = BatchNormalization <epsilon=0.01> (x, s, b, m, v) }",
        (7, 8, 9, 13, 14, 15),
        {
            "s": floats(1, 2, 3),
            "b": floats(0, 1, 0),
            "m": floats(0.5, 0, -1),
            "v": floats(1, 2, 0.5),
        },
    ),
    "clip-attributes": (
        "(float[4,4] x) => (float[4,4] y) { y = Clip <min=-0.5, max=0.7> (x) }",
        (7, 10),
        {},
    ),
    "clip-max-only": ("(float[4,4] x) => (float[4,4] y) { y = Clip <max=0.7> (x) }", (7, 10), {}),
    "clip-inputs": (
        "(float[4,4] x) => (float[4,4] y) { y = Clip(x, low) }",
        (11, 12, 13),
        {"low": np.asarray(0.1, np.float32)},
    ),
    "dropout": ("(float[4,4] x) => (float[4,4] y) { y = Dropout <ratio=0.3> (x) }", (7, 10, 11), {}),
    "dropout-input": ("(float[4,4] x) => (float[4,4] y) { y = Dropout(x) }", (12, 13), {}),
    "pad": (
        "(float[1,2,3,3] x) => (float[1,2,5,6] y) { y = Pad <pads=[0,0,1,2,0,0,1,1], value=1.5> (x) }",
        (7, 10),
        {},
    ),
    "pad-reflect": (
        '(float[1,2,3,3] x) => (float[1,2,5,5] y) { y = Pad <mode="reflect", pads=[0,0,1,1,0,0,1,1]> (x) }',
        (7, 10),
        {},
    ),
    "slice": (
        "(float[4,6] x) => (float[2,3] y) { y = Slice <axes=[0,1], starts=[1,-4], ends=[3,5]> (x) }",
        (7, 9),
        {},
    ),
    "slice-no-axes": ("(float[4,6] x) => (float[3,4] y) { y = Slice <starts=[1,1], ends=[99,5]> (x) }", (7, 9), {}),
    "squeeze": ("(float[1,4,1] x) => (float[4] y) { y = Squeeze <axes=[0,2]> (x) }", (7, 11, 12), {}),
    "squeeze-all": ("(float[1,4,1] x) => (float[4] y) { y = Squeeze(x) }", (7, 12, 13), {}),
    "unsqueeze": ("(float[4] x) => (float[1,4,1] y) { y = Unsqueeze <axes=[0,2]> (x) }", (7, 11, 12), {}),
    "split": (
        "(float[6,2] x) => (float[2,2] y, float[4,2] z) { y, z = Split <axis=0, split=[2,4]> (x) }",
        (7, 11, 12),
        {},
    ),
    "split-equal": (
        "(float[6,2] x) => (float[3,2] y, float[3,2] z) { y, z = Split <axis=0> (x) }",
        (7, 12, 13, 17),
        {},
    ),
    "softmax": ("(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax(x) }", (7, 11, 12, 13), {}),
    "softmax-axis-2": ("(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis=2> (x) }", (7, 12, 13), {}),
    "softmax-axis-0": ("(float[2,3,4] x) => (float[2,3,4] y) { y = Softmax <axis=0> (x) }", (7, 12), {}),
    "log-softmax": ("(float[2,3,4] x) => (float[2,3,4] y) { y = LogSoftmax(x) }", (7, 12, 13), {}),
    "hardmax": ("(float[2,3,4] x) => (float[2,3,4] y) { y = Hardmax(x) }", (7, 12, 13), {}),
    "topk": (
        "(float[2,6] x) => (float[2,3] y, int64[2,3] i) { y, i = TopK <k=3, axis=1> (x) }",
        (7, 9),
        {},
    ),
    "topk-input": (
        "(float[2,6] x) => (float[2,3] y, int64[2,3] i) { y, i = TopK(x, k) }",
        (10, 11),
        {"k": ints(3)},
    ),
    "upsample-nearest": (
        "(float[1,1,3,4] x) => (float[1,1,6,8] y) { y = Upsample <scales=[1.0,1.0,2.0,2.0]> (x) }",
        (7, 8),
        {},
    ),
    "upsample-linear": (
        '(float[1,1,3,4] x) => (float[1,1,6,12] y) { y = Upsample <mode="linear"> (x, s) }',
        (9,),
        {"s": floats(1, 1, 2, 3)},
    ),
    "resize-10": (
        '(float[1,1,3,4] x) => (float[1,1,6,8] y) { y = Resize <mode="linear"> (x, s) }',
        (10,),
        {"s": floats(1, 1, 2, 2)},
    ),
    "resize-10-nearest": (
        "(float[1,1,4,4] x) => (float[1,1,2,6] y) { y = Resize(x, s) }",
        (10,),
        {"s": floats(1, 1, 0.5, 1.5)},
    ),
    "resize-11": (
        '(float[1,1,3,4] x) => (float[1,1,6,8] y) { y = Resize <mode="linear"> (x, r, s) }',
        (11, 12, 13, 18, 19),
        {"r": floats(), "s": floats(1, 1, 2, 2)},
    ),
    "resize-tf-half-pixel": (
        (
            '(float[1,1,3,4] x) => (float[1,1,7,9] y) { y = Resize <mode="nearest", nearest_mode="floor", '
            'coordinate_transformation_mode="tf_half_pixel_for_nn"> (x, r, s0, z) }'
        ),
        (11, 12),
        {"r": floats(), "s0": floats(), "z": ints(1, 1, 7, 9)},
    ),
    "scatter": (
        "(float[3,3] x, float[1,3] u) => (float[3,3] y) { y = Scatter <axis=0> (x, i, u) }",
        (9, 10),
        {"i": np.asarray([[2, 0, 1]], np.int64)},
    ),
    "reduce-sum": ("(float[2,3,4] x) => (float[2,1,4] y) { y = ReduceSum <axes=[1]> (x) }", (7, 11, 12), {}),
    "reduce-all": ("(float[2,3,4] x) => (float[1,1,1] y) { y = ReduceMean(x) }", (7, 13, 17, 18), {}),
    **{
        f"reduce-{kind}": (
            f"(float[2,3,4] x) => (float[2,3] y) {{ y = Reduce{kind} <axes=[-1], keepdims=0> (x) }}",
            (11, 13, 17),
            {},
        )
        for kind in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
    "grid-sample": (
        '(float[1,1,4,4] x, float[1,2,2,2] g) => (float[1,1,2,2] y) { y = GridSample <mode="bilinear"> (x, g) }',
        (16, 19),
        {},
    ),
    "roi-align": (
        (
            "(float[1,1,8,8] x) => (float[1,1,2,2] y) { y = RoiAlign <output_height=2, output_width=2, "
            "spatial_scale=1.0, sampling_ratio=2> (x, r, b) }"
        ),
        (10, 15),
        {"r": np.asarray([[1, 1, 6, 5]], np.float32), "b": ints(0)},
    ),
    "dft": (
        "(float[1,4,6,1] x) => (float[1,4,6,2] y) { y = DFT <axis=2> (x) }",
        (17, 19),
        {},
    ),
    "gemm": (
        "(float[2,3] x) => (float[2,4] y) { y = Gemm <alpha=0.5, beta=2.0> (x, w, c) }",
        (7, 9, 11),
        {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "c": floats(1, 2, 3, 4)},
    ),
    "pools": (
        (
            "(float[1,2,6,6] x) => (float[1,2,1,1] y) { m = MaxPool <kernel_shape=[3,3], strides=[2,2]> (x) "
            "a = AveragePool <kernel_shape=[2,2]> (m) y = GlobalAveragePool(a) }"
        ),
        (7, 8, 10, 11, 12, 19),
        {},
    ),
    "lstm": (
        "(float[4,1,3] x) => (float[4,1,1,2] y) { y, h, c = LSTM <hidden_size=2> (x, w, r) }",
        (7, 13, 14),
        {
            "w": np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 8, 3),
            "r": np.linspace(1, -1, 16, dtype=np.float32).reshape(1, 8, 2),
        },
    ),
    "elementwise": (
        (
            "(float[2,3] x) => (float[2,3] y) { a = PRelu(x, s) b = Elu(a) c = LeakyRelu <alpha=0.3> (b) "
            "d = Selu(c) e = Softplus(d) f = HardSigmoid(e) g = Add(f, s) h = Sub(g, x) i = Max(h, x) y = Sum(i, x) }"
        ),
        (8, 9, 13, 16),
        {"s": floats(0.1, 0.2, 0.3)},
    ),
    "arg-and-gather": (
        "(float[3,4] x) => (float[3,1] y) { i = ArgMax <axis=1> (x) f = Cast <to=1> (i) y = Identity(f) }",
        (7, 9, 11, 12, 13),
        {},
    ),
    "deconv-depth": (
        (
            "(float[1,4,3,3] x) => (float[1,1,12,12] y) { d = DepthToSpace <blocksize=2> (x) "
            "y = ConvTranspose <strides=[2,2]> (d, w) }"
        ),
        (7, 10, 11, 13),
        {"w": np.linspace(-1, 1, 4, dtype=np.float32).reshape(1, 1, 2, 2)},
    ),
}


@pytest.mark.parametrize(("name", "opset"), [(name, v) for name, case in CASES.items() for v in case[1]])
def test_old_form_computes_the_same(name: str, opset: int) -> None:
    text, _, constants = CASES[name]
    source = graph(text, opset=opset, constants=constants)
    upgraded = Model(ir=source.ir.clone(), source=source.source, name="up")
    assert upgrade_opset(upgraded)
    assert upgraded.opset == MIN_OPSET
    verify(upgraded.ir)
    feeds = random_feeds(source, low=-0.9, high=0.9)
    assert_same(source, upgraded, feeds, relative=1e-6)
    assert_same(source, canonicalize(upgraded), feeds, relative=2e-6)


def test_metadata_survives() -> None:
    source = graph("(float[4] x) => (float[1,4] y) { y = Unsqueeze <axes=[0]> (x) }", opset=11)
    source.ir.graph[0].metadata_props["where"] = "layer.py:7"
    upgrade_opset(source)
    assert source.ir.graph[0].metadata_props["where"] == "layer.py:7"


@pytest.mark.parametrize("opset", [21, 23, MAX_OPSET])
def test_new_enough_stays(opset: int) -> None:
    model = graph("(float[4] x) => (float[4] y) { y = Relu(x) }", opset=opset)
    assert not upgrade_opset(model)
    assert model.opset == opset


@pytest.mark.parametrize("opset", [0, 99])
def test_opset_out_of_reach(opset: int) -> None:
    model = graph("(float[4] x) => (float[4] y) { y = Relu(x) }")
    model.ir.opset_imports[""] = opset
    with pytest.raises(EdgecError) as raised:
        upgrade_opset(model)
    assert raised.value.code == "source/opset"


def test_every_unknown_operator_is_named() -> None:
    model = graph("(float[4] x) => (float[4] y) { a = Magic(x) b = Relu(a) y = Trick(b) }", opset=13)
    with pytest.raises(EdgecError) as raised:
        upgrade_opset(model)
    assert raised.value.code == "source/unknown-operator"
    assert [f.message.split("'")[1] for f in raised.value.findings] == ["Magic", "Trick"]


def test_training_batchnorm_with_used_outputs_is_refused() -> None:
    text = (
        "(float[2,3,4] x, float[3] s, float[3] b, float[3] m, float[3] v) => (float[2,3,4] y, float[3] q) "
        "{ y, q, w, e, r = BatchNormalization(x, s, b, m, v) }"
    )
    model = graph(text, opset=9)
    with pytest.raises(EdgecError, match="training outputs") as raised:
        upgrade_opset(model)
    assert raised.value.code == "source/opset"


def test_nodes_in_branches_are_upgraded() -> None:
    text = (
        "(bool c, float[2,3] x) => (float[2,3] y) { y = If (c) <"
        "then_branch = t () => (float[2,3] a) { u = Unsqueeze <axes=[0]> (x) a = Squeeze <axes=[0]> (u) }, "
        "else_branch = e () => (float[2,3] b) { b = Clip <min=0.0> (x) }> }"
    )
    source = graph(text, opset=10)
    upgraded = Model(ir=source.ir.clone(), source=source.source, name="up")
    upgrade_opset(upgraded)
    for condition in (True, False):
        feeds = {"c": np.asarray(condition), "x": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)}
        assert_same(source, upgraded, feeds, relative=0)
        assert_same(source, canonicalize(upgraded), feeds, relative=0)


def test_softmax_of_unknown_rank_comes_back_as_one_node() -> None:
    text = "(float[2,3,4] x) => (float[2,3,4] y) { s = Shape(x) r = Reshape(x, s) y = Softmax <axis=2> (r) }"
    model = graph(text, opset=11)
    upgrade_opset(model)
    assert operators(canonicalize(model)) == {"Softmax": 1}
