"""Errors that say where in a JSON document the offending value lies."""

from __future__ import annotations

import contextlib
from typing import Iterator

from converters.malformed import MalformedValue


class InputError(MalformedValue):
    """A value in a JSON document breaks a rule.

    Reads "tasks[3].annotations[0].result[2].value.sequence[7].x: x nan,
    must be a finite number".
    """

    @property
    def path(self) -> str:
        """From where the reader was called: "value.sequence[7].x"."""
        return self.place


@contextlib.contextmanager
def at(path: str) -> Iterator[None]:
    """Puts `path` in front of the path of any ValueError raised within."""
    try:
        yield
    except InputError as error:
        raise InputError(joined(path, error.path), error.rule) from error
    except ValueError as error:
        raise InputError(path, str(error)) from error


class NamedError(MalformedValue):
    """The same, of something that has a name: "region 'r1': value.x: ..."."""

    def __init__(self, name: str, error: ValueError) -> None:
        inner = error if isinstance(error, MalformedValue) else MalformedValue("", str(error))
        super().__init__(f"{name}: {inner.place}" if inner.place else name, inner.rule)
        self._reason = inner.reason

    @property
    def reason(self) -> str:
        """Without the name."""
        return self._reason


@contextlib.contextmanager
def named(name: str) -> Iterator[None]:
    """Says whose a ValueError raised within is: it becomes a NamedError."""
    try:
        yield
    except ValueError as error:
        raise NamedError(name, error) from error


def joined(path: str, rest: str) -> str:
    """`rest` as a field or item of `path`; either may be empty."""
    if not path or not rest or rest.startswith("["):
        return path + rest
    return f"{path}.{rest}"
