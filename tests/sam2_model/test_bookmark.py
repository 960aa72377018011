"""A run that goes on in another process answers what it would have answered."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from converters.types import Direction, FrameMasks, FrameRange
from sam2_model.bookmark import Bookmark
from sam2_model.tracker import StopRules, track
from tests.sam2_model.small_model import moving_square, small_network, small_predictor
from tests.sam2_model.test_tracker import BOTH, box, click, mask

COUNT = 40


def run(prompts, frame_range=None, *, predictor=None, saved=None, stop_after=None, **options):
    """What a run in a process of its own answers, and its bookmark where it is left."""
    bookmark = Bookmark(saved)
    answers = track(
        moving_square(COUNT), prompts, frame_range, predictor=predictor or small_predictor(),
        bookmark=bookmark, **options,
    )
    found = list(itertools.islice(answers, stop_after))
    body = bookmark.save() if len(found) == stop_after else None
    answers.close()
    return found, body


def assert_equal(left: list[FrameMasks], right: list[FrameMasks]) -> None:
    assert [a.frame_index for a in left] == [b.frame_index for b in right]
    for a, b in zip(left, right):
        assert a.object_ids == b.object_ids
        assert np.array_equal(a.masks, b.masks)
        assert np.array_equal(a.scores, b.scores)


PROMPTS = [click(2), box(20, "b"), mask(4, ("c", 1)), click(21, "a", xy=(60, 20))]
RANGES = [
    FrameRange(2, COUNT),
    FrameRange(0, 24, Direction.BACKWARD),
    FrameRange(0, COUNT, BOTH),
    FrameRange(10, 30, BOTH),
]


@functools.cache
def one_run(frame_range: FrameRange) -> list[FrameMasks]:
    return run(PROMPTS, frame_range)[0]


@pytest.mark.parametrize("frame_range", RANGES, ids=str)
@pytest.mark.parametrize("done", [1, 7, 19])
def test_the_rest_is_that_of_one_run(frame_range, done):
    whole = one_run(frame_range)
    first, saved = run(PROMPTS, frame_range, stop_after=done)
    rest, _ = run(PROMPTS, frame_range, saved=saved)
    assert_equal(first + rest, whole)


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ({"carry_masks": True, "draw_prompts": True}, {}),
        ({"carry_masks": True, "match_memories": True}, {}),
        ({"pointer_time_encoding": False, "memory_of_absence": False}, {}),
        ({}, {"memory_temporal_stride_for_eval": 3}),
        ({}, {"non_overlap_masks": True, "non_overlap_masks_for_mem_enc": True}),
        ({"max_cond_frames_in_attn": 2}, {}),
    ],
    ids=str,
)
def test_whatever_the_model_remembers(network, options):
    def predictor():
        return small_predictor(small_network(**network), **options)

    frame_range = FrameRange(0, COUNT, BOTH)
    whole, _ = run(PROMPTS, frame_range, predictor=predictor())
    first, saved = run(PROMPTS, frame_range, predictor=predictor(), stop_after=25)
    rest, _ = run(PROMPTS, frame_range, predictor=predictor(), saved=saved)
    assert_equal(first + rest, whole)


def test_a_run_may_be_broken_after_every_frame():
    prompts, frame_range = [click(5), box(5, "b")], FrameRange(0, 14, BOTH)
    whole, _ = run(prompts, frame_range)
    found, saved = [], None
    for _ in range(len(whole)):
        some, saved = run(prompts, frame_range, saved=saved, stop_after=1)
        found += some
    assert_equal(found, whole)
    assert run(prompts, frame_range, saved=saved)[0] == []


@pytest.mark.parametrize("done", [3, 4, 5, 9])
def test_objects_that_were_given_up_stay_so(done):
    def predictor():
        return small_predictor(small_network(score_bias=-50.0))

    prompts, stop = [mask(0), mask(10), mask(3, "b")], StopRules(lost_frames=3)
    whole, _ = run(prompts, predictor=predictor(), stop=stop)
    first, saved = run(prompts, predictor=predictor(), stop=stop, stop_after=done)
    rest, _ = run(prompts, predictor=predictor(), stop=stop, saved=saved)
    assert_equal(first + rest, whole)


def test_what_is_left_after_everyone_was_given_up_is_not_tracked():
    def predictor():
        return small_predictor(small_network(score_bias=-50.0))

    stop = StopRules(lost_frames=2)
    whole, saved = run([mask(0)], predictor=predictor(), stop=stop, stop_after=3)
    assert run([mask(0)], predictor=predictor(), stop=stop)[0][3:] == []
    assert run([mask(0)], predictor=predictor(), stop=stop, saved=saved)[0] == []


def test_progress_counts_what_was_done_before():
    calls = []
    _, saved = run([click(0)], stop_after=30)
    run([click(0)], saved=saved, progress=lambda *counts: calls.append(counts))
    assert calls[0] == (31, COUNT) and calls[-1] == (COUNT, COUNT)


def test_its_size_does_not_grow_with_the_video():
    sizes = [len(run([click(0)], stop_after=done)[1]) for done in (17, 25, 39)]
    assert max(sizes) < 1.01 * min(sizes)


def test_there_is_nothing_to_save_before_the_first_frame_and_after_the_last():
    bookmark = Bookmark()
    with pytest.raises(ValueError, match="before a frame"):
        bookmark.save()
    list(track(moving_square(3), [click(0)], predictor=small_predictor(), bookmark=bookmark))
    with pytest.raises(ValueError, match="has ended"):
        bookmark.save()


@pytest.mark.parametrize(
    "body", [b"", b"no", bytes(64), b"\xff" * 64, b"\x02\0\0\0\0\0\0\0{}"], ids=range(5)
)
def test_what_is_no_bookmark_is_refused(body):
    with pytest.raises(ValueError, match="not a bookmark"):
        Bookmark(body)


def test_a_cut_off_bookmark_is_refused():
    _, saved = run([click(0)], stop_after=5)
    with pytest.raises(ValueError, match="not a bookmark"):
        Bookmark(saved[:-100])


@pytest.mark.parametrize(
    ("prompts", "frame_range", "config", "named"),
    [
        ([click(0)], FrameRange(0, 30), {}, "orders"),
        ([click(0), click(0, "b")], None, {}, "objects"),
        ([click(0)], None, {"memory_dim": 16}, "memory"),
    ],
)
def test_that_of_another_run_is_refused(prompts, frame_range, config, named):
    _, saved = run([click(0)], stop_after=5)
    predictor = small_predictor(small_network(**config))
    with pytest.raises(ValueError, match=f"another run: its {named}"):
        run(prompts, frame_range, predictor=predictor, saved=saved)
