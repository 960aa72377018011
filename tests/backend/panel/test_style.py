"""Colours that everyone can read (WCAG 2.1 AA)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from backend.preview.colours import relative_luminance

VARIABLES = dict(
    re.findall(
        r"--([a-z-]+): (#[0-9a-f]{6});",
        files("backend").joinpath("panel", "style.css").read_text(encoding="utf-8"),
    )
)
TEXT, CONTROL = 4.5, 3.0
SURFACES = ("page", "surface", "raised")


def contrast(one: str, other: str) -> float:
    lights = sorted(
        relative_luminance(tuple(int(VARIABLES[name][i : i + 2], 16) for i in (1, 3, 5)))
        for name in (one, other)
    )
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("text", TEXT), ("quiet", TEXT), ("good", TEXT), ("bad", TEXT), ("accent", TEXT),
        ("doubt", TEXT), ("edge", CONTROL),
    ],
)
def test_what_is_written_or_pressed_stands_out(name, surface, least):
    assert contrast(name, surface) >= least


def test_text_on_buttons_stands_out():
    assert contrast("on-accent", "accent") >= TEXT
