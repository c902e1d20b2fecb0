"""serve.pyz: the service as one file that any Python ≥ 3.9 with numpy runs; the same bytes every time."""

from __future__ import annotations

import io
from pathlib import Path

from edgec.bundle.archive import Source, write_archive
from edgec.service.unit import EXAMPLE_ROOT, NAME, unit_text

PYZ = "serve.pyz"
_HOST_SIDE = ("pack.py", "command.py")


def service_files(engine: str) -> dict[str, bytes]:
    """What goes into a bundle: the service and its unit. `engine` is what runs the model."""
    return {PYZ: service_pyz(), NAME: unit_text(EXAMPLE_ROOT, engine=engine).encode()}


def service_pyz() -> bytes:
    """A zip that Python runs: the package under its own name, so that its imports hold."""
    folder = Path(__file__).parent
    sources: dict[str, Source] = {
        f"edgec/service/{path.name}": path.read_bytes()
        for path in sorted(folder.glob("*.py"))
        if path.name not in (*_HOST_SIDE, "__main__.py")
    }
    sources["edgec/__init__.py"] = b'"""Only the service."""\n'
    sources["__main__.py"] = (folder / "__main__.py").read_bytes()
    stream = io.BytesIO()
    write_archive(stream, sources)
    return stream.getvalue()
