"""The panel's pure modules under node."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node; make e2e runs it in a browser")


def run(script: str, given: Any, tmp_path) -> Any:
    """What `answer` is after `script`, which finds `given` and the modules' folder as `panel`."""
    folder = files("backend").joinpath("panel")
    for item in folder.iterdir():
        if item.name.endswith(".js"):  # .mjs and this: node must take them for modules
            (tmp_path / item.name).write_text(item.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "given.json").write_text(json.dumps(given))
    program = f"""
        import fs from "node:fs";
        const given = JSON.parse(fs.readFileSync("given.json", "utf-8"));
        let answer;
        {script}
        fs.writeFileSync("answer.json", JSON.stringify(answer));
    """
    (tmp_path / "script.js").write_text(program)
    done = subprocess.run([NODE, "script.js"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "answer.json").read_text())
