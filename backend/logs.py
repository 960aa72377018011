"""Log lines without secrets: text for people, or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any, Iterable

from backend import log_context

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class RedactingFormatter(logging.Formatter):
    """Puts *** where a secret would stand, in messages and tracebacks alike."""

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(_FORMAT)
        self._secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        text = self._written(record)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _written(self, record: logging.LogRecord) -> str:
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        request_id = log_context.request_id()
        return text if request_id is None else f"{text} [{request_id}]"


class JsonFormatter(RedactingFormatter):
    """`time`, `level`, `logger`, `message`, what of `log_context.FIELDS` is known, and
    `exception`, a traceback."""

    def _written(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        known = log_context.current()
        line |= {name: known[name] for name in log_context.FIELDS if name in known}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


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
