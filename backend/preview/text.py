"""Text on pictures, in whatever script the labels are."""

from __future__ import annotations

import functools
import logging
import math
import os
import re
import unicodedata

from PIL import Image, ImageDraw, ImageFont

from backend.preview.colours import Colour, readable_on
from converters.types import Track

logger = logging.getLogger(__name__)

# Looked for where the system keeps its fonts, in this order; none has to be
# there. None is Pillow's own font, which has hardly more than ASCII.
_FONTS: tuple[str | None, ...] = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "LiberationSans-Regular.ttf",
    "Arial.ttf",
    None,
    "NotoSansCJK-Regular.ttc",
    "wqy-microhei.ttc",
    "PingFang.ttc",
    "msyh.ttc",
    "malgun.ttf",
    "Arial Unicode.ttf",
)
_NO_CHARACTER = "\uffff"
_MAX_LABEL, _MAX_ID = 28, 12


class Lettering:
    """Draws text with the first font that has all its characters.

    Args:
        font_path: A TrueType or OpenType file to try first. Without it:
            well-known fonts of the system and Pillow's own. Characters that no
            font has lose their accents or become "?", which is logged once.

    Raises:
        ValueError: `font_path` is not a font file.
    """

    def __init__(self, font_path: str | os.PathLike[str] | None = None) -> None:
        self._paths = _FONTS
        if font_path is not None:
            try:
                ImageFont.truetype(os.fspath(font_path), 10)
            except OSError as error:
                raise ValueError(
                    f"font {os.fspath(font_path)!r} is not readable: {error}"
                ) from None
            self._paths = (os.fspath(font_path), *self._paths)

    def prepare(self, text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
        """The text in characters that can be shown, and the font for it."""
        index, shown = _choose(self._paths, text)
        return shown, _font(self._paths[index], size)

    def size(self, text: str, size: int) -> tuple[int, int]:
        """Width and height in pixels of a chip with the text."""
        shown, font = self.prepare(text, size)
        margin = max(2, size // 4)
        return math.ceil(font.getlength(shown)) + 2 * margin, sum(font.getmetrics()) + margin

    def text(
        self, pen: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, size: int,
        colour: Colour, anchor: str = "la",
    ) -> None:
        """Plain text; `anchor` as Pillow's."""
        shown, font = self.prepare(text, size)
        pen.text(xy, shown, fill=colour, font=font, anchor=anchor)

    def chip(
        self, picture: Image.Image, xy: tuple[int, int], text: str, size: int, colour: Colour
    ) -> None:
        """Text on a filled box whose top left corner is at `xy`: readable on any ground."""
        shown, font = self.prepare(text, size)
        width, height = self.size(text, size)
        margin = max(2, size // 4)
        pen = ImageDraw.Draw(picture)
        x, y = xy
        pen.rectangle(
            (x, y, x + width - 1, y + height - 1), fill=colour, outline=(0, 0, 0), width=1
        )
        pen.text((x + margin, y + margin // 2), shown, fill=readable_on(colour), font=font)


def object_caption(track: Track, frame_index: int | None = None) -> str:
    """"label, id" of an object, and on a frame its score as a percentage."""
    label = shortened(", ".join(track.labels), _MAX_LABEL)
    parts = [label, shortened(str(track.object_id), _MAX_ID)]
    score = track.scores.get(frame_index) if frame_index is not None else None
    if score is not None and not math.isnan(score):
        parts.append(f"{100 * probability(score):.0f}%")
    return " · ".join(part for part in parts if part)


def probability(logit: float) -> float:
    """The sigmoid, by a tanh that does not overflow."""
    return 0.5 + 0.5 * math.tanh(logit / 2)


def shortened(text: str, length: int) -> str:
    """On one line and at most `length` characters, the middle left out if need be."""
    text = "".join(c for c in re.sub(r"\s+", " ", text).strip() if c.isprintable())
    if len(text) <= length:
        return text
    head = (length - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (length - 1 - head):]}"


@functools.lru_cache(maxsize=256)
def _font(path: str | None, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@functools.lru_cache(maxsize=256)
def _choose(paths: tuple[str | None, ...], text: str) -> tuple[int, str]:
    """Which font has the text, and the text as it can be shown."""
    fewest, best = len(text) + 1, 0
    for index, path in enumerate(paths):
        missing = sum(not _has(path, character) for character in text) if _exists(path) else fewest
        if missing < fewest:
            fewest, best = missing, index
        if fewest == 0:
            return best, text
    _warn_once(" ".join(sorted({repr(c) for c in text if not _has(paths[best], c)})))
    return best, "".join(_substitute(paths[best], character) for character in text)


@functools.lru_cache(maxsize=256)
def _warn_once(lacking: str) -> None:
    logger.warning(
        "no font here shows %s: install one that does (e.g. Noto), or name its file", lacking
    )


def _substitute(path: str | None, character: str) -> str:
    if _has(path, character):
        return character
    bare = unicodedata.normalize("NFKD", character)[0]
    return bare if _has(path, bare) else "?"


@functools.lru_cache(maxsize=64)
def _exists(path: str | None) -> bool:
    try:
        _font(path, 10)
    except OSError:
        return False
    return True


@functools.lru_cache(maxsize=8192)
def _has(path: str | None, character: str) -> bool:
    """Whether the font draws the character otherwise than one that cannot be."""
    if character.isspace():
        return True
    font = _font(path, 16)
    drawn, absent = font.getmask(character), font.getmask(_NO_CHARACTER)
    return drawn.size != absent.size or bytes(drawn) != bytes(absent)
