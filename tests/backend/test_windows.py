"""A long video in windows: where they begin, what they find, and who tracks them."""

import functools

import numpy as np
import pytest

from backend.jobs.blobs import FolderBlobs
from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobSpec, JobState
from backend.scheduler import Priority
from backend.tracking import TrackingOptions, TrackingRun
from backend.windows import (
    MOST_WINDOWS,
    WARM_UP_FRAMES,
    WindowedTracking,
    plan_windows,
    seams,
    with_warm_up,
)
from converters.label_studio.results import ObjectRequest
from converters.masks import decode_mask
from converters.types import Box, Direction, FrameRange, Prompt
from sam2_model.tracker import track_steps
from tests.sam2_model.small_model import moving_square, small_predictor

FORWARD, BACKWARD, BOTH = Direction.FORWARD, Direction.BACKWARD, Direction.BOTH
COUNT = 60


@pytest.mark.parametrize(
    ("prompted", "frame_range", "expected"),
    [
        ([[0]], (0, 60), []),
        ([[0, 20, 40]], (0, 60), [20, 40]),
        ([[0, 20, 40], [0, 40]], (0, 60), [40]),  # on 20 the second would have no prompt
        ([[0, 20, 40], [20, 40]], (0, 60), [20, 40]),  # it begins there
        ([[0, 20, 40], [30, 40]], (0, 60), [20, 40]),  # or later
        ([[0, 20, 40], [50]], (0, 60), [20, 40]),
        ([[20, 40]], (0, 60, BACKWARD), [20, 40]),
        ([[20, 40], [10, 40]], (0, 60, BACKWARD), [40]),
        ([[20, 40], [10]], (0, 60, BACKWARD), [20, 40]),
        ([[10, 30]], (0, 60, BOTH), [30]),  # none on the way back
        ([[10, 30], [30]], (0, 60, BOTH), [30]),
        ([[10, 30], [20, 40]], (0, 60, BOTH), []),  # each would be followed without a prompt
        ([[0, 59]], (0, 60), []),  # nothing comes after it
        ([[0, 20]], (20, 60), []),
    ],
)
def test_a_seam_is_where_every_object_followed_has_a_prompt(prompted, frame_range, expected):
    assert seams(prompted, FrameRange(*frame_range)) == expected


@pytest.mark.parametrize(
    ("prompted", "frame_range", "least", "expected"),
    [
        ([[0, 20, 40]], (0, 60), 20, [(0, 20, FORWARD), (20, 40, FORWARD), (40, 60, FORWARD)]),
        ([[0, 20, 40]], (0, 60), 31, [(0, 60, FORWARD)]),
        ([[0, 20, 40]], (0, 80), 25, [(0, 40, FORWARD), (40, 80, FORWARD)]),
        ([[5, 30]], (0, 60, BOTH), 10, [(0, 30, BOTH), (30, 60, FORWARD)]),
        ([[20, 40]], (0, 41, BACKWARD), 10, [(0, 21, BACKWARD), (21, 41, BACKWARD)]),
    ],
)
def test_windows_have_the_least_length(prompted, frame_range, least, expected):
    windows = plan_windows(prompted, FrameRange(*frame_range), least_frames=least)
    assert windows == [FrameRange(*window) for window in expected]


def test_there_are_not_too_many():
    windows = plan_windows([list(range(0, 10_000, 2))], FrameRange(0, 10_000), least_frames=1)
    assert 1 < len(windows) <= MOST_WINDOWS
    assert windows[0].start == 0 and windows[-1].stop == 10_000
    assert all(a.stop == b.start for a, b in zip(windows, windows[1:]))


def test_a_window_warms_up_before_its_seam():
    whole = FrameRange(2, 60)
    assert with_warm_up(FrameRange(20, 40), whole) == FrameRange(20 - WARM_UP_FRAMES, 40)
    assert with_warm_up(FrameRange(4, 40), whole) == FrameRange(2, 40)
    assert with_warm_up(FrameRange(2, 40, BOTH), whole) == FrameRange(2, 40, BOTH)
    backward = FrameRange(0, 60, BACKWARD)
    assert with_warm_up(FrameRange(0, 21, BACKWARD), backward).stop == 21 + WARM_UP_FRAMES


# ------------------------------------------------------------------------ tracking


@pytest.fixture
def store(tmp_path):
    opened = JobStore(tmp_path / "jobs.sqlite3")
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path):
    return FolderBlobs(tmp_path / "unfinished")


