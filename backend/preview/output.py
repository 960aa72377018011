"""Pictures on disk: whole or not at all."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from PIL import Image


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that becomes `path` when the block ends well, else nothing."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def save_png(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Writes the picture as PNG, whole or not at all."""
    with whole_file(path) as partial:
        picture.save(partial, format="PNG", optimize=False)
