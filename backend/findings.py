"""What `doctor` says of one thing that it looked at."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Iterator


class Level(enum.StrEnum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    text: str
    fix: str = ""
    """What to do; empty where nothing has to be done."""


Findings = Iterator[Finding]


def ok(text: str) -> Finding:
    return Finding(Level.OK, text)


def note(text: str, fix: str) -> Finding:
    return Finding(Level.NOTE, text, fix)


def broken(text: str, fix: str) -> Finding:
    return Finding(Level.BROKEN, text, fix)