@pytest.fixture
def state():
    with small_predictor().init_state(moving_square(COUNT)) as opened:
        yield opened


SEAMS = (20, 40)


def make_run(state, direction=FORWARD):
    def prompt(object_id, index):
        x = index * 3 % 60
        return Prompt(object_id, index, box=Box(x, 10, x + 30, 50))

    first = [prompt("a", index) for index in (0, *SEAMS)]
    second = [prompt("b", index) for index in (*SEAMS, 50)]
    requests = [
        ObjectRequest("a", (), tuple(first), {}), ObjectRequest("b", (), tuple(second), {})
    ]
    return TrackingRun(requests, state.source.info, TrackingOptions(direction=direction))


class Job:
    """What runs a job of the whole video, on a worker of its own."""

    def __init__(self, store, blobs, state, *, is_left=lambda: False):
        spec = JobSpec(
            kind=JobKind.TRACK, request={"task": 1}, key="key", priority=Priority.BATCH,
            project_id=7, request_id="asked",
        )
        job, _ = store.add(spec)
        self.store, self.state = store, state
        self.job = store.begin(job.id) or job
        self.windows = WindowedTracking(
            store, blobs, self.job, "content", least_frames=15, save_seconds=0.001,
            priority=lambda: Priority.BATCH, is_left=is_left,
        )
        self.ranges = []

    def do(self, run, *, is_cancelled=lambda: False, progress=lambda *_: None, while_tracking=None):
        steps = functools.partial(track_steps, self.state, predictor=small_predictor())

        def tracker(source, prompts, frame_range, **options):
            self.ranges.append(frame_range)
            if while_tracking is not None:
                while_tracking(frame_range)
            return (step for step in steps(prompts, frame_range, **options) if step is not None)

        self.windows.track(
            run, self.state.source, tracker, part=0, number=0,
            is_cancelled=is_cancelled, progress=progress,
        )
        return run.tracked()

    def offered(self):
        return [job for job in self.store.list() if job.kind is JobKind.WINDOW]


def unsplit(state, direction=FORWARD):
    run = make_run(state, direction)
    steps = functools.partial(track_steps, state, predictor=small_predictor())
    run.run(
        state.source,
        lambda source, prompts, frame_range, **options: (
            step for step in steps(prompts, frame_range, **options) if step is not None
        ),
    )
    return run.tracked()


def mask(track, index):
    return track.masks.get(index)


@pytest.mark.parametrize("direction", [FORWARD, BACKWARD, BOTH])
def test_masks_on_the_seams_are_those_of_an_unsplit_run(store, blobs, state, direction):
    job = Job(store, blobs, state)
    split = job.do(make_run(state, direction))
    whole = unsplit(state, direction)
    assert split.is_complete and len(job.ranges) > 1
    for ours, theirs in zip(split.tracks, whole.tracks):
        assert list(ours.scores) == list(theirs.scores)
        for index in SEAMS:
            assert mask(ours, index) == mask(theirs, index)
            assert ours.scores[index] == theirs.scores[index]
        assert agreement(ours, theirs) > 0.9


def agreement(ours, theirs) -> float:
    """Mean IoU over the frames."""
    values = []
    for index in ours.scores:
        a, b = (
            np.zeros((64, 96), bool) if t.masks.get(index) is None else decode_mask(t.masks[index])
            for t in (ours, theirs)
        )
        values.append(1.0 if not (a | b).any() else (a & b).sum() / (a | b).sum())
    return float(np.mean(values))


def test_what_nobody_begins_is_tracked_here(store, blobs, state, tmp_path):
    job = Job(store, blobs, state)
    offers = []
    calls = []
    job.do(
        make_run(state), while_tracking=lambda _: offers.append(job.offered()),
        progress=lambda *counts: calls.append(counts),
    )
    assert [(w.start, w.stop) for w in job.ranges] == [(0, 20), (13, 40), (33, 60)]
    first = offers[0]
    assert {j.state for j in first} == {JobState.QUEUED} and len(first) == 2
    assert {(j.project_id, j.task_id, j.request_id) for j in first} == {(7, None, "asked")}
    assert {j.state for j in job.offered()} == {JobState.CANCELLED}
    job.windows.forget()
    assert not [path for path in (tmp_path / "unfinished").rglob("*") if path.is_file()]
    assert calls[-1] == (60, 60) and sorted(calls) == calls


