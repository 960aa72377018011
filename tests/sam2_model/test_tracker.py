"""`track`: which frames come, in which order, when it stops, and what it refuses."""


import numpy as np
import pytest
from PIL import Image

from converters.types import Box, Direction, FrameMasks, FrameRange, Prompt
from sam2_model.tracker import StopRules, merge_prompts, passes, track, track_steps
from sam2_model.video import open_frame_source
from sam2_model.video_predictor import SAM2VideoPredictor
from tests.sam2_model.small_model import moving_square, small_network, small_predictor
from tests.video_files import write_video
from tests.sam2_model.threads import new_threads

COUNT, HEIGHT, WIDTH = 10, 64, 96
BOTH, BACKWARD, FORWARD = Direction.BOTH, Direction.BACKWARD, Direction.FORWARD


def click(frame_index, object_id="a", xy=(40, 30), label=1) -> Prompt:
    return Prompt(object_id, frame_index, points_xy=[xy], point_labels=[label])


def box(frame_index, object_id="a", corners=(10, 10, 50, 50)) -> Prompt:
    return Prompt(object_id, frame_index, box=Box(*corners))


def mask(frame_index, object_id="a", value=True) -> Prompt:
    picture = np.zeros((HEIGHT, WIDTH), dtype=bool)
    picture[16:48, 24:72] = value
    return Prompt(object_id, frame_index, mask=picture)


def follow(prompts, *frame_range, predictor=None, source=None, **kwargs) -> list[FrameMasks]:
    return list(
        track(
            moving_square(COUNT) if source is None else source,
            prompts,
            FrameRange(*frame_range) if frame_range else None,
            predictor=predictor or small_predictor(),
            **kwargs,
        )
    )


def frames(answers) -> list[int]:
    return [answer.frame_index for answer in answers]


# ------------------------------------------------------------------------ the frames


@pytest.mark.parametrize(
    "prompted, frame_range, expected",
    [
        ([2], None, list(range(2, 10))),  # from the first prompt to the end
        ([7, 2], None, list(range(2, 10))),  # the earliest, not the first given
        ([2], (0, 10), list(range(10))),  # before the prompt too
        ([2], (3, 6), [3, 4, 5]),  # half-open
        ([2], (9, 10), [9]),
        ([5], (0, 8, BACKWARD), [7, 6, 5, 4, 3, 2, 1, 0]),
        ([0], (0, 1, BACKWARD), [0]),
        ([4], (0, 10, BOTH), [4, 5, 6, 7, 8, 9, 3, 2, 1, 0]),
        ([8, 4, 6], (0, 10, BOTH), [4, 5, 6, 7, 8, 9, 3, 2, 1, 0]),
        ([2], (2, 5, BOTH), [2, 3, 4]),  # nothing before it
        ([9], (6, 10, BOTH), [9, 8, 7, 6]),  # nothing after it
        ([1], (4, 7, BOTH), [4, 5, 6]),  # the prompt lies before the range
        ([4], (0, 10, "both"), [4, 5, 6, 7, 8, 9, 3, 2, 1, 0]),
    ],
)
def test_every_frame_of_the_range_comes_once_in_the_stated_order(prompted, frame_range, expected):
    prompts = [click(frame_index) for frame_index in prompted]
    assert frames(follow(prompts, *(frame_range or ()))) == expected


@pytest.mark.parametrize(
    "frame_range, expected",
    [
        ((0, 10, FORWARD), [range(0, 10)]),
        ((3, 7, BACKWARD), [range(6, 2, -1)]),
        ((3, 7, BOTH), [range(4, 7), range(3, 2, -1)]),
        ((4, 7, BOTH), [range(4, 7), range(3, 3, -1)]),
        ((5, 7, BOTH), [range(5, 7), range(4, 4, -1)]),  # prompted at 4 only
    ],
)
def test_both_directions_are_two_passes_from_the_earliest_prompt_inside(frame_range, expected):
    assert passes(FrameRange(*frame_range), [4]) == expected


def test_masks_are_at_video_size_with_a_score_an_object():
    for answer in follow([click(0, "a"), box(2, "b"), mask(1, ("c", 3))]):
        assert answer.object_ids == ("a", "b", ("c", 3))  # in the order of the prompts
        assert answer.masks.shape == (3, HEIGHT, WIDTH) and answer.masks.dtype == bool
        assert answer.scores.shape == (3,) and answer.scores.dtype == np.float32


def test_objects_stand_in_the_order_of_their_first_prompt():
    answers = follow([click(3, "late"), click(0, "early"), click(1, "late")])
    assert {answer.object_ids for answer in answers} == {("late", "early")}


