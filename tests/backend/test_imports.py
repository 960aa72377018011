"""Who imports whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def imported_packages(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                yield name.partition(".")[0]


def test_nothing_imports_the_backend():
    for folder in ("converters", "sam2_model"):
        assert "backend" not in set(imported_packages(folder))


def test_only_settings_reads_the_environment():
    for file in (ROOT / "backend").rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        # Not WSGI's: `request.environ` is the request.
        reads = re.search(r"\bos\.environ|\bgetenv|import environ\b", text)
        assert file.name == "settings.py" or reads is None, file


def test_the_service_answers_before_torch_is_there():
    code = "import sys, backend.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
