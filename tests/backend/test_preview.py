"""Contact sheets and drawn frames: masks, captions and prompts are where they belong."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from backend.preview import (
    FramePainter,
    Lettering,
    Style,
    contact_sheet,
    draw_masks,
    object_styles,
    outline,
    sheet_frames,
)
from backend.preview.text import object_caption
from converters.masks import encode_mask
from converters.types import Box, Prompt, Track
from sam2_model.video import open_frame_source
from tests.converters.cases import ADVERSARIAL_MASKS, constant_rate_info

COLOUR = object_styles(["a"])["a"].colour


def filled(ground, colour):
    """40 % of the colour over the ground."""
    return tuple(round(0.6 * g + 0.4 * c) for g, c in zip(ground, colour))


def test_an_outline_is_the_masks_inner_edge():
    mask = np.zeros((6, 7), bool)
    mask[1:5, 1:6] = True
    expected = mask.copy()
    expected[2:4, 2:5] = False
    assert (outline(mask) == expected).all()
    assert outline(np.ones((3, 3), bool)).sum() == 8
    assert outline(np.ones((5, 5), bool), 2).sum() == 24


def test_a_mask_is_filled_translucent_and_outlined_in_its_colour_and_in_black():
    mask = np.zeros((20, 20), bool)
    mask[5:15, 5:15] = True
    drawn = np.asarray(draw_masks(Image.new("RGB", (20, 20), (0, 0, 100)), {"a": mask}))
    assert tuple(drawn[0, 0]) == (0, 0, 100)
    assert tuple(drawn[4, 8]) == (0, 0, 0)
    assert tuple(drawn[5, 5]) == COLOUR
    assert tuple(drawn[10, 10]) == filled((0, 0, 100), COLOUR)


def test_the_smaller_object_lies_on_top_whatever_the_order():
    large, small = np.ones((60, 60), bool), np.zeros((60, 60), bool)
    small[20:40, 20:40] = True
    styles = {"small": Style((0, 0, 255)), "large": Style((255, 0, 0))}
    black = Image.new("RGB", (60, 60))
    pictures = [
        np.asarray(draw_masks(black, masks, styles))
        for masks in ({"small": small, "large": large}, {"large": large, "small": small})
    ]
    assert (pictures[0] == pictures[1]).all()
    assert tuple(pictures[0][20, 20]) == (0, 0, 255)


def test_a_dashed_outline_has_its_colour_and_white():
    mask = np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    drawn = np.asarray(draw_masks(Image.new("RGB", (60, 60)), {1: mask}, {1: Style(COLOUR, True)}))
    edge = {tuple(pixel) for pixel in drawn[outline(mask)]}
    assert edge == {COLOUR, (255, 255, 255)}


@pytest.mark.parametrize("name", [name for name in ADVERSARIAL_MASKS if name != "4K blob"])
@pytest.mark.parametrize("scale", [1, 3, 0.4])
def test_any_mask_is_drawn_at_any_size(name, scale):
    mask = ADVERSARIAL_MASKS[name]
    size = tuple(max(1, round(side * scale)) for side in mask.shape[::-1])
    before = Image.new("RGB", size, (7, 7, 7))
    drawn = np.asarray(draw_masks(before, {"a": mask}))
    changed = (drawn != 7).any(axis=2)
    # However small it becomes, an object that is there is seen.
    assert changed.any() == mask.any()
    if scale == 1:
        assert changed[mask].all()


def test_masks_are_drawn_on_no_other_pixels_than_their_own_and_the_line_around():
    mask = np.zeros((40, 40), bool)
    mask[0:10, 30:40] = True
    drawn = np.asarray(draw_masks(Image.new("RGB", (40, 40), (9, 9, 9)), {"a": mask}))
    changed = (drawn != 9).any(axis=2)
    assert not changed[11:].any() and not changed[:, :29].any()


def test_a_sheet_has_a_picture_a_frame_with_its_own_masks_and_prompts():
    black = [np.zeros((100, 200, 3), np.uint8)] * 3
    mask = np.zeros((100, 200), bool)
    mask[40:80, 20:60] = True
    track = Track("a", ("Car",), {1: encode_mask(mask)})
    prompts = [
        Prompt("a", 2, box=Box(120, 40, 180, 80)),
        Prompt("b", 2, points_xy=[[40, 50], [80, 50]], point_labels=[1, 0]),
    ]
    steps = []
    with open_frame_source(black) as source:
        sheet = np.asarray(
            contact_sheet(
                source, [track], [0, 1, 2], prompts=prompts, columns=2, picture_width=200,
                progress=lambda *step: steps.append(step),
            )
        )
    assert sheet.shape == (100 + 4 + 100, 200 + 4 + 200, 3)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert not sheet[20:100, :200].any()
    assert tuple(sheet[60, 204 + 40]) == filled((0, 0, 0), COLOUR)
    assert not sheet[60, 204 + 120].any()
    below = sheet[104:, :200]
    assert tuple(below[40, 150]) == (255, 255, 255)
    assert tuple(below[53, 40]) == (255, 255, 255) and not below[50, 40].any()
    assert tuple(below[50, 80]) == (255, 255, 255) and not below[53, 80].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_indices": []}, "at least one frame"),
        ({"columns": 0}, "columns=0"),
        ({"picture_width": 0}, "picture_width=0"),
    ],
)
def test_a_sheet_that_cannot_be_is_refused(changes, message):
    with open_frame_source([np.zeros((8, 8, 3), np.uint8)]) as source:
        with pytest.raises(ValueError, match=message):
            contact_sheet(source, [], **{"frame_indices": [0]} | changes)


@pytest.mark.parametrize(
    ("frame_index", "shape", "message"),
    [
        (10, (48, 64), "object 'a', frame 10: the video has frames \\[0, 10\\)"),
        (-1, (48, 64), "frame -1"),
        (3, (64, 48), "frame 3: the mask is 48 x 64, the video 64 x 48"),
    ],
)
def test_masks_of_another_video_are_refused(frame_index, shape, message):
    track = Track("a", ("Car",), {frame_index: encode_mask(np.ones(shape, bool))})
    with pytest.raises(ValueError, match=message):
        FramePainter([track], constant_rate_info(), (64, 48))


def test_an_objects_colour_is_the_same_when_it_is_drawn_alone():
    info = constant_rate_info(1, width=200, height=200)
    masks = [np.zeros((200, 200), bool) for _ in range(3)]
    for place, mask in enumerate(masks):
        mask[60 * place + 30 : 60 * place + 60, 100:160] = True
    tracks = [Track(name, (), {0: encode_mask(m)}) for name, m in zip(("x", "y", "z"), masks)]
    ground = np.zeros((200, 200, 3), np.uint8)
    together = np.asarray(FramePainter(tracks, info, (200, 200)).paint(ground, 0))
    alone = np.asarray(FramePainter(tracks, info, (200, 200), shown={"z"}).paint(ground, 0))
    assert tuple(alone[165, 130]) == tuple(together[165, 130]) != (0, 0, 0)
    assert not alone[45, 130].any()


def test_an_object_of_one_pixel_is_ringed():
    info = constant_rate_info(1, width=300, height=300)
    pixel, large = np.zeros((300, 300), bool), np.zeros((300, 300), bool)
    pixel[200, 100] = True
    large[180:220, 80:120] = True
    for mask, reach in ((pixel, 7), (large, 20)):
        track = Track("a", ("Car",), {0: encode_mask(mask)})
        ground = np.full((300, 300, 3), 9, np.uint8)
        drawn = np.asarray(FramePainter([track], info, (300, 300)).paint(ground, 0))
        columns = np.flatnonzero((drawn[200] != 9).any(axis=1))
        assert abs(columns[0] - (100 - reach)) <= 3 and abs(columns[-1] - (99 + reach)) <= 3


@pytest.mark.parametrize(("fps", "text"), [(25.0, "frame 3 · 0.12 s"), (0.0, "frame 3")])
def test_the_time_of_a_frame_is_told_where_it_is_known(fps, text):
    info = dataclasses.replace(constant_rate_info(5), fps=fps)
    lettering, chips = Lettering(), []
    lettering.chip = lambda picture, xy, text, size, colour: chips.append(text)
    FramePainter([], info, (64, 48), lettering=lettering).paint(np.zeros((48, 64, 3), np.uint8), 3)
    assert chips == [text]


def test_captions_lie_inside_the_picture_and_on_no_other_caption():
    info = constant_rate_info(1, width=640, height=360)
    mask = np.zeros((360, 640), bool)
    mask[:30, 600:] = True  # the corner that has the least room
    tracks = [Track(f"object-{n}", ("Car",), {0: encode_mask(mask)}, {0: 2.0}) for n in range(6)]
    lettering, chips = Lettering(), []
    draw = lettering.chip

    def note(picture, xy, text, size, colour):
        width, height = lettering.size(text, size)
        chips.append((text, xy[0], xy[1], xy[0] + width, xy[1] + height))
        draw(picture, xy, text, size, colour)

    lettering.chip = note
    painter = FramePainter(tracks, info, (640, 360), lettering=lettering)
    painter.paint(np.zeros((360, 640, 3), np.uint8), 0)
    assert [text for text, *_ in chips] == ["frame 0 · 0.00 s"] + [
        f"Car · object-{n} · 88%" for n in range(6)
    ]
    for number, (_, left, top, right, bottom) in enumerate(chips):
        assert 0 <= left and 0 <= top and right <= 640 and bottom <= 360
        for _, other_left, other_top, other_right, other_bottom in chips[:number]:
            assert (
                right <= other_left
                or other_right <= left
                or bottom <= other_top
                or other_bottom <= top
            )


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (16, 16)])
def test_tiny_frames_with_many_objects_are_drawn(size):
    info = constant_rate_info(1, width=size[0], height=size[1])
    full = encode_mask(np.ones(size[::-1], bool))
    tracks = [Track(n, ("Car",), {0: full}) for n in range(30)]
    picture = FramePainter(tracks, info, size).paint(np.zeros((*size[::-1], 3), np.uint8), 0)
    assert picture.size == size


@pytest.mark.parametrize(
    ("track", "frame_index", "expected"),
    [
        (Track("a", ("Car",), {}, {3: 0.0}), 3, "Car · a · 50%"),
        (Track("a", ("Car",), {}, {3: 0.0}), 4, "Car · a"),
        (Track("a", ("Car",), {}, {3: float("nan")}), 3, "Car · a"),
        (Track("a", ("Car",), {}, {3: float("-inf")}), 3, "Car · a · 0%"),
        (Track("a", ("Car",), {}, {3: -1024.0}), 3, "Car · a · 0%"),
        (Track(7, ("Car", "Red"), {}), 0, "Car, Red · 7"),
        (Track(7, (), {}), 0, "7"),
        (Track("x" * 40, ("Two\nlines\x07",), {}), 0, "Two lines · xxxxxxx…xxxx"),
    ],
)
def test_captions_say_label_id_and_score(track, frame_index, expected):
    assert object_caption(track, frame_index) == expected


def test_a_character_without_a_font_becomes_something_that_can_be_read(caplog):
    lettering = Lettering()
    lettering._paths = (None,)  # Pillow's own: hardly more than ASCII
    shown, _ = lettering.prepare("Kätzchen 犬", 12)
    assert shown == "Katzchen ?"
    assert "'犬'" in caplog.text
    assert lettering.prepare("plain", 12)[0] == "plain"


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\U0001f600", "a\u0301", "\ud800"])
def test_any_text_can_be_drawn(text):
    picture = Image.new("RGB", (60, 30))
    Lettering().chip(picture, (0, 0), text, 12, (255, 255, 255))


def test_a_file_that_is_no_font_is_refused(tmp_path):
    (tmp_path / "no.ttf").write_bytes(b"no font")
    for name in ("no.ttf", "missing.ttf"):
        with pytest.raises(ValueError, match="is not readable"):
            Lettering(tmp_path / name)


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
