"""Which frames a run tracks and keeps, and what others see of it while it runs."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from backend.tracking import TrackingOptions, TrackingRun, nearest_to_prompts
from converters.label_studio.results import ObjectRequest
from converters.types import Box, Direction, Prompt
from tests.backend.conftest import FRAME_COUNT
from tests.backend.quick_model import Hold, QuickModel

FORWARD, BACKWARD, BOTH = Direction.FORWARD, Direction.BACKWARD, Direction.BOTH


def request(object_id, *frames):
    prompts = tuple(Prompt(object_id, frame, box=Box(70, 50, 150, 130)) for frame in frames)
    return ObjectRequest(object_id, ("Car",), prompts)


@pytest.fixture
def state(media_root, quick):
    with ExitStack() as stack:
        opened = quick.init_state(media_root / "n25.mp4")
        stack.callback(opened.close)
        yield opened


def make_run(state, *requests, **options):
    return TrackingRun(requests, state.source.info, TrackingOptions(**options))


def do(run, state, quick, **callbacks):
    run.run(state, quick.track, **callbacks)
    return run.tracked()


@pytest.mark.parametrize(
    ("direction", "limit", "expected_a", "expected_b"),
    [
        (FORWARD, 2, range(3, 6), range(4, 8)),
        (FORWARD, 99, range(3, 8), range(4, 8)),
        (BACKWARD, 1, range(2, 4), range(3, 6)),
        (BOTH, 1, range(2, 5), range(3, 7)),
        (BOTH, None, range(8), range(8)),
        (BACKWARD, None, range(4), range(6)),
    ],
)
def test_each_object_is_kept_so_far_from_its_own_prompts(
    state, quick, direction, limit, expected_a, expected_b
):
    run = make_run(
        state, request("b", 4, 5), request("a", 3), direction=direction, frame_limit=limit
    )
    b, a = do(run, state, quick).tracks
    assert (list(a.scores), list(b.scores)) == (list(expected_a), list(expected_b))
    assert list(a.masks) == list(expected_a)
    tracked = {index for _, index in quick.frames}
    assert tracked == set(expected_a) | set(expected_b)  # no frame for nothing
    assert run.done_frames == run.total_frames == len(tracked)


def test_a_prompt_past_the_end_is_told_before_anything_is_tracked(state):
    with pytest.raises(ValueError, match=r"frame 8: the video has frames \[0, 8\)"):
        make_run(state, request("a", 8))


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="frame_limit=0 must be >= 1"):
        TrackingOptions(frame_limit=0)


def test_progress_ends_at_the_whole(state, quick):
    seen = []
    run = make_run(state, request("a", 2), direction=BOTH)
    do(run, state, quick, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD, BOTH])
def test_a_cancelled_run_is_not_complete(state, quick, direction):
    run = make_run(state, request("a", 4), direction=direction)
    tracked = do(run, state, quick, is_cancelled=lambda: run.done_frames == 3)
    assert not tracked.is_complete and len(tracked.tracks[0].scores) == 3


def test_a_run_that_is_cancelled_after_its_last_frame_is_complete(state, quick):
    run = make_run(state, request("a", 0))
    assert do(run, state, quick, is_cancelled=lambda: run.done_frames == FRAME_COUNT).is_complete


def test_a_run_that_breaks_is_not_complete(state, quick):
    def broken(object_ids, frame_index):
        if frame_index == 3:
            raise KeyError("x")

    quick.before_frame = broken
    run = make_run(state, request("a", 0))
    with pytest.raises(KeyError):
        do(run, state, quick)
    assert not run.tracked().is_complete and len(run.tracked().tracks[0].scores) == 3


@pytest.mark.parametrize(
    ("frames", "limit"), [((0,), 3), ((2,), 1), ((0, 4), 5), ((0, 4), 2), ((7,), 1), ((0,), 8)]
)
def test_what_has_nearest_promises_is_what_the_whole_run_finds(state, quick, frames, limit):
    requests = [request("a", *frames), request("b", frames[-1])]
    run, promised = make_run(state, *requests), []

    def nearest():
        return nearest_to_prompts(run.tracked().tracks, requests, limit)

    def look(*_):
        if run.has_nearest(limit):
            promised.append(nearest())

    do(run, state, quick, progress=look)
    assert promised and all(early == nearest() for early in promised)


@pytest.mark.parametrize("direction", [BACKWARD, BOTH])
def test_only_forward_can_the_nearest_be_known_before_the_end(state, quick, direction):
    seen = []
    run = make_run(state, request("a", 4), direction=direction)
    do(run, state, quick, progress=lambda *_: seen.append(run.has_nearest(1)))
    assert not any(seen) and run.has_nearest(1)


def test_nothing_is_known_before_the_first_frame(state):
    assert not make_run(state, request("a", 0)).has_nearest(1)


def test_another_thread_sees_whole_frames_only_and_ever_more_of_them(state, quick):
    hold = quick.before_frame = Hold(5)
    run = make_run(state, request("a", 0), request("b", 0))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(do, run, state, quick)
        hold.wait()
        between = run.tracked()
        assert not between.is_complete
        assert [list(track.masks) for track in between.tracks] == [list(range(5))] * 2
        hold.release()
        last = 5
        while not running.done():
            counts = {len(track.scores) for track in run.tracked().tracks}
            assert len(counts) == 1 and counts.pop() >= last
        assert running.result().is_complete
    assert [len(track.scores) for track in between.tracks] == [5, 5]  # not a view of the run


def test_a_frame_without_the_object_has_a_score_and_no_mask(state):
    class Vanishing(QuickModel):
        def track(self, *arguments, **options):
            for frame in super().track(*arguments, **options):
                if frame.frame_index == 3:
                    frame.masks[:] = False
                yield frame

    (track,) = do(make_run(state, request("a", 0)), state, Vanishing()).tracks
    assert 3 in track.scores and 3 not in track.masks and 4 in track.masks