def alone_on(store, blobs, state):
    """What one worker finds that nobody helps."""
    job = Job(store, blobs, state)
    found = job.do(make_run(state))
    job.windows.forget()
    return found


def helped(store, blobs, state, offered):
    """Another worker tracks a window, as `WindowWork` does."""
    from backend.kept_progress import KeptProgress
    from backend.windows import _Place, _save

    job = store.begin(offered.id)
    place = _Place.from_json(job.request["place"])
    whole = make_run(state)
    run = TrackingRun(
        whole.requests, whole.info, whole.options,
        frame_range=with_warm_up(place.window, whole.frame_range),
    )
    with small_predictor().init_state(moving_square(COUNT)) as own:
        KeptProgress(blobs, "other", "x", every_seconds=3600).track(
            run, own.source,
            lambda source, prompts, frame_range, **options: (
                step for step in track_steps(
                    own, prompts, frame_range, predictor=small_predictor(), **options
                ) if step is not None
            ),
            is_cancelled=lambda: False, progress=lambda *_: None,
        )
    _save(blobs, place, "content", run)
    store.finish(job.id, JobState.DONE)


def test_what_another_worker_has_done_is_taken_over(store, blobs, state):
    alone = alone_on(store, blobs, state)
    job = Job(store, blobs, state)

    def once(frame_range):
        if len(job.ranges) == 1:
            (offer,) = [j for j in job.offered() if j.state is JobState.QUEUED
                        and j.request["place"]["start"] == 20]
            helped(store, blobs, state, offer)

    assert job.do(make_run(state), while_tracking=once) == alone
    assert [(w.start, w.stop) for w in job.ranges] == [(0, 20), (33, 60)]


def test_it_waits_for_a_window_under_way_and_tracks_one_that_failed(store, blobs, state):
    job = Job(store, blobs, state)
    begun = []

    def at_first(frame_range):
        if len(job.ranges) == 1:
            begun.extend(store.begin(j.id) for j in job.offered() if j.state is JobState.QUEUED)

    def looked(job_id, get=store.get):
        # Both workers die after a while: one window fails, one is queued again.
        if len(job.ranges) == 1 and begun:
            failed, lost = begun
            store.finish(failed.id, JobState.FAILED, error="it was too much")
            store.put_back(lost.id)
        return get(job_id)

    store.get = looked
    assert job.do(make_run(state), while_tracking=at_first).is_complete
    assert len(job.ranges) == 3


def test_a_cancelled_video_gives_up_its_windows(store, blobs, state, tmp_path):
    job = Job(store, blobs, state)
    run = make_run(state)
    found = job.do(run, is_cancelled=lambda: run.done_frames >= 25)
    assert not found.is_complete
    assert {j.state for j in job.offered()} == {JobState.CANCELLED}
    job.windows.forget()
    assert not [path for path in (tmp_path / "unfinished").rglob("*") if path.is_file()]


def test_another_attempt_uses_what_is_done_of_the_windows(store, blobs, state):
    alone = alone_on(store, blobs, state)
    run = make_run(state)
    first = Job(store, blobs, state, is_left=lambda: run.done_frames >= 30)
    first.do(run, is_cancelled=lambda: run.done_frames >= 30)
    assert [j.state for j in first.offered()][:1] == [JobState.QUEUED]  # they go on
    again = Job(store, blobs, state)
    before = {j.id for j in again.offered()}
    tracked = []
    assert again.do(make_run(state), progress=lambda done, _: tracked.append(done)) == alone
    assert [(w.start, w.stop) for w in again.ranges] == [(13, 40), (33, 60)]
    assert tracked[0] >= 20
    # Nothing is offered that is done.
    assert {j.request["place"]["start"] for j in again.offered() if j.id not in before} <= {40}


def test_a_storage_that_is_away_costs_nobody_the_job(store, blobs, state):
    alone = alone_on(store, blobs, state)

    class Away:
        def load(self, name):
            raise OSError("no route to host")

        save = delete = load

    job = Job(store, Away(), state)
    assert job.do(make_run(state)) == alone
    job.windows.forget()


def test_a_video_that_fails_gives_up_its_windows(store, blobs, state):
    job = Job(store, blobs, state)

    def fails(frame_range):
        raise ValueError("the video breaks off")

    with pytest.raises(ValueError, match="breaks off"):
        job.do(make_run(state), while_tracking=fails)
    assert {j.state for j in job.offered()} == {JobState.CANCELLED}
