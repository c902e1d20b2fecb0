"""Text that only names classes becomes numbers, and maps of class to score the tensor of scores: devices have neither.

1. ZipMap as an output gives way to the scores that it was made of, under its name.
2. Where text comes from class labels and constants alone, and is only moved, picked and compared, every text becomes
   its number in one list. The list goes with the model: `labels[number]` is the text.
3. Text that the model is given stays text, for the backends to compare; so does all of it where one meets the other, or
   where text is made in another way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from edgec.graph.edit import Editor, remove_dead
from edgec.graph.model import attr
from edgec.graph.traits import MOVES
from edgec.tensors import Array

_ML = "ai.onnx.ml"
#: Classifiers, and what they call labels that are numbers.
_CLASSIFIERS = {
    "LinearClassifier": "classlabels_ints",
    "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}
_MOVERS = MOVES | {"ArrayFeatureExtractor", "Compress", "Where"}
_READERS = frozenset({"Equal", "Shape", "Size"})


@dataclass(slots=True)
class _Texts:
    """Texts in the order in which they were met, the values that hold such text, and those that hold given text."""

    numbers: dict[str, int] = field(default_factory=dict)
    values: set[ir.Value] = field(default_factory=set)
    given: set[ir.Value] = field(default_factory=set)

    def number(self, text: object) -> int:
        plain = text.decode() if isinstance(text, bytes) else str(text)
        return self.numbers.setdefault(plain, len(self.numbers))


def plain_labels(model: ir.Model, editor: Editor) -> tuple[str, ...]:
    """Rules 1 and 2, in place; the list of labels, empty where there was no text."""
    labels: tuple[str, ...] = ()
    for node in list(model.graph):
        if (node.domain, node.op_type) == (_ML, "ZipMap") and node.outputs[0].is_graph_output():
            labels = labels or tuple(str(text) for text in attr(node, "classlabels_strings") or ())
            _unzip(node, editor)
    return _number(model) or labels


def _unzip(node: ir.Node, editor: Editor) -> None:
    scores, output = node.inputs[0], node.outputs[0]
    assert scores is not None
    output.type, output.shape = scores.type, scores.shape
    plain = editor.node("Identity", [scores], name=f"{node.name}/scores")
    editor.replace(node, [plain], [plain.outputs[0]])


def _number(model: ir.Model) -> tuple[str, ...]:
    texts = _Texts(given={value for value in model.graph.inputs if value.dtype == ir.DataType.STRING})
    plan = _plan(model, texts)
    if plan is None or not texts.values:
        return ()
    for node in plan:
        _rewrite(node, texts)
    for value in texts.values:
        if value.const_value is not None:
            content = np.asarray(value.const_value.numpy())
            whole = np.asarray([texts.number(t) for t in content.reshape(-1)], np.int64).reshape(content.shape)
            value.const_value = ir.Tensor(whole, name=value.name)
        value.type = ir.TensorType(ir.DataType.INT64)
    remove_dead(model)
    return tuple(texts.numbers)


def _plan(model: ir.Model, texts: _Texts) -> list[ir.Node] | None:
    """The nodes whose attributes hold text; None when text is used in a way that numbers cannot serve."""
    changed: list[ir.Node] = []
    for node in model.graph:  # class labels first: their order is the one that people expect
        if node.domain == _ML and node.op_type in _CLASSIFIERS and attr(node, "classlabels_strings"):
            for text in attr(node, "classlabels_strings"):
                texts.number(text)
    for value in model.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.STRING:
            texts.values.add(value)
            for text in np.asarray(value.const_value.numpy()).reshape(-1):
                texts.number(text)
    for node in model.graph.all_nodes():
        reads = any(value in texts.values for value in node.inputs if value is not None)
        if any(value in texts.given for value in node.inputs if value is not None):
            if reads:
                return None
            texts.given.update(node.outputs if _hands_text_on(node) else ())
        elif node.domain == _ML and node.op_type in _CLASSIFIERS and attr(node, "classlabels_strings"):
            texts.values.add(node.outputs[0])
            changed.append(node)
        elif node.domain == _ML and node.op_type == "LabelEncoder":
            if not _plan_encoder(node, texts, reads=reads, changed=changed):
                return None
        elif node.op_type == "Constant" and _text_of(node) is not None:
            texts.values.add(node.outputs[0])
            changed.append(node)
        elif reads and node.op_type in _MOVERS and node.graph is model.graph:
            texts.values.update(node.outputs)
        elif (reads and node.op_type not in _READERS) or _makes_text(node):
            return None
    return changed


def _hands_text_on(node: ir.Node) -> bool:
    """Types are not inferred yet: a reader of text gives text where its name or an attribute says so."""
    maker = node.op_type in _MOVERS or node.op_type.startswith("String") or _makes_text(node)
    return maker or attr(node, "values_strings") is not None


def _makes_text(node: ir.Node) -> bool:
    return any(value.dtype == ir.DataType.STRING for value in node.outputs)


def _text_of(node: ir.Node) -> Array | None:
    for name in ("value", "value_string", "value_strings"):
        value = attr(node, name)
        if value is not None and (name != "value" or np.asarray(value).dtype.kind in "OUS"):
            return np.asarray(value, object)
    return None


def _plan_encoder(node: ir.Node, texts: _Texts, *, reads: bool, changed: list[ir.Node]) -> bool:
    tensors = [attr(node, name) for name in ("keys_tensor", "values_tensor")]
    if any(t is not None and np.asarray(t).dtype.kind in "OUS" for t in tensors):
        return False
    gives = attr(node, "values_strings") is not None
    if reads != (attr(node, "keys_strings") is not None):
        return False
    if gives:
        texts.values.add(node.outputs[0])
        for text in (*attr(node, "values_strings"), attr(node, "default_string", "_Unused")):
            texts.number(text)
    if reads or gives:
        changed.append(node)
    return True


def _rewrite(node: ir.Node, texts: _Texts) -> None:
    if node.op_type == "Constant":
        content = _text_of(node)
        assert content is not None
        whole = np.asarray([texts.number(t) for t in content.reshape(-1)], np.int64).reshape(content.shape)
        node.attributes.clear()
        node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(whole))
        return
    if node.op_type == "LabelEncoder":
        if attr(node, "values_strings") is not None:
            default = texts.number(attr(node, "default_string", "_Unused"))
            node.attributes["default_int64"] = ir.AttrInt64("default_int64", default)
            node.attributes.pop("default_string", None)
        for side in ("keys", "values"):
            if attr(node, f"{side}_strings") is not None:
                _swap(node, f"{side}_strings", f"{side}_int64s", texts)
        return
    _swap(node, "classlabels_strings", _CLASSIFIERS[node.op_type], texts)


def _swap(node: ir.Node, old: str, new: str, texts: _Texts) -> None:
    numbers = [texts.number(text) for text in attr(node, old)]
    del node.attributes[old]
    node.attributes[new] = ir.AttrInt64s(new, numbers)
