"""The lock: every file by its hash, nothing of one machine, and all that pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = {"requirements.lock": ["hub", "redis"], "requirements-test.lock": ["hub", "redis", "test"]}
LEFT_OUT = {"torch", "sam2-label-studio"}
"""Of torch, the build is the machine's; constraints.txt has the version."""


def locked(name):
    """Package -> version."""
    text = (ROOT / name).read_text("utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", text, re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_each_line_is_a_version_or_a_hash(name):
    for line in (ROOT / name).read_text("utf-8").splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==\S+ \\| {4}--hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert not any(package.startswith(("nvidia", "cuda", "triton")) for package in locked(name))


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_it_has_what_the_project_asks_for(name, extras):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"]]
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    versions = locked(name)
    for requirement in map(Requirement, asked):
        package = canonicalize_name(requirement.name)
        if package not in LEFT_OUT:
            assert requirement.specifier.contains(versions[package]), f"make lock: {requirement}"


def test_both_locks_agree():
    runtime, test = (locked(name) for name in LOCKS)
    assert runtime.items() <= test.items()