def test_tracks_are_what_the_video_predictor_answers():
    predictor = small_predictor()
    state = predictor.init_state(moving_square(COUNT))
    corners = [10, 10, 50, 50]
    predictor.add_new_points_or_box(state, 0, "a", box=corners)
    predictor.add_new_points_or_box(state, 0, "a", [[40, 30]], [1], box=corners)
    predictor.add_new_points_or_box(state, 0, "a", [[40, 30], [5, 5]], [1, 0], box=corners)
    expected = [
        (logits[:, 0] > 0).numpy() for _, _, logits in predictor.propagate_in_video(state)
    ]
    answers = follow([box(0), click(0), click(0, xy=(5, 5), label=0)])
    for answer, masks in zip(answers, expected, strict=True):
        np.testing.assert_array_equal(answer.masks, masks)


@pytest.mark.parametrize("kind", ["file", "folder", "source", "state"])
def test_a_source_of_any_kind_serves(tmp_path, kind):
    predictor = small_predictor()
    source = write_video(tmp_path / "clip.mp4", count=5)
    if kind == "folder":
        source = tmp_path / "frames"
        source.mkdir()
        for index, frame in enumerate(moving_square(5)):
            Image.fromarray(frame).save(source / f"{index}.jpg")
    elif kind == "source":
        source = open_frame_source(source)
    elif kind == "state":
        source = predictor.init_state(source)
    answers = follow([click(0)], source=source, predictor=predictor)
    assert frames(answers) == [0, 1, 2, 3, 4]
    if kind == "source":
        assert source.frame(0).shape == (64, 96, 3)  # the caller's source stays open


# ------------------------------------------------------------------------ the prompts


def test_prompts_for_one_object_and_frame_are_taken_together():
    merged = merge_prompts(
        [click(3), click(1), box(3), click(3, xy=(9, 9), label=0), click(3, "b")]
    )
    assert [(prompt.object_id, prompt.frame_index) for prompt in merged] == [
        ("a", 3), ("a", 1), ("b", 3)
    ]
    assert merged[0].box == Box(10, 10, 50, 50)
    assert merged[0].points_xy.tolist() == [[40, 30], [9, 9]]
    assert merged[0].point_labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([], "prompts is empty"),
        ([box(3), box(3, corners=(1, 1, 5, 5))], "'a' on frame 3 has two boxes"),
        ([mask(3), click(3)], "'a' on frame 3 has a mask and another prompt"),
        ([click(3), mask(3)], "'a' on frame 3 has a mask and another prompt"),
        ([mask(3), mask(3)], "a mask stands alone"),
        ([box(3), click(3), mask(3)], "a mask stands alone"),
        ([click(10)], "'a' is on frame 10: the video has frames \\[0, 10\\)"),
        ([click(0), click(99, "b")], "'b' is on frame 99"),
        ([box(0, corners=(10, 10, 10, 50))], "\\(10, 10, 10, 50\\) must have an area"),
        ([box(0, corners=(96, 10, 120, 50))], "\\(96, 10, 120, 50\\) must .* picture of 96 x 64"),
        ([box(0, corners=(-9, -20, 40, -1))], "'a' on frame 0: box .* area inside the picture"),
        ([click(3), box(2, "b", corners=(900, 30, 1000, 610))], "'b' on frame 2: box \\(900, 30"),
        ([click(0, xy=(97, 5))], "point \\(97, 5\\) must lie in the picture of 96 x 64 pixels"),
    ],
)
def test_prompts_that_cannot_be_followed_are_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        follow(prompts)
    assert not new_threads()


@pytest.mark.parametrize("frame_range", [(0, 11), (10, 11), (3, 40, BACKWARD)])
def test_a_range_outside_the_video_is_refused(frame_range):
    with pytest.raises(ValueError, match="must end within the video's 10 frames"):
        follow([click(0)], *frame_range)


def test_a_prompt_outside_the_range_conditions_it():
    alone = follow([click(0)], 4, 8)
    helped = follow([click(0), box(9)], 4, 8)
    assert frames(alone) == frames(helped) == [4, 5, 6, 7]
    assert any((one.masks != other.masks).any() for one, other in zip(alone, helped))


def test_an_empty_mask_says_that_the_object_is_absent_there():
    answers = follow([click(0), mask(4, value=False)])
    assert answers[4].scores[0] < 0 and not answers[4].masks.any()
    assert answers[3].scores[0] > 0


# ----------------------------------------------------------------------- the stop rules


def absent_unless_prompted():
    """A predictor of a network that sees objects nowhere but where they are prompted by a mask."""
    return small_predictor(small_network(score_bias=-50.0))


def shown(answers) -> dict[int, tuple]:
    return {answer.frame_index: answer.object_ids for answer in answers}


