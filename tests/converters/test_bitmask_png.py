import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as npst
from tests.converters.cases import ADVERSARIAL_MASKS, blob
from PIL import Image

from converters import bitmask_png


@pytest.mark.parametrize(
    "mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys()
)
def test_a_mask_survives_the_round_trip(mask):
    url = bitmask_png.encode(mask)
    np.testing.assert_array_equal(bitmask_png.decode(url, mask.shape), mask)


def test_it_is_a_one_bit_palette_png_white_on_transparent():
    mask = blob(48, 64)
    data = base64.b64decode(bitmask_png.encode(mask).removeprefix("data:image/png;base64,"))

    assert data[24:26] == bytes([1, 3])  # bit depth, colour type: palette
    with Image.open(io.BytesIO(data)) as image:
        rgba = np.asarray(image.convert("RGBA"))
    np.testing.assert_array_equal(rgba[..., 3], np.where(mask, 255, 0))
    assert (rgba[mask] == 255).all()


def url_of(array, mode=None):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


MASK = np.array([[True, False, True]])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # What the editor draws: colour with alpha, antialiased.
        (url_of(np.array([[[9, 9, 9, 1], [255, 255, 255, 0], [0, 0, 0, 255]]], np.uint8)), MASK),
        # Grey with alpha.
        (url_of(np.array([[[0, 255], [255, 0], [7, 3]]], np.uint8)), MASK),
        # Opaque: the editor shows a full mask whatever the colours.
        (url_of(MASK.astype(np.uint8) * 255), np.ones((1, 3), bool)),
    ],
)
def test_alpha_alone_says_what_is_in_the_mask(url, expected):
    np.testing.assert_array_equal(bitmask_png.decode(url, (1, 3)), expected)


def test_a_damaged_png_is_refused_or_still_holds_every_pixel():
    mask = blob(48, 64)
    url = bitmask_png.encode(mask)
    prefix, data = url[:22], base64.b64decode(url[22:])
    refused = 0
    for length in range(len(data)):
        cut = prefix + base64.b64encode(data[:length]).decode()
        try:
            decoded = bitmask_png.decode(cut, mask.shape)
        except ValueError:
            refused += 1
            continue
        np.testing.assert_array_equal(decoded, mask)
    assert refused >= len(data) - 20  # only the checksums at the end may be missing


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "must be a data URL"),
        ("http://example.org/mask.png", "must be a data URL"),
        ("data:image/jpeg;base64,AAAA", "must be a data URL"),
        ("data:image/png;base64,A*A", "base64"),
        ("data:image/png;base64," + base64.b64encode(b"GIF89a" * 10).decode(), "not a PNG"),
        # Says it is 100,000 pixels wide: refused by its header alone.
        (bitmask_png.encode(np.ones((1, 100_000), bool)), "has size 1 x 100000, must be 1 x 3"),
    ],
)
def test_what_is_no_png_of_the_right_size_is_refused(url, message):
    with pytest.raises(ValueError, match=message):
        bitmask_png.decode(url, (1, 3))


@settings(max_examples=100, deadline=None)
@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_any_mask_survives(mask):
    np.testing.assert_array_equal(bitmask_png.decode(bitmask_png.encode(mask), mask.shape), mask)
