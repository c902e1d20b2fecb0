"""What one output holds of different kinds is told apart by the graph and by size."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.graph.model import Model
from edgec.metrics import sqnr_db
from edgec.pipeline.measure import fidelity
from edgec.quantization.measures.judge import Judge
from edgec.quantization.measures.kinds import _blocks, _by_size, kinds_in
from edgec.quantization.mix.alone import noise_alone
from edgec.quantization.planning.plan import make_plan
from edgec.targets.load import load_target
from edgec.tensors import Array, Kind, of_kind, written
from tests.support.plans import kernel, measured, typed

HEAD = "(float[1,4,6] box, float[1,2,6] logits) => (float[1,6,6] y) { s = Sigmoid(logits) y = Concat<axis=1>(box, s) }"


PIECES = "(float[1,2,4] a, float[1,3,4] b)"


def blocks(model: Model) -> Kind:
    return _blocks(model.graph.outputs[0])


def axes(found: Kind) -> list[tuple[tuple[int, int], ...]]:
    return [tuple((part.start, part.stop) for part in block) for block in found]


def test_an_output_is_cut_where_the_pieces_of_its_concat_meet() -> None:
    assert axes(blocks(typed(HEAD))) == [((0, 1), (0, 4), (0, 6)), ((0, 1), (4, 6), (0, 6))]


@pytest.mark.parametrize(
    ("text", "axis", "at"),
    [
        ("(float[1,4,5] y) { c = Concat<axis=1>(a, b) y = Transpose<perm=[0,2,1]>(c) }", 2, 2),
        ("(float[1,5,2,2] y) { c = Concat<axis=-2>(a, b) y = Reshape(c, shape) }", 1, 2),
        ("(float[1,5,4] y) { c = Concat<axis=1>(a, b) s = Sigmoid(c) y = Mul(s, gain) }", 1, 2),
        # levels of a detector, each of boxes and scores: what they have in common is cut too
        (
            """(float[1,4,8] y) { k = Slice(b, zero, two, one) p = Concat<axis=2>(a, a) q = Concat<axis=2>(k, k)
            y = Concat<axis=1>(p, q) }""",
            2,
            4,
        ),
    ],
)
def test_cuts_are_followed_to_the_output(text: str, axis: int, at: int) -> None:
    constants = {"shape": np.array([1, 5, 2, 2]), "gain": np.ones((1, 1, 4), np.float32)}
    constants |= {"zero": np.array([0]), "two": np.array([2]), "one": np.array([1])}
    found = axes(
        blocks(typed(f"{PIECES} => {text}", {name: value for name, value in constants.items() if name in text}))
    )
    assert {block[axis][0] for block in found} == {0, at}


@pytest.mark.parametrize(
    "text",
    [
        "(float[1,2,4] y) { y = Sigmoid(a) }",
        # each value of a product comes from all of the Concat's
        """(float[1,5,5] y) { c = Concat<axis=1>(a, b) t = Transpose<perm=[0,2,1]>(c) y = MatMul(c, t) }""",
        "(float[1,20] y) { c = Concat<axis=1>(a, b) y = Reshape(c, flat) }",
    ],
)
def test_what_no_concat_lays_out_is_one_kind(text: str) -> None:
    assert not blocks(typed(f"{PIECES} => {text}", {"flat": np.array([1, 20])} if "flat" in text else {}))


def test_blocks_of_about_one_size_are_one_kind_and_zeros_none() -> None:
    places = [(np.s_[0:1, i : i + 1],) for i in range(4)]
    seen = [np.array([[200.0, 0.4, 90.0, 0.0]]), np.array([[210.0, 0.5, 80.0, 0.0]])]
    found = _by_size([place[0] for place in places], seen)
    assert [[block[1].start for block in kind] for kind in found] == [[0, 2], [1, 3]]
    assert of_kind(np.array([[200.0, 0.4, 90.0, 0.0]]), found[0]).tolist() == [200.0, 90.0]
    assert written(found[1], (1, 4)) == "[:,1:2] [:,3:4]"
    assert written(tuple(place[0] for place in places), (1, 4)) == "[:,0:1] [:,1:2] [:,2:3] and 1 more"


def detector_feeds(count: int = 8) -> list[dict[str, Array]]:
    rng = np.random.default_rng(0)
    drawn = [(rng.uniform(0, 320, (1, 4, 6)), rng.normal(0, 2, (1, 2, 6))) for _ in range(count)]
    return [{"box": box.astype(np.float32), "logits": logits.astype(np.float32)} for box, logits in drawn]


def test_scores_that_are_gone_are_not_drowned_by_boxes() -> None:
    source, broken = typed(HEAD), typed(HEAD.replace("s = Sigmoid(logits)", "t = Sigmoid(logits) s = Sub(t, t)"))
    feeds = detector_feeds()
    judge = Judge(source, feeds)
    assert judge(broken) == pytest.approx(0.0, abs=1e-6)
    assert judge.noise(broken).error.shape == (2, len(feeds))

    expected = [{"y": np.concatenate([f["box"], 1 / (1 + np.exp(-f["logits"]))], axis=1)} for f in feeds]
    actual = [{"y": np.concatenate([e["y"][:, :4], 0 * e["y"][:, 4:]], axis=1)} for e in expected]
    together = sqnr_db(*(np.stack([o["y"] for o in side]) for side in (expected, actual)))
    assert together > 40
    found = fidelity(expected, actual, kinds=kinds_in(source.graph.outputs, expected))
    assert found["sqnr_db"] == pytest.approx(0.0, abs=1e-4)
    assert found["outputs"]["y"]["kinds"] == {"[:,0:4,:]": None, "[:,4:6,:]": pytest.approx(0.0, abs=1e-4)}
    assert fidelity(expected, actual)["sqnr_db"] == pytest.approx(together, abs=1e-3)


def test_what_rounds_the_small_kind_makes_noise() -> None:
    """Boxes in hundreds and scores below one: each branch's own rounding is measured at what it makes."""
    model = typed(
        """(float[1,3,8,8] x) => (float[1,5,8,8] y)
        { b = Conv(x, wide) c = Conv(x, narrow) s = Sigmoid(c) y = Concat<axis=1>(b, s) }""",
        {"wide": 300 * kernel(4, 3, 1, 1), "narrow": kernel(1, 3, 1, 1)},
    )
    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(0, 1, (1, 3, 8, 8)).astype(np.float32)} for _ in range(8)]
    plan = make_plan(model, measured(model, feeds), load_target("raspberrypi"), "tflite", "int8")
    noise = dict(zip("bc", noise_alone(model, plan, [["b"], ["c"]], feeds), strict=True))
    assert noise["c"] > 1e-3 * noise["b"]  # at the whole output it would be less than a millionth
