"""serve.pyz: one file, the same bytes every time, for old Pythons with nothing but numpy."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgec.service import command
from edgec.service.pack import PYZ, service_files, service_pyz
from tests.support.serving import PATIENCE_S


def modules() -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(service_pyz())) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_the_same_bytes_every_time() -> None:
    assert service_pyz() == service_pyz()
    assert service_files("tflite")[PYZ] == service_pyz()
    assert "edgec/service/pack.py" not in modules()


@pytest.mark.parametrize("name", sorted(modules()))
def test_it_needs_python_39_and_numpy_alone(name: str) -> None:
    # The parser knows 3.9's syntax; imports are looked at by name.
    tree = ast.parse(modules()[name], feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    for module in imported:
        top = module.partition(".")[0]
        assert top in sys.stdlib_module_names or top == "numpy" or module.startswith("edgec.service."), module
    unpacked = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    assert unpacked or name == "edgec/__init__.py" or name == "edgec/service/__init__.py"


def test_without_numpy_it_says_so(tmp_path: Path) -> None:
    (tmp_path / PYZ).write_bytes(service_pyz())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / PYZ), "serve", "--root", "/"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("error[service/runtime-missing]: No module named 'numpy'")


def test_numpy_may_travel_with_the_release(tmp_path: Path) -> None:
    """A stand-in for numpy proves where it is looked for."""
    (tmp_path / "runtime" / "numpy").mkdir(parents=True)
    (tmp_path / "runtime" / "numpy" / "__init__.py").write_text("raise ImportError('found beside the release')\n")
    (tmp_path / PYZ).write_bytes(service_pyz())
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / PYZ), "unit", "--root", "/"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert "found beside the release" in done.stderr


def test_edgec_agent_has_the_agents_and_the_services_commands(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["edgec-agent", "unit", "--root", "/srv/edgec"])
    assert command.main() == 0
    assert "BindReadOnlyPaths=/srv/edgec" in capfd.readouterr().out
    done = subprocess.run(
        [sys.executable, "-c", "from edgec.service.command import main; main()", "info"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert '"python"' in done.stdout
