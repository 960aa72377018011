"""Object colours: stable, distinct, and told apart with any colour vision."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.preview import object_styles
from backend.preview.colours import PALETTE, readable_on, relative_luminance

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = XYZ.sum(axis=1)


def lab(colour, vision):
    """CIE L*a*b* of an sRGB colour as seen with that colour vision."""
    part = np.array(colour) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(np.array(VISIONS[vision]) @ linear, 0, 1) / WHITE)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_are_told_apart_with_every_colour_vision(vision):
    distances = [
        np.linalg.norm(lab(first, vision) - lab(second, vision))
        for first, second in itertools.combinations(PALETTE, 2)
    ]
    assert min(distances) > 10  # a difference of 2.3 is just noticeable


def test_captions_have_the_contrast_that_wcag_asks_of_text():
    for colour in PALETTE:
        lighter, darker = sorted(
            map(relative_luminance, (colour, readable_on(colour))), reverse=True
        )
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5


ids = st.lists(st.one_of(st.integers(), st.text(max_size=5)), unique=True, max_size=20)


@given(ids, st.randoms(use_true_random=False))
def test_the_order_of_objects_changes_no_colour(object_ids, random):
    shuffled = list(object_ids)
    random.shuffle(shuffled)
    assert object_styles(object_ids) == object_styles(shuffled)


@given(ids.filter(lambda found: len(found) <= 14))
def test_up_to_14_objects_look_different(object_ids):
    assert len(set(object_styles(object_ids).values())) == len(object_ids)


def test_numbered_objects_take_the_palette_in_turn():
    styles = object_styles(range(1, 9))
    assert tuple(styles[n].colour for n in range(1, 8)) == PALETTE
    assert styles[8].dashed and not styles[7].dashed


def test_text_ids_have_colours_that_do_not_depend_on_the_process():
    # crc32("aB3kf9sX2_") % 7 and crc32("car") % 7, computed elsewhere.
    import zlib

    for name in ("aB3kf9sX2_", "car"):
        assert object_styles([name])[name].colour == PALETTE[zlib.crc32(name.encode()) % 7]


def test_an_object_keeps_its_colour_in_formats_that_make_its_number_a_text():
    numbers = object_styles([1, 2, 30])
    texts = object_styles(["1", "2", "30"])
    assert [numbers[n] for n in (1, 2, 30)] == [texts[n] for n in ("1", "2", "30")]
    both = object_styles([1, "1", "01", "-1", "１", "9" * 5000])
    assert len(set(both.values())) == 6
