"""The plot of a track shows what `doubtful_stretches` lists, where it is."""

import numpy as np
import pytest

from backend.preview import object_styles, plot_tracks
from backend.preview.doubt import DoubtfulStretch, Doubt
from backend.preview.plot import PANEL_HEIGHT, stretch_lines
from converters.masks import encode_mask
from converters.types import Track
from tests.converters.cases import constant_rate_info, moving_track

LEFT, RIGHT = 78, 20


def still(count, *, without=(), object_id="a"):
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:30] = True
    rle = encode_mask(mask)
    masks = {i: rle for i in range(count) if i not in without}
    return Track(object_id, ("Car",), masks, {i: 5.0 for i in masks})


def column(picture, frame, count, width):
    """(H, 3) the pixels above the middle of a frame on the axis."""
    x = LEFT + (width - LEFT - RIGHT) * (frame + 0.5) / count
    return np.asarray(picture)[:, round(x)]


@pytest.mark.parametrize("width", [300, 1100])
def test_a_doubtful_stretch_is_shaded_and_nothing_else(width):
    info = constant_rate_info(100)
    picture = plot_tracks([still(100, without=range(40, 50))], info, width=width)
    assert picture.size == (width, PANEL_HEIGHT)
    colour = np.array(object_styles(["a"])["a"].colour)
    lightened = np.round(0.75 * colour + 0.25 * 255)
    area_row = 30 + 16 + 60  # title, words, three quarters down the area's strip
    for frame, expected in ((20, lightened), (80, lightened), (45, None)):
        pixel = column(picture, frame, 100, width)[area_row].astype(int)
        if expected is None:
            assert np.ptp(pixel) == 0
            assert 100 < pixel[0] < 200
        else:
            assert np.abs(pixel - expected).max() <= 2


def test_a_single_frame_of_ten_thousand_is_seen():
    info = constant_rate_info(10_000)
    whole = np.asarray(plot_tracks([still(10_000)], info))
    marked = np.asarray(plot_tracks([still(10_000, without=[5000])], info))
    different = np.flatnonzero((whole != marked)[46:130].any(axis=(0, 2)))
    assert 2 <= len(different) <= 6


def test_each_object_has_a_panel_in_its_own_colour():
    info = constant_rate_info()
    tracks = [still(10, object_id=n) for n in (1, 2, 3)]
    together = np.asarray(plot_tracks(tracks, info))
    assert together.shape == (3 * PANEL_HEIGHT, 1100, 3)
    alone = np.asarray(plot_tracks(tracks, info, shown={2}))
    assert (alone == together[PANEL_HEIGHT : 2 * PANEL_HEIGHT]).all()
    for place, style in enumerate(object_styles([1, 2, 3]).values()):
        panel = together[place * PANEL_HEIGHT : (place + 1) * PANEL_HEIGHT]
        assert (panel == style.colour).all(axis=2).sum() > 100  # the caption's ground


@pytest.mark.parametrize(
    "track",
    [
        Track("a", ("Car",), {}),
        Track("a", ("Car",), {}, {3: -4.0}),
        Track("a", (), {4: still(5).masks[4]}),
        Track("a", ("Car",), still(10).masks, {i: float("nan") for i in range(10)}),
        Track("a", ("Car",), still(10).masks, {2: float("inf"), 3: float("-inf"), 4: 1e300}),
        Track("a", ("Car",), {i: encode_mask(np.zeros((48, 64), bool)) for i in range(10)}),
        Track("a", ("Car",), {i: encode_mask(np.ones((48, 64), bool)) for i in range(10)}),
        moving_track(constant_rate_info(), [0, 1, 5, 9]),
        Track("a" * 500, ("猫" * 500,), still(10).masks),
    ],
    ids=range(9),
)
def test_any_track_is_plotted(track):
    for width in (300, 1100):
        assert plot_tracks([track], constant_rate_info(), width=width).width == width


def test_a_part_of_the_frames_fills_the_axis():
    info = constant_rate_info(100)
    picture = plot_tracks([still(100, without=range(40, 50))], info, frames=range(40, 60))
    area_row = 30 + 16 + 60
    assert np.ptp(column(picture, 5, 20, 1100)[area_row].astype(int)) == 0  # absent: grey
    assert np.ptp(column(picture, 15, 20, 1100)[area_row].astype(int)) > 50  # its colour


@pytest.mark.parametrize("frames", [range(3, 3), range(0, 11), range(-1, 4), range(0, 9, 2)])
def test_a_range_outside_the_video_is_refused(frames):
    with pytest.raises(ValueError, match="must be consecutive and within"):
        plot_tracks([still(10)], constant_rate_info(), frames=frames)


@pytest.mark.parametrize("frame_count", [1, 2, 7, 10_000])
def test_any_length_is_plotted(frame_count):
    plot_tracks([still(min(frame_count, 50))], constant_rate_info(frame_count))


@pytest.mark.parametrize(
    ("tracks", "options", "message"),
    [
        ([], {}, "no object to plot"),
        ([still(3)], {"shown": set()}, "no object to plot"),
        ([still(3)], {"width": 299}, "width=299"),
    ],
)
def test_what_cannot_be_plotted_is_refused(tracks, options, message):
    with pytest.raises(ValueError, match=message):
        plot_tracks(tracks, constant_rate_info(), **options)


def test_stretches_as_text_name_their_first_and_last_frame():
    stretches = [
        DoubtfulStretch(3, 4, (Doubt.ABSENT,)),
        DoubtfulStretch(7, 10, (Doubt.LOW_SCORE, Doubt.AREA_JUMP)),
    ]
    assert stretch_lines(still(1), stretches) == [
        "Car · a: frame 3: absent",
        "Car · a: frames 7 to 9: low score, area jump",
    ]


def test_a_track_without_scores_is_said_to_have_none():
    info = constant_rate_info()
    track = still(10)
    bare = Track(track.object_id, track.labels, track.masks)
    score_strip = slice(138, 166)
    with_scores, without = (np.asarray(plot_tracks([t], info)) for t in (track, bare))
    dark = [(picture[score_strip, LEFT + 4 : 300] < 160).any(axis=(0, 2)) for picture in (with_scores, without)]
    assert dark[1].sum() > 60  # letters over a length, where else a dashed line is all
    assert (with_scores[score_strip] != without[score_strip]).any()
