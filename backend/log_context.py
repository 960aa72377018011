"""What the current thread works for: on each of its log lines, and for metrics.

One id goes all the way: from the request of Label Studio (`request_log`) into the job, the
thread that runs it, and the request that posts its prediction.
"""

from __future__ import annotations

import contextlib
import contextvars
import re
import uuid
from types import MappingProxyType
from typing import Any, Callable, Iterator, Mapping

FIELDS = ("request_id", "job", "task", "project")
"""In the order in which log lines have them."""

_SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{3,63}")

_context: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar(
    "sam2_log_context", default=MappingProxyType({})
)


def current() -> Mapping[str, Any]:
    """Of `FIELDS`, those that are known."""
    return _context.get()


def request_id() -> str | None:
    """Of the request that the thread works for."""
    return _context.get().get("request_id")


def new_request_id() -> str:
    return uuid.uuid4().hex


def is_sane_id(text: object) -> bool:
    """Whether somebody else's request id can go into logs, headers and records as it is."""
    return isinstance(text, str) and _SANE_ID.fullmatch(text) is not None


@contextlib.contextmanager
def working_for(**fields: Any) -> Iterator[None]:
    """Inside the `with` these hold too; those that are None stay as they are."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = _context.set(MappingProxyType({**_context.get(), **known}))
    try:
        yield
    finally:
        _context.reset(token)


def begin(**fields: Any) -> None:
    """These alone hold from now on, where there is no `with` to put them around."""
    _context.set(MappingProxyType(fields))


def carried(target: Callable[..., None]) -> Callable[..., None]:
    """The same for a thread that works for what this one does."""
    context = contextvars.copy_context()
    return lambda *arguments: context.run(target, *arguments)
