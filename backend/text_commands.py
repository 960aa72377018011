"""What people type into a TextArea (or choose beside it): track, back, to 250, stop, help."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Mapping, Sequence

from converters.types import Direction

Result = Mapping[str, Any]

HELP = (
    "SAM 2 understands: track (with the settings' direction), track 100 (so many frames), "
    "back, back 100, both, both 100, to 250 (up to that frame), stop, help"
)

_DIRECTIONS = {
    "track": None,
    "go": None,
    "forward": Direction.FORWARD,
    "back": Direction.BACKWARD,
    "backward": Direction.BACKWARD,
    "both": Direction.BOTH,
}
_TRACK = re.compile(rf"({'|'.join(_DIRECTIONS)})(?:\s+(\d{{1,6}})(?:\s+frames?)?)?")
_TO = re.compile(r"(?:track\s+)?to\s+(?:frame\s+)?(\d{1,6})")
_MAX_SHOWN = 80


@dataclass(frozen=True, kw_only=True)
class Command:
    """One line of text, understood."""

    action: str = "track"
    """"track", "stop" or "help"."""
    direction: Direction | None = None
    """None: the settings'."""
    frame_limit: int | None = None
    to_ls_frame: int | None = None
    """1-based frame of the editor to track to, whichever way it lies."""

    def to_json(self) -> dict[str, Any]:
        """Reads back as `from_json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Command:
        direction = stored["direction"]
        return cls(**{**stored, "direction": direction and Direction(direction)})


class UnknownCommand(ValueError):
    """Text that is no command; the message holds the help."""


def parse_command(text: str) -> Command:
    """One line -> what it asks for. Raises UnknownCommand."""
    words = " ".join(text.lower().split())
    if words in ("stop", "cancel"):
        return Command(action="stop")
    if words in ("help", "?"):
        return Command(action="help")
    if match := _TO.fullmatch(words):
        return Command(to_ls_frame=_at_least_one(int(match[1]), text))
    if match := _TRACK.fullmatch(words):
        limit = None if match[2] is None else _at_least_one(int(match[2]), text)
        return Command(direction=_DIRECTIONS[match[1]], frame_limit=limit)
    raise UnknownCommand(f"{text[:_MAX_SHOWN]!r} is not understood. {HELP}")


def _at_least_one(number: int, text: str) -> int:
    if number < 1:
        raise UnknownCommand(f"{text[:_MAX_SHOWN]!r}: the number must be 1 or more. {HELP}")
    return number


def text_of(results: Sequence[Result]) -> Result | None:
    """The text area of a request that asks for something; None without text.

    A project may have others, for remarks: the last one counts whose newest
    entry reads as a command, else the last.
    """
    areas = [r for r in results if r.get("type") == "textarea" and _texts(r, "text")]
    asking = [area for area in areas if _reads_as_command(_texts(area, "text")[-1])]
    return next(reversed(asking or areas), None)


def command_of(results: Sequence[Result]) -> Command | None:
    """The command among a request's results; None when nobody gave one.

    The entry that was made last counts (`text_of`). Choices that read as
    commands are options: they fill in what the text leaves open.

    Raises UnknownCommand.
    """
    area = text_of(results)
    if area is None:
        return None
    command = parse_command(_texts(area, "text")[-1])
    if command.action != "track":
        return command
    chosen = [
        option
        for r in results
        if r.get("type") == "choices"
        for text in _texts(r, "choices")
        if (option := _option(text)) is not None
    ]
    for option in chosen:
        command = Command(
            direction=command.direction or option.direction,
            frame_limit=command.frame_limit or option.frame_limit,
            to_ls_frame=command.to_ls_frame or option.to_ls_frame,
        )
    return command


def _reads_as_command(text: str) -> bool:
    try:
        parse_command(text)
    except UnknownCommand:
        return False
    return True


def _option(text: str) -> Command | None:
    """A choice as a command; None for one that means something else to the project."""
    try:
        command = parse_command(text)
    except UnknownCommand:
        return None
    return command if command.action == "track" else None


def _texts(result: Result, key: str) -> list[str]:
    value = result.get("value")
    texts = value.get(key) if isinstance(value, Mapping) else None
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list):
        return []
    return [text for text in texts if isinstance(text, str) and text.strip()]
