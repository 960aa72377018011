"""Writing files whole or not at all."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, else nothing.

    What was at `path` stays until then.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Writes the document as JSON; the file appears complete or stays as it was.

    Iterators in the document are written as arrays, an item at a time, so
    that a long one is never in memory as a whole. The same document gives
    the same bytes.
    """
    with whole_file(path) as partial, open(partial, "w", encoding="ascii", newline="\n") as file:
        for chunk in _chunks(document):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())


def _chunks(value: Any) -> Iterator[str]:
    if isinstance(value, Iterator):
        yield "["
        for position, item in enumerate(value):
            if position:
                yield ","
            yield from _chunks(item)
        yield "]"
    elif isinstance(value, dict) and any(isinstance(v, Iterator) for v in value.values()):
        yield "{"
        for position, (key, item) in enumerate(value.items()):
            yield ("," if position else "") + json.dumps(key) + ":"
            yield from _chunks(item)
        yield "}"
    else:
        yield json.dumps(value, separators=(",", ":"), allow_nan=False)
