"""Inputs that are indices, found by what is looked up with them."""

from __future__ import annotations

import numpy as np

from edgec.graph.indices import index_limits, known_texts
from edgec.passes.fold_constants import FoldConstants
from edgec.pipeline.measure import random_feeds
from tests.support.graphs import graph

TABLE = np.zeros((50, 4), np.float32)


def test_limits() -> None:
    source = graph(
        "(int64[1,6] ids, int64[1,6] types, int64[1,6] attention_mask, float[1,6,4] x) "
        "=> (float[1,6,4] y, float[4,1,6] c) {"
        "  i = Cast <to=6> (ids) a = Gather(table, i) b = Gather(few, types) c = Gather <axis=1> (wide, ids)"
        "  m = Cast <to=1> (attention_mask) k = Unsqueeze(m, last) p = Add(a, b) s = Mul(p, k) y = Add(s, x)"
        "}",
        constants={"table": TABLE, "few": TABLE[:3], "wide": np.zeros((4, 40), np.float32), "last": np.array([2])},
    )
    FoldConstants().run(source)
    limits = index_limits(source)
    assert limits == {"ids": 40, "types": 3}
    feed = random_feeds(source.inputs(), 1, limits=limits)[0]
    assert 3 < feed["ids"].max() < 40
    assert feed["types"].max() < 3
    assert np.array_equal(feed["attention_mask"], np.ones((1, 6), np.int64))


def test_texts_that_a_model_knows() -> None:
    source = graph(
        "(string[1,2] x) => (float[1,2,2] y, bool[1,2] z) "
        '{ y = ai.onnx.ml.OneHotEncoder <cats_strings = ["rot", "blau"]> (x) '
        ' word = Constant <value_string = "grün"> () z = Equal(x, word) }'
    )
    assert known_texts(source) == ("blau", "grün", "rot")
    feeds = random_feeds(source.inputs(), 20, texts=known_texts(source))
    assert {"blau", "grün", "rot"} < {str(word) for feed in feeds for word in feed["x"].ravel()}
