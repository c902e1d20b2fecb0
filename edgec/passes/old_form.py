"""What the adapters of old opsets share: their type, and how one says that a node cannot be brought forward."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from edgec.graph.edit import Editor

Adapter = Callable[[ir.Node, Editor], None]


class NoNewForm(Exception):  # noqa: N818  # not a fault: a node that has no counterpart, with the reason
    """The old form says something that newer opsets cannot."""
