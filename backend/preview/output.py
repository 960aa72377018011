"""Pictures on disk: whole or not at all."""

from __future__ import annotations

import os

from PIL import Image

from converters.files import whole_file


def save_png(path: str | os.PathLike[str], picture: Image.Image) -> None:
    """Writes the picture as PNG, whole or not at all."""
    with whole_file(path) as partial:
        picture.save(partial, format="PNG", optimize=False)
