"""Doubtful stretches: what goes wrong is listed, what goes well is not."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.preview import Doubt, DoubtLimits, doubtful_stretches, track_curve
from converters.masks import encode_mask, mask_iou
from converters.types import MaskRLE, Track

HEIGHT, WIDTH = 60, 80


def square(left=20, top=10, side=20):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[max(0, top) : top + side, max(0, left) : left + side] = True
    return encode_mask(mask)


def steady(count=40, **changes):
    """A square that stays, but for the frames given as f12=mask, or None for no mask."""
    masks = {index: square() for index in range(count)}
    scores = {index: 8.0 for index in range(count)}
    for name, mask in changes.items():
        index = int(name[1:])
        if mask is None:
            del masks[index]
        else:
            masks[index] = mask
    return Track("a", ("Car",), masks, scores)


def told(track, **options):
    return [(s.start, s.stop, s.reasons) for s in doubtful_stretches(track, **options)]


ABSENT, LOW, AREA, OVERLAP = Doubt.ABSENT, Doubt.LOW_SCORE, Doubt.AREA_JUMP, Doubt.OVERLAP_JUMP
EMPTY = encode_mask(np.zeros((HEIGHT, WIDTH), bool))


def scored(track, **scores):
    return Track(
        "a", ("Car",), track.masks, {**track.scores, **{int(k[1:]): v for k, v in scores.items()}}
    )


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        pytest.param(steady(), [], id="nothing happens"),
        pytest.param(steady(f12=None), [(12, 13, (ABSENT,))], id="gone for a frame"),
        pytest.param(steady(f12=EMPTY), [(12, 13, (ABSENT,))], id="an empty mask is an absence"),
        pytest.param(
            steady(f12=None, f13=None, f30=None),
            [(12, 14, (ABSENT,)), (30, 31, (ABSENT,))],
            id="two absences",
        ),
        pytest.param(
            steady(f12=None, f16=None), [(12, 17, (ABSENT,))], id="near absences are one stretch"
        ),
        pytest.param(
            steady(f12=None, f17=None),
            [(12, 13, (ABSENT,)), (17, 18, (ABSENT,))],
            id="four frames between are too many",
        ),
        pytest.param(scored(steady(), f7=0.4), [(7, 8, (LOW,))], id="a score near zero"),
        pytest.param(scored(steady(), f7=-1024.0), [(7, 8, (LOW,))], id="a score below zero"),
        pytest.param(scored(steady(), f7=1.0), [], id="a score at the limit"),
        pytest.param(scored(steady(), f7=float("nan")), [], id="no score is no low score"),
        pytest.param(
            scored(steady(f12=None), f12=-6.0), [(12, 13, (LOW, ABSENT))], id="gone, and says so"
        ),
        pytest.param(
            steady(**{f"f{i}": square(side=30) for i in range(20, 40)}),
            [(20, 21, (AREA, OVERLAP))],
            id="it grows at once and stays so",
        ),
        pytest.param(
            steady(f20=square(left=50)), [(20, 22, (OVERLAP,))], id="elsewhere for a frame"
        ),
        pytest.param(
            Track("a", (), {i: square(left=i) for i in range(40)}), [], id="it moves steadily"
        ),
        pytest.param(
            Track("a", (), {i: square(left=8 * (i % 8)) for i in range(6)}),
            [],
            id="it is fast all the time",
        ),
        pytest.param(
            Track("a", (), {i: square(left=30 * (i % 2)) for i in range(10)}),
            [(1, 10, (OVERLAP,))],
            id="never where it was: doubtful however usual",
        ),
        pytest.param(
            Track("a", (), {0: square(), 1: square(side=30)}),
            [(1, 2, (AREA, OVERLAP))],
            id="two frames only",
        ),
        pytest.param(Track("a", (), {5: square()}), [], id="one frame only"),
        pytest.param(Track("a", (), {}), [], id="nothing at all"),
        pytest.param(
            Track("a", (), {}, {4: -3.0, 5: -3.0}), [(4, 6, (LOW, ABSENT))], id="never found"
        ),
        pytest.param(
            Track("a", (), {5: square(), 4: square(), 9: square()}),
            [(6, 9, (ABSENT,))],
            id="frames in no order",
        ),
    ],
)
def test_stretches_and_their_reasons(track, expected):
    assert told(track) == expected


def test_frames_that_were_not_annotated_are_no_absences():
    every_fifth = Track("a", (), {i: square() for i in range(0, 50, 5) if i != 20})
    assert told(every_fifth, frame_indices=range(0, 50, 5)) == [(20, 21, (ABSENT,))]
    assert told(every_fifth)[0][:2] == (1, 45)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"low_score": 9.0}, [(0, 40, (LOW, ABSENT))]),
        ({"join_gap_frames": 0}, [(12, 13, (ABSENT,)), (16, 17, (ABSENT,))]),
        ({"join_gap_frames": 50}, [(12, 17, (ABSENT,))]),
    ],
)
def test_limits_can_be_set(limits, expected):
    assert told(steady(f12=None, f16=None), limits=DoubtLimits(**limits)) == expected


@pytest.mark.parametrize(
    "limits",
    [
        {"low_score": float("nan")},
        {"area_factor": 1.0},
        {"overlap_drop": 0.0},
        {"overlap_drop": 1.1},
        {"least_overlap": -0.1},
        {"window_frames": 0},
        {"join_gap_frames": -1},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits):
    (name,) = limits
    with pytest.raises(ValueError, match=f"{name}=.* must be"):
        DoubtLimits(**limits)


def test_the_curve_is_area_score_and_overlap():
    masks = {2: square(), 3: square(left=30), 5: square(side=10)}
    curve = track_curve(Track("a", (), masks, {3: 1.5, 6: -2.0}))
    assert curve.frame_indices.tolist() == [2, 3, 4, 5, 6]
    assert curve.areas.tolist() == [400, 400, 0, 100, 0]
    np.testing.assert_array_equal(curve.scores, [np.nan, 1.5, np.nan, np.nan, -2.0])
    overlap = mask_iou(masks[2], masks[3])
    np.testing.assert_allclose(curve.overlaps, [np.nan, overlap, np.nan, np.nan, np.nan])


def test_stretches_are_plain_data():
    text = json.dumps([vars(stretch) for stretch in doubtful_stretches(steady(f12=None))])
    assert json.loads(text) == [{"start": 12, "stop": 13, "reasons": ["absent"]}]


def test_a_malformed_mask_is_refused():
    with pytest.raises(ValueError, match="mask counts"):
        doubtful_stretches(Track("a", (), {0: MaskRLE(HEIGHT, WIDTH, "~~")}))


frames = st.dictionaries(
    st.integers(0, 30),
    st.tuples(st.none() | st.integers(0, 60), st.floats(allow_nan=True) | st.none()),
    max_size=20,
)


@given(frames, st.integers(0, 5))
def test_stretches_are_in_order_apart_and_cover_every_absence(drawn, gap):
    masks = {i: square(left=left) for i, (left, _) in drawn.items() if left is not None}
    scores = {i: score for i, (_, score) in drawn.items() if score is not None}
    track = Track("a", (), masks, scores)
    stretches = doubtful_stretches(track, DoubtLimits(join_gap_frames=gap))
    covered = {i for s in stretches for i in range(s.start, s.stop)}
    known = masks.keys() | scores.keys()
    every = set(range(min(known), max(known) + 1)) if known else set()
    assert every - masks.keys() <= covered <= every
    assert all(s.reasons for s in stretches)
    for before, after in zip(stretches, stretches[1:]):
        assert before.stop + gap < after.start
