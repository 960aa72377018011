"""Masks given as image files: where the object is in them."""

import numpy as np
import pytest
from PIL import Image

from backend.prompt_specs import object_requests, parse_mask
from tests.converters.cases import constant_rate_info

HEIGHT, WIDTH = 24, 32
OBJECT = np.zeros((HEIGHT, WIDTH), bool)
OBJECT[4:12, 6:20] = True


def read(path) -> np.ndarray:
    info = constant_rate_info(3, width=WIDTH, height=HEIGHT)
    (request,) = object_requests([parse_mask(f"0:{path}")], info)
    return request.prompts[0].mask


def rgba(colour: np.ndarray | int, alpha: np.ndarray) -> Image.Image:
    pixels = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., :3] = colour[..., None] if isinstance(colour, np.ndarray) else colour
    pixels[..., 3] = alpha
    return Image.fromarray(pixels)


WHITE = (OBJECT * 255).astype(np.uint8)
PALETTE = Image.fromarray(OBJECT.astype(np.uint8)).convert("P")


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(WHITE),
        Image.fromarray(OBJECT),
        Image.fromarray(np.dstack([WHITE] * 3)),
        rgba(WHITE, np.uint8(255)),  # opaque: by its colour
        rgba(255, WHITE),  # white all over, by its alpha
        rgba(0, WHITE),  # a dark object cut out
        rgba(WHITE, WHITE),
        rgba(200, np.where(OBJECT, 90, 0).astype(np.uint8)),  # half transparent is there
        rgba(255, WHITE).convert("LA"),
    ],
)
def test_the_object_is_what_is_not_transparent_or_not_black(tmp_path, image):
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read(tmp_path / "m.png"), OBJECT)


def test_a_palettes_transparent_colour_is_no_object(tmp_path):
    swapped = Image.fromarray((~OBJECT).astype(np.uint8))
    swapped.putpalette([0, 0, 0, 255, 255, 255])
    swapped.save(tmp_path / "m.png", transparency=1)
    np.testing.assert_array_equal(read(tmp_path / "m.png"), OBJECT)


def test_a_mask_that_is_stored_turned_is_of_the_upright_picture(tmp_path):
    said = Image.Exif()
    said[0x0112] = 6
    Image.fromarray(WHITE).transpose(Image.ROTATE_90).save(tmp_path / "m.png", exif=said)
    np.testing.assert_array_equal(read(tmp_path / "m.png"), OBJECT)


def test_a_mask_that_shows_nothing_is_refused(tmp_path):
    rgba(255, np.uint8(0)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="m.png is black or transparent all over"):
        read(tmp_path / "m.png")
