"""Data as C++ source: bytes in aligned arrays, names that are identifiers, text that cannot end a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PER_LINE = 20
#: TFLM reads a model in place and wants it at a multiple of 16.
ALIGNMENT = 16


def identifier(name: str) -> str:
    """A C identifier from any name."""
    word = re.sub(r"[^0-9A-Za-z_]+", "_", name).strip("_") or "model"
    return f"_{word}" if word[0].isdigit() else word


def comment(text: str) -> str:
    """Text for a `//` comment: one line, ASCII."""
    plain = text.encode("ascii", "replace").decode()
    return re.sub(r"[\r\n\\]+", " ", plain).replace("??/", "? ?/")


def string(text: str) -> str:
    """A C string literal, ASCII."""
    escaped = "".join(c if 32 <= ord(c) < 127 and c not in '"\\?' else "".join(f"\\{b:03o}" for b in c.encode())
                      for c in text)  # fmt: skip
    return f'"{escaped}"'


def array(name: str, data: bytes, *, alignment: int = ALIGNMENT) -> str:
    """The definition of a constant byte array; an empty one has a single zero, since C has no empty arrays."""
    shown = data or b"\0"
    rows = (shown[i : i + _PER_LINE] for i in range(0, len(shown), _PER_LINE))
    lines = ",\n  ".join(",".join(map(str, row)) for row in rows)
    return f"alignas({alignment}) const unsigned char {name}[{len(shown)}] = {{\n  {lines}\n}};\n"


def header(title: str, guard: str, body: Sequence[str]) -> bytes:
    """A header file with its include guard."""
    parts = [f"// {comment(title)}", f"#ifndef {guard}", f"#define {guard}", "", *body, "", f"#endif  // {guard}", ""]
    return "\n".join(parts).encode("ascii")
