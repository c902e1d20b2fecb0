"""Let TopK give equal elements in the order of their indices, as ONNX says; the importer leaves that open."""

from __future__ import annotations

from typing import Any

import openvino as ov
import openvino.opset11


def order_ties(network: Any) -> None:
    """In place."""
    for op in network.get_ordered_ops():
        if op.get_type_name() != "TopK":
            continue
        told = op.get_attributes()
        if told.get("stable") or told.get("sort") == "none":
            continue
        stable = ov.opset11.topk(
            op.input_value(0),
            op.input_value(1),
            axis=int(told["axis"]),
            mode=told["mode"],
            sort=told["sort"],
            index_element_type=told["index_element_type"],
            stable=True,
        )
        stable.set_friendly_name(op.get_friendly_name())
        for before, after in zip(op.outputs(), stable.outputs(), strict=True):
            after.get_tensor().set_names(before.get_names())
            for reader in before.get_target_inputs():
                reader.replace_source_output(after)