def test_no_rule_stops_anything_unless_set():
    answers = follow([mask(0)], predictor=absent_unless_prompted())
    assert [float(answer.scores[0]) > 0 for answer in answers] == [True] + [False] * 9


@pytest.mark.parametrize("lost_frames, last", [(1, 1), (3, 3), (9, 9), (50, 9)])
def test_an_object_lost_for_long_enough_is_given_up(lost_frames, last):
    answers = follow(
        [mask(0)], predictor=absent_unless_prompted(), stop=StopRules(lost_frames=lost_frames)
    )
    assert frames(answers) == list(range(last + 1))


def test_a_stopped_object_returns_at_its_next_prompt():
    answers = follow(
        [mask(0), mask(6)], predictor=absent_unless_prompted(), stop=StopRules(lost_frames=2)
    )
    there, gone = ("a",), ()
    assert shown(answers) == {
        0: there, 1: there, 2: there,  # prompted, lost, lost: given up
        3: gone, 4: gone, 5: gone,
        6: there, 7: there, 8: there,  # prompted again, lost, lost: for good
    }
    assert answers[3].masks.shape == (0, HEIGHT, WIDTH) and answers[3].scores.shape == (0,)


def test_frames_lost_before_a_stop_do_not_count_after_the_next_prompt():
    # The second prompt says "absent": one lost frame, not the third.
    answers = follow(
        [mask(0), mask(6, value=False)],
        predictor=absent_unless_prompted(), stop=StopRules(lost_frames=2),
    )
    assert [at for at, ids in shown(answers).items() if ids] == [0, 1, 2, 6, 7]


def test_one_object_stops_and_the_other_goes_on():
    # The second object is prompted on every frame, so it is never lost.
    prompts = [mask(0, "lost"), *(mask(index, "held") for index in range(COUNT))]
    answers = follow(
        prompts, predictor=absent_unless_prompted(), stop=StopRules(lost_frames=2)
    )
    assert [answer.object_ids for answer in answers] == (
        [("lost", "held")] * 3 + [("held",)] * 7
    )


@pytest.mark.parametrize("share, last", [(0.01, 0), (1.0, 9)])
def test_a_mask_over_too_large_a_share_of_the_frame_stops(share, last):
    answers = follow([mask(0)], stop=StopRules(area_share=share))
    assert frames(answers) == list(range(last + 1))


def test_an_object_stopped_forward_is_tried_again_backward():
    answers = follow(
        [mask(5)], 0, 10, BOTH,
        predictor=absent_unless_prompted(), stop=StopRules(lost_frames=2),
    )
    assert frames(answers) == [5, 6, 7, 4, 3]


