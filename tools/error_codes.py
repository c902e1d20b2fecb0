"""Every error code that the code can raise, read from its source: string literals `family/what`.

A code put together at run time (`f"cli/unknown-{kind}"`) counts as its fixed beginning.
The agent on the device knows no families: what it refuses is `validate/…`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from edgec.errors import EXIT_CODES

ROOT = Path(__file__).resolve().parent.parent
_CODE = re.compile(rf"(?:{'|'.join(EXIT_CODES)})/[a-z0-9-]*")


def codes_in(source: str) -> tuple[set[str], set[str]]:
    """Whole codes, and fixed beginnings of codes put together, in one module's text."""
    whole: set[str] = set()
    beginnings: set[str] = set()
    tree = ast.parse(source)
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            text = str(node.values[0].value)
            if _CODE.fullmatch(text):
                beginnings.add(text)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AgentError":
            whole |= {"validate/" + str(code.value) for code in node.args[:1] if isinstance(code, ast.Constant)}
        elif isinstance(node, ast.Constant) and id(node) not in parts and _CODE.fullmatch(str(node.value)):
            whole |= {str(node.value)} - {f"{family}/" for family in EXIT_CODES}
    return whole, beginnings


def sources() -> Iterator[Path]:
    """The package's modules, in order."""
    return iter(sorted((ROOT / "edgec").rglob("*.py")))


def all_codes() -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Whole codes and beginnings, each with the modules it stands in."""
    whole: dict[str, list[str]] = {}
    beginnings: dict[str, list[str]] = {}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        found, begun = codes_in(path.read_text("utf-8"))
        for code in found:
            whole.setdefault(code, []).append(name)
        for code in begun:
            beginnings.setdefault(code, []).append(name)
    return dict(sorted(whole.items())), dict(sorted(beginnings.items()))


if __name__ == "__main__":
    for table in all_codes():
        for code, modules in table.items():
            print(f"{code:35} {', '.join(modules)}")
