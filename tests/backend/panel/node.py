"""The panel's pure modules under node."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="needs node; make e2e has a browser instead")
_PROGRAM = """
    import fs from "node:fs";
    const load = (name) => import(`./${name}`);
    const given = JSON.parse(fs.readFileSync("given.json", "utf-8"));
    const answer = await (async () => { %s })();
    fs.writeFileSync("answer.json", JSON.stringify(answer));
"""


def run(script: str, given: Any, folder: Path) -> Any:
    """What the script returns, which finds `given`, and `load(name)` for the panel's modules.

    `folder` is an empty one.
    """
    for item in files("backend").joinpath("panel").iterdir():
        if item.name.endswith(".js"):
            (folder / item.name).write_text(item.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "given.json").write_text(json.dumps(given))
    (folder / "program.js").write_text(_PROGRAM % script)
    done = subprocess.run([NODE, "program.js"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "answer.json").read_text())
