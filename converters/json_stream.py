"""Large JSON files read a part at a time, with the place of every value.

A data set of a gigabyte is never in memory as a whole: the caller names the
parts it wants, such as `annotations[].segmentations[]`, and gets them one by
one in the order of the file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Iterable, Iterator, Union

import ijson

from converters.malformed import MalformedValue

Location = tuple[Union[str, int], ...]
"""Where a value is: keys and list positions from the top of the file."""

_MAX_DEPTH = 100
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Part:
    """One value of a JSON file."""

    pattern: str
    """The asked-for pattern that it matches."""
    location: Location
    value: Any
    """Without the parts of it that were asked for themselves, and were given before."""


def location_text(location: Location) -> str:
    """`("annotations", 12, "bbox")` -> `annotations[12].bbox`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def read_parts(
    path: str | os.PathLike[str], patterns: Iterable[str], *, skip: Iterable[str] = ()
) -> Iterator[Part]:
    """The parts of a JSON file that match, in the order of the file.

    A pattern is keys with a dot between and `[]` for each item of an array:
    `videos[].tracks[]`. A part comes after the parts inside it, and without
    them. What matches `skip` is passed over; so is what lies outside all parts.

    Raises:
        ValueError: the file is not JSON (NaN and infinity are not), is nested
            deeper than 100, or has another kind of value where a pattern has
            an object or an array. It names the file and the place.
        OSError: the file cannot be read.
    """
    tree = _Node()
    for pattern in patterns:
        tree.at(pattern).pattern = pattern
    for pattern in skip:
        tree.at(pattern).skip = True
    with open(path, "rb") as file:
        yield from _Walk(file, os.fspath(path)).parts(tree)


def prefixed_events(path: str | os.PathLike[str]) -> Iterator[tuple[str, str, Any]]:
    """ijson's (prefix, event, value) of the file, for a look at how it begins.

    Raises ValueError when the file is not JSON.
    """
    with open(path, "rb") as file:
        yield from ijson.parse(_Walk(file, os.fspath(path)).events)


@dataclass
class _Node:
    """What is asked for at a place, and below it."""

    pattern: str | None = None
    skip: bool = False
    children: dict[str, "_Node"] = field(default_factory=dict)

    def at(self, pattern: str) -> "_Node":
        node = self
        for step in pattern.replace("[]", ".[]").removeprefix(".").split("."):
            node = node.children.setdefault(step, _Node())
        return node


class _Walk:
    """One reading of a file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._name = name
        self._location: list[Union[str, int]] = []
        self.events = self._guarded(file)

    def parts(self, tree: _Node) -> Iterator[Part]:
        event, value = next(self.events)
        yield from self._walk(event, value, tree)
        # Reads on to the end: there must be nothing but white space.
        for _ in self.events:
            pass

    def _guarded(self, file: BinaryIO) -> Iterator[tuple[str, Any]]:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        try:
            yield from ijson.basic_parse(file, buf_size=_CHUNK_BYTES, use_float=True)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            # What is wrong and the text around; a third line would point at the character.
            detail = " ".join(" ".join(str(error).splitlines()[:2]).split())
            # What was passed over left no trace: the file is read again for the place.
            self._location = list(_place_of_bad_json(self._name))
            raise self._error(f"is not valid JSON: {detail}") from None

    def _error(self, message: str) -> ValueError:
        place = location_text(tuple(self._location))
        return MalformedValue(f"{self._name}: {place}" if place else self._name, message)

    def _walk(self, event: str, value: Any, node: _Node) -> Iterator[Part]:
        """The parts at and below a place, of the value that begins with this event."""
        if not node.children:
            whole = self._build(event, value)
        elif "[]" in node.children:
            if event != "start_array":
                raise self._error(f"must be an array, is {_kind(event)}")
            whole = yield from self._walk_array(node)
        else:
            if event != "start_map":
                raise self._error(f"must be an object, is {_kind(event)}")
            whole = yield from self._walk_object(node)
        if node.pattern is not None:
            yield Part(node.pattern, tuple(self._location), whole)

    def _walk_array(self, node: _Node) -> Iterator[Part]:
        child = node.children["[]"]
        self._location.append(0)
        for position, (event, value) in enumerate(_until(self.events, "end_array")):
            self._location[-1] = position
            if child.skip:
                self._pass_over(event)
            else:
                yield from self._walk(event, value, child)
        self._location.pop()
        return []

    def _walk_object(self, node: _Node) -> Iterator[Part]:
        rest: dict[str, Any] = {}
        self._location.append("")
        for _, key in _until(self.events, "end_map"):
            self._location[-1] = key
            event, value = next(self.events)
            child = node.children.get(key)
            if child is not None and not child.skip:
                yield from self._walk(event, value, child)
            elif child is None and node.pattern is not None:
                rest[key] = self._build(event, value)
            else:
                self._pass_over(event)
        self._location.pop()
        return rest

    def _build(self, event: str, value: Any) -> Any:
        """The whole value that begins with this event."""
        if len(self._location) > _MAX_DEPTH:
            raise self._error(f"is nested deeper than {_MAX_DEPTH}")
        if event == "start_array":
            return self._build_array()
        if event == "start_map":
            return self._build_object()
        return value

    def _build_array(self) -> list[Any]:
        items: list[Any] = []
        self._location.append(0)
        for event, value in self.events:
            # Numbers first: uncompressed counts are millions of them.
            if event == "number":
                items.append(value)
            elif event == "end_array":
                break
            else:
                self._location[-1] = len(items)
                items.append(self._build(event, value))
        self._location.pop()
        return items

    def _build_object(self) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._location.append("")
        for _, key in _until(self.events, "end_map"):
            self._location[-1] = key
            members[key] = self._build(*next(self.events))
        self._location.pop()
        return members

    def _pass_over(self, event: str) -> None:
        depth = 1 if event in ("start_array", "start_map") else 0
        while depth:
            event, _ = next(self.events)
            if event in ("start_array", "start_map"):
                depth += 1
            elif event in ("end_array", "end_map"):
                depth -= 1


def _place_of_bad_json(path: str) -> Location:
    """Where in a file that is not JSON the first mistake is."""
    location: list[Union[str, int]] = []
    with open(path, "rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        try:
            for event, value in ijson.basic_parse(file, buf_size=_CHUNK_BYTES, use_float=True):
                if event == "map_key":
                    location[-1] = value
                    continue
                if event in ("end_map", "end_array"):
                    location.pop()
                elif location and isinstance(location[-1], int):
                    location[-1] += 1
                if event in ("start_map", "start_array"):
                    location.append("" if event == "start_map" else -1)
        except (ijson.JSONError, UnicodeDecodeError):
            pass
    if location and isinstance(location[-1], int):
        location[-1] += 1
    return tuple(step for step in location if step != "")


def _until(events: Iterator[tuple[str, Any]], end: str) -> Iterator[tuple[str, Any]]:
    """The events before `end`; the caller takes those of nested values itself."""
    for event, value in events:
        if event == end:
            return
        yield event, value


def _kind(event: str) -> str:
    return {"start_map": "an object", "start_array": "an array"}.get(event, f"a {event}")
