"""Log lines without secrets: text for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import Any, Iterable

from backend import log_context

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""What moves a terminal's cursor, or ends a line."""


class RedactingFormatter(logging.Formatter):
    """Puts *** where a secret would stand, in messages and tracebacks alike, and escapes
    control characters, so that a message is one line whoever chose its words."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(_FORMAT)
        self._secrets = tuple(secrets)

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _escaped(self._redacted(record.message))
        text = super().formatMessage(record)
        request_id = log_context.request_id()
        return text if request_id is None else f"{text} [{request_id}]"

    def formatException(self, exc_info: Any) -> str:
        """A traceback, whose lines stay lines."""
        lines = self._redacted(super().formatException(exc_info)).split("\n")
        return "\n".join(_escaped(line) for line in lines)

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class JsonFormatter(RedactingFormatter):
    """`time`, `level`, `logger`, `message`, what of `log_context.FIELDS` is known, and
    `exception`, a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            # Before they are written as JSON, in which a secret may look otherwise.
            "message": self._redacted(record.getMessage()),
        }
        for name, value in log_context.current().items():
            if name in log_context.FIELDS:
                line[name] = self._redacted(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=str)
        # JSON escapes the others itself.
        return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def configure_logging(
    secrets: Iterable[str] = (), level: int = logging.INFO, *, is_json: bool = False
) -> None:
    """One handler on the root logger, to standard error. For programs, not libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter((JsonFormatter if is_json else RedactingFormatter)(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # A line for every request says nothing to a person.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