@pytest.mark.parametrize(
    "rules, named",
    [
        ({"lost_frames": 0}, "lost_frames=0"),
        ({"lost_frames": -3}, "lost_frames=-3"),
        ({"area_share": 0.0}, "area_share=0.0"),
        ({"area_share": 1.01}, "area_share=1.01"),
        ({"area_share": float("nan")}, "area_share=nan"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules, named):
    with pytest.raises(ValueError, match=named):
        StopRules(**rules)


# ---------------------------------------------------------------- cancelling, progress


def test_cancellation_ends_between_frames():
    answers = []
    for answer in track(
        moving_square(COUNT), [click(0)], predictor=small_predictor(),
        is_cancelled=lambda: len(answers) >= 4,
    ):
        answers.append(answer)
    assert frames(answers) == [0, 1, 2, 3]
    assert not new_threads()


def test_cancellation_ends_both_passes():
    answers = []
    for answer in track(
        moving_square(COUNT), [click(7)], FrameRange(0, 10, BOTH), predictor=small_predictor(),
        is_cancelled=lambda: len(answers) >= 2,
    ):
        answers.append(answer)
    assert frames(answers) == [7, 8]


def test_cancelled_from_the_start_gives_nothing():
    assert follow([click(0)], is_cancelled=lambda: True) == []


def test_progress_counts_the_frames_of_all_passes():
    calls = []
    follow([click(4)], 1, 7, BOTH, progress=lambda *counts: calls.append(counts))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_progress_comes_with_its_frame():
    calls = []
    tracking = track(
        moving_square(COUNT), [click(0)], predictor=small_predictor(),
        progress=lambda done, total: calls.append(done),
    )
    for index, _ in enumerate(tracking):
        assert calls[-1] == index + 1


@pytest.mark.parametrize("how", ["closed", "dropped", "broken by the callback"])
def test_leaving_early_leaves_no_thread_and_closes_the_video(tmp_path, how):
    path = write_video(tmp_path / "clip.mp4", count=30)

    def progress(done, total):
        if how == "broken by the callback" and done == 3:
            raise KeyboardInterrupt

    tracking = track(path, [click(0)], predictor=small_predictor(), progress=progress)
    next(tracking), next(tracking)
    if how == "closed":
        tracking.close()
    elif how == "broken by the callback":
        with pytest.raises(KeyboardInterrupt):
            next(tracking)
    else:
        del tracking
    assert not new_threads()


# ------------------------------------------------------------------------ kept states


def test_a_state_as_source_keeps_its_features_and_loses_its_prompts():
    predictor = small_predictor()
    with predictor.init_state(moving_square(COUNT)) as state:
        predictor.add_new_points_or_box(state, 3, "old", [[5, 5]], [1])
        first = follow([click(0)], source=state, predictor=predictor)
        assert state.encoded_frame_count == COUNT
        assert state["obj_ids"] == ["a"]
        again = follow([click(0), box(5, "b")], source=state, predictor=predictor)
        assert state.encoded_frame_count == COUNT
        assert frames(again) == frames(first)
        for one, other in zip(first, again):
            np.testing.assert_array_equal(one.masks[0], other.masks[0])
        assert state.source.frame(0) is not None  # left open


@pytest.mark.parametrize(
    ("direction", "prompted"),
    [(FORWARD, (0, 9)), (BACKWARD, (39, 30)), (BOTH, (19, 19)), (BOTH, (25, 19)), (BOTH, (39, 39))],
)
def test_a_file_is_tracked_with_what_the_next_frame_needs_and_the_same_masks(
    direction, prompted
):
    predictor = StatesShown(small_predictor())
    prompts = [click(prompted[0]), box(prompted[1], "b"), click(27), box(27, "b")]
    frame_range = FrameRange(0, 40, direction)
    with predictor.init_state(moving_square(40)) as state:
        expected = list(track(state, prompts, frame_range, predictor=predictor))
        held_of_a_state = held(state)
    most = [0, 0]
    answers = []
    for answer in track(moving_square(40), prompts, frame_range, predictor=predictor):
        answers.append(answer)
        most = np.maximum(most, held(predictor.states[-1]))
    for one, other in zip(expected, answers, strict=True):
        assert one.frame_index == other.frame_index
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_array_equal(one.scores, other.scores)
    reach = max(predictor.memory_reach, predictor.model.config.max_object_pointers)
    passes_kept = 2 if direction is BOTH else 1
    assert most[0] <= passes_kept * reach < held_of_a_state[0]
    assert most[1] == 1 < held_of_a_state[1]


class StatesShown(SAM2VideoPredictor):
    """Remembers the states that it makes."""

    def __init__(self, like):
        super().__init__(like.model, like.options, limits=like.limits)
        self.states = []

    def init_state(self, *args, **kwargs):
        self.states.append(super().init_state(*args, **kwargs))
        return self.states[-1]


def held(state):
    """The longest history of an object, and of how many frames there are features."""
    histories = [len(item.history) for item in state.objects.values()]
    return max(histories), sum(map(state.has_features, range(state.num_frames)))


def test_masks_of_a_predictor_without_overlaps_are_disjoint():
    answers = follow(
        [click(0, "a"), box(0, "b")], predictor=small_predictor(non_overlap_masks=True)
    )
    assert max(int(answer.masks.sum(axis=0).max()) for answer in answers) == 1


def test_one_frame_and_one_pixel():
    prompt = Prompt("a", 0, points_xy=[(0.5, 0.5)], point_labels=[1])
    for direction in Direction:
        answers = follow([prompt], 0, 1, direction, source=moving_square(1, 1, 1))
        assert [answer.masks.shape for answer in answers] == [(1, 1, 1)]


# ------------------------------------------------------------------------ the steps


def test_every_prompt_is_a_step_and_the_frames_are_those_of_track():
    prompts = [click(0), box(4, "b"), click(0, xy=(44, 32)), mask(6, "a")]
    predictor = small_predictor()
    steps = list(track_steps(moving_square(COUNT), prompts, predictor=predictor))
    assert [step is None for step in steps] == [True] * 3 + [False] * COUNT
    for step, frame in zip(steps[3:], follow(prompts, predictor=predictor), strict=True):
        assert step.frame_index == frame.frame_index
        assert np.array_equal(step.masks, frame.masks) and np.array_equal(step.scores, frame.scores)


def test_a_run_is_cancelled_between_two_prompts():
    asked = iter([False, True])
    steps = track_steps(
        moving_square(COUNT), [click(0), click(3), click(6)], predictor=small_predictor(),
        is_cancelled=lambda: next(asked),
    )
    assert list(steps) == [None]
