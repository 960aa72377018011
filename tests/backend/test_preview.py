"""Contact sheets: masks and prompts are where they belong."""

import numpy as np
import pytest
from PIL import Image

from backend.preview import contact_sheet, draw_masks, outline, sheet_frames
from converters.masks import encode_mask
from converters.types import Box, Prompt, Track
from sam2_model.video import open_frame_source


def test_an_outline_is_the_masks_inner_edge():
    mask = np.zeros((6, 7), bool)
    mask[1:5, 1:6] = True
    expected = mask.copy()
    expected[2:4, 2:5] = False
    assert (outline(mask) == expected).all()
    assert outline(np.ones((3, 3), bool)).sum() == 8


def test_a_mask_is_filled_translucent_and_outlined_in_its_colour():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = np.asarray(draw_masks(Image.new("RGB", (20, 20), (0, 0, 100)), {0: mask}))
    assert tuple(drawn[0, 0]) == (0, 0, 100)
    assert tuple(drawn[5, 5]) == (255, 64, 64)
    assert tuple(drawn[10, 10]) == (102, 26, 86)


def test_a_sheet_has_a_picture_a_frame_with_its_own_masks_and_prompts():
    black = [np.zeros((50, 100, 3), np.uint8)] * 3
    mask = np.zeros((50, 100), bool)
    mask[20:40, 10:30] = True
    track = Track("a", ("Car",), {1: encode_mask(mask)})
    prompts = [
        Prompt("a", 2, box=Box(60, 20, 90, 40)),
        Prompt("b", 2, points_xy=[[20, 25], [40, 25]], point_labels=[1, 0]),
    ]
    with open_frame_source(black) as source:
        sheet = np.asarray(
            contact_sheet(source, [track], [0, 1, 2], prompts=prompts, columns=2, picture_width=100)
        )
    assert sheet.shape == (50 + 4 + 50, 100 + 4 + 100, 3)
    assert not sheet[20:50, :100].any()
    assert tuple(sheet[30, 104 + 20]) == (102, 26, 26)
    assert not sheet[30, 104 + 60].any()
    below = sheet[54:, :100]
    assert tuple(below[20, 75]) == (255, 255, 0)
    assert tuple(below[25, 20]) == (40, 255, 40)
    assert tuple(below[25, 40]) == (255, 40, 40)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, 3, 12), [0, 1, 2]),
        ((0, 101, 3), [0, 50, 100]),
        ((10, 21, 2, {13}), [10, 13, 20]),
        ((5, 6, 4, {5}), [5]),
    ],
)
def test_sheet_frames_are_spread_and_hold_the_prompts(arguments, expected):
    assert sheet_frames(*arguments) == expected
