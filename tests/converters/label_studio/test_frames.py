"""The editor's frame mapping, on rates that no table thinks of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.geometry import index_to_ls_frame, indices_of_ls_frames, ls_frame_to_index

steps = st.lists(st.floats(0.0005, 0.3), min_size=0, max_size=60)
framerates = st.one_of(st.sampled_from([24.0, 25.0, 30000 / 1001, 60.0]), st.floats(0.5, 240))
offsets = st.floats(0, 5)


def frame_times(gaps, offset):
    return tuple((offset + np.concatenate([[0.0], np.cumsum(gaps)])).tolist())


@settings(max_examples=200, deadline=None)
@given(steps, framerates, offsets)
def test_an_index_maps_to_the_first_ls_frame_that_shows_it_or_to_none(gaps, framerate, offset):
    times = frame_times(gaps, offset)
    last = int(times[-1] * framerate) + 3
    shown = indices_of_ls_frames(range(1, last + 1), framerate, times).tolist()

    assert shown == sorted(shown)
    assert shown == [ls_frame_to_index(n, framerate, times) for n in range(1, last + 1)]
    for index in range(len(times)):
        ls_frame = index_to_ls_frame(index, framerate, times)
        if ls_frame is None:
            assert index not in shown
        else:
            assert ls_frame_to_index(ls_frame, framerate, times) == index
            assert ls_frame == shown.index(index) + 1


@settings(max_examples=200, deadline=None)
@given(steps, framerates, offsets, st.integers(1, 300))
def test_a_frame_is_the_last_picture_not_after_the_editors_seek(gaps, framerate, offset, ls_frame):
    """The rule of the editor, written out once more, in thousandths of a second."""
    times = frame_times(gaps, offset)
    index = ls_frame_to_index(ls_frame, framerate, times)

    sought = int((ls_frame - 1) / framerate / 0.002 + 0.5) * 0.002 + 0.002
    tolerance = 1e-6
    assert index == 0 or times[index] <= sought + tolerance
    if index + 1 < len(times):
        assert times[index + 1] > sought - tolerance


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 500), st.floats(1, 120))
def test_at_the_videos_own_rate_frame_n_is_index_n_minus_1(count, fps):
    times = tuple(i / fps for i in range(count))
    assert indices_of_ls_frames(range(1, count + 1), fps, times).tolist() == list(range(count))
    assert [index_to_ls_frame(i, fps, times) for i in range(count)] == list(range(1, count + 1))
