"""Large JSON files read a part at a time, with the place of every value.

A data set of a gigabyte is never in memory as a whole: the caller names the
parts it wants, such as `annotations[].segmentations[]`, and gets them one by
one in the order of the file.
"""

from __future__ import annotations

import os
import re
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
    Where another kind of value stands than the pattern has, or null, the part
    around it has it as it is.

    NaN and infinities, which JSON has not but many tools write, are read as
    null; whole numbers of 19 digits and more, such as hashes, as texts.

    Raises:
        ValueError: the file is not JSON, is nested deeper than 100, or a
            section of it is of another kind than asked for, and not null. It
            names the file and the place.
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

    def begins_with(self, event: str) -> bool:
        """Whether a value that begins with this event is of the kind that is asked for."""
        if not self.children:
            return True
        return event == ("start_array" if "[]" in self.children else "start_map")

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
        if not tree.begins_with(event):
            raise self._error(f"must be an object, is {_kind(event)}")
        yield from self._walk(event, value, tree)
        # Reads on to the end: there must be nothing but white space.
        for _ in self.events:
            pass

    def _guarded(self, file: BinaryIO) -> Iterator[tuple[str, Any]]:
        try:
            yield from _events(file)
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
        if not node.children or not node.begins_with(event):
            whole = self._build(event, value)
        elif event == "start_array":
            whole = yield from self._walk_array(node)
        else:
            whole = yield from self._walk_object(node)
        if node.pattern is not None:
            yield Part(node.pattern, tuple(self._location), whole)

    def _walk_array(self, node: _Node) -> Iterator[Part]:
        child = node.children["[]"]
        self._location.append(0)
        for position, (event, value) in enumerate(_until(self.events, "end_array")):
            self._location[-1] = position
            if child.skip or not (child.pattern or child.begins_with(event)):
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
            if child is not None and (child.skip or child.begins_with(event)):
                if child.skip:
                    self._pass_over(event)
                else:
                    yield from self._walk(event, value, child)
            elif node.pattern is not None:
                rest[key] = self._build(event, value)
            elif child is not None and event != "null" and len(self._location) == 1:
                # A whole section that is something else: to go on would lose it.
                raise self._error(f"must be an array, is {_kind(event)}")
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


def _events(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """ijson's events of the file. Raises what ijson raises."""
    return ijson.basic_parse(PlainJson(file), buf_size=_CHUNK_BYTES, use_float=True)


_IN_TOKENS = frozenset(bytes([b]) for b in b"-+.0123456789abcdefghijklmnopqrstuvwxyzIN")
_DIGITS = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_REST_OF_TEXT = rb'[^"\\]*(?:\\.[^"\\]*)*(?:"|\Z)'
_TOKEN = re.compile(
    rb'"' + _REST_OF_TEXT + rb"|-?(?:NaN|Infinity)\b|-?\d[\d.eE+-]*", re.DOTALL
)
_LONG_NUMBER = re.compile(rb"-?\d{19,}")


class PlainJson:
    """A file as ijson takes it: without a byte-order mark and what JSON has no numbers for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._in_text = False
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        if size > 0:
            chunk += self._rest_of_token(chunk)
        started_in_text = self._in_text
        # Most of a data set is masks: it goes through here by what bytes do fast.
        quotes = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
        self._in_text ^= quotes % 2 == 1
        if not (b"NaN" in chunk or b"Infinity" in chunk or _has_long_number(chunk)):
            return chunk
        start = re.match(_REST_OF_TEXT, chunk, re.DOTALL).end() if started_in_text else 0
        return chunk[:start] + _TOKEN.sub(_plain_token, chunk[start:])

    def _rest_of_token(self, chunk: bytes) -> bytes:
        """What must come with it, or a number, a NaN or an escape would be cut in two."""
        more = b""
        while len(more) < 64 and (chunk[-1:] + more)[-1:] in _IN_TOKENS:
            following = self._file.read(1)
            if not following:
                break
            more += following
        end = chunk[-64:] + more
        escapes = len(end) - len(end.rstrip(b"\\"))
        return more + self._file.read(1) if escapes % 2 else more


def _has_long_number(chunk: bytes) -> bool:
    return b"0" * 19 in chunk.translate(_DIGITS)


def _plain_token(match: re.Match[bytes]) -> bytes:
    token = match.group()
    if token.startswith(b'"'):
        return token
    if token.endswith((b"NaN", b"Infinity")):
        return b"null"
    return b'"' + token + b'"' if _LONG_NUMBER.fullmatch(token) else token


def _place_of_bad_json(path: str) -> Location:
    """Where in a file that is not JSON the first mistake is."""
    location: list[Union[str, int]] = []
    with open(path, "rb") as file:
        try:
            for event, value in _events(file):
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
