"""The video predictor as its callers see it, on a network of toy size.

Numbers are compared with Meta's package in `tests/parity`; here it is shapes,
states, bounds and what bad input does.
"""

import collections
import dataclasses
import gc
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_model.masks import small_components
from sam2_model.session import FeatureCache, InferenceState, StateLimits
from sam2_model.video_predictor import PredictorOptions, _nearest_conditioning
from tests.sam2_model.small_model import (
    SMALL,
    answers_of,
    moving_square,
    small_network,
    small_predictor,
)
from tests.video_files import write_video
from tests.sam2_model.threads import new_threads

CLICK = {"points": [[40, 30]], "labels": [1]}
BOX = {"box": [10, 10, 50, 50]}
ABSENT = -1024.0
HEIGHT, WIDTH = 64, 96


# How a processor sums a batch of two and a batch of one differs in float32's last bits,
# which tracking carries on from frame to frame.
in_float64 = pytest.mark.parametrize("dtype", [torch.float64], ids=["float64"])


@pytest.fixture
def dtype() -> torch.dtype:
    return torch.float32


@pytest.fixture
def predictor(dtype):
    return small_predictor(small_network(dtype=dtype))


@pytest.fixture
def state(predictor):
    with predictor.init_state(moving_square(8)) as opened:
        yield opened


def follow(predictor, state, **kwargs) -> dict[int, torch.Tensor]:
    return answers_of(predictor.propagate_in_video(state, **kwargs))


def assert_equal_answers(one: dict, other: dict, *, atol: float = 0.0) -> None:
    assert list(one) == list(other)
    for frame_index in one:
        torch.testing.assert_close(
            one[frame_index], other[frame_index], atol=atol, rtol=0,
            msg=lambda text, at=frame_index: f"frame {at}: {text}",
        )


# ------------------------------------------------------------- values and shapes


def test_the_state_answers_as_metas_dict_does(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    assert isinstance(state, InferenceState)
    assert state["num_frames"] == 8
    assert (state["video_height"], state["video_width"]) == (HEIGHT, WIDTH)
    assert state["obj_ids"] == ["a"]
    assert state["device"] == torch.device("cpu") == state["storage_device"]


def test_an_unknown_key_of_the_state_names_the_known_ones(state):
    with pytest.raises(KeyError, match="images.*num_frames"):
        state["images"]


def test_a_prompt_answers_frame_ids_and_logits_at_video_size(predictor, state):
    frame_index, object_ids, logits = predictor.add_new_points_or_box(
        inference_state=state, frame_idx=3, obj_id=7,
        points=np.array([[40, 30]], dtype=np.float32), labels=np.array([1], np.int32),
    )
    assert (frame_index, object_ids) == (3, [7])
    assert logits.shape == (1, 1, HEIGHT, WIDTH) and logits.dtype == torch.float32
    assert (logits > 0).any() and (logits <= 0).any()


def test_other_objects_are_absent_from_the_answer_where_they_have_no_output(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    _, object_ids, logits = predictor.add_new_points_or_box(state, 2, "b", **BOX)
    assert object_ids == ["a", "b"]
    assert (logits[0] == ABSENT).all()
    assert (logits[1] != ABSENT).all()


def test_propagation_is_a_generator_of_frame_ids_and_logits(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 2, "b", **BOX)
    propagation = predictor.propagate_in_video(state)
    assert iter(propagation) is propagation
    answers = list(propagation)
    assert [frame_index for frame_index, _, _ in answers] == list(range(8))
    for _, object_ids, logits in answers:
        assert object_ids == ["a", "b"]
        assert logits.shape == (2, 1, HEIGHT, WIDTH) and logits.dtype == torch.float32


def test_a_prompted_frame_is_answered_as_it_was_prompted(predictor, state):
    _, _, prompted = predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert torch.equal(follow(predictor, state)[0], prompted)


def test_answers_do_not_change_under_the_callers_hands(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    kept = follow(predictor, state)
    copies = {frame_index: logits.clone() for frame_index, logits in kept.items()}
    predictor.add_new_points_or_box(state, 4, 1, points=[[5, 5]], labels=[0])
    follow(predictor, state)
    assert_equal_answers(kept, copies)


@pytest.mark.parametrize(
    "points, labels",
    [
        ([[40, 30], [60, 20]], [1, 0]),
        (np.array([[40, 30], [60, 20]]), np.array([1, 0])),  # integers
        (np.array([[40.0, 30.0], [60.0, 20.0]]), np.array([1.0, 0.0])),
        (np.array([[[40, 30], [60, 20]]]), np.array([[1, 0]])),  # a leading one
        (torch.tensor([[40.0, 30.0], [60.0, 20.0]]), torch.tensor([1, 0])),
        (torch.tensor([[40.0, 30.0], [60.0, 20.0]], requires_grad=True), [1, 0]),
    ],
)
def test_points_of_any_array_kind_mean_the_same(predictor, state, points, labels):
    _, _, expected = predictor.add_new_points_or_box(
        state, 0, 1, points=[[40, 30], [60, 20]], labels=[1, 0]
    )
    predictor.reset_state(state)
    _, _, logits = predictor.add_new_points_or_box(state, 0, 1, points=points, labels=labels)
    assert torch.equal(logits, expected)


def test_coordinates_may_be_shares_of_the_frame(predictor, state):
    _, _, in_pixels = predictor.add_new_points_or_box(
        state, 0, 1, [[48, 16]], [1], box=[12, 8, 72, 48]
    )
    predictor.reset_state(state)
    _, _, in_shares = predictor.add_new_points_or_box(
        state, 0, 1, [[0.5, 0.25]], [1], normalize_coords=False, box=[0.125, 0.125, 0.75, 0.75]
    )
    assert torch.equal(in_pixels, in_shares)


def test_a_box_comes_before_the_points_as_corners_two_and_three(predictor, state):
    _, _, as_box = predictor.add_new_points_or_box(state, 0, 1, **CLICK, **BOX)
    predictor.reset_state(state)
    _, _, as_points = predictor.add_new_points_or_box(
        state, 0, 1, points=[[10, 10], [50, 50], [40, 30]], labels=[2, 3, 1]
    )
    assert torch.equal(as_box, as_points)


def test_points_add_up_only_when_asked(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_points_or_box(state, 0, 1, [[60, 20]], [0], clear_old_points=False)
    assert state.objects[1].points[0].labels.tolist() == [[1, 0]]
    predictor.add_new_points_or_box(state, 0, 1, [[60, 20]], [0])
    assert state.objects[1].points[0].labels.tolist() == [[0]]


def test_the_older_name_does_the_same(predictor, state):
    _, _, expected = predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.reset_state(state)
    _, _, logits = predictor.add_new_points(state, frame_idx=0, obj_id=1, **CLICK)
    assert torch.equal(logits, expected)


def test_a_point_and_a_mask_replace_each_other(predictor, state):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[20:40, 30:60] = True
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    predictor.add_new_mask(state, 0, 1, mask)
    assert (list(state.objects[1].points), list(state.objects[1].masks)) == ([], [0])
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert (list(state.objects[1].points), list(state.objects[1].masks)) == ([0], [])


@pytest.mark.parametrize(
    "object_id",
    [0, -5, "region-7", "", None, ("task", 3), frozenset({1}), 2.5, np.int64(4)],
)
def test_an_object_id_is_any_hashable_value(predictor, state, object_id):
    _, object_ids, _ = predictor.add_new_points_or_box(state, 0, object_id, **CLICK)
    assert object_ids == [object_id]
    assert all(ids == [object_id] for _, ids, _ in predictor.propagate_in_video(state))
    assert predictor.remove_object(state, object_id, strict=True) == ([], [])


# ------------------------------------------------------------------------- masks


def test_a_mask_prompt_is_answered_as_that_mask(predictor, state):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[16:48, 24:72] = True
    _, _, logits = predictor.add_new_mask(state, 0, 1, mask)
    inside = (logits[0, 0] > 0).numpy()
    assert (inside ^ mask).mean() < 0.05
    assert logits.abs().max() <= 10


@pytest.mark.parametrize(
    "make",
    [
        lambda mask: mask.astype(np.uint8),
        lambda mask: mask.astype(np.uint8) * 255,
        lambda mask: mask.astype(np.uint16),
        lambda mask: mask.astype(np.float64),
        torch.from_numpy,
        lambda mask: mask.tolist(),
        lambda mask: np.asfortranarray(mask),
        lambda mask: mask.repeat(3, axis=0).repeat(3, axis=1),  # another size, same shape
    ],
)
def test_a_mask_of_any_kind_and_size_means_the_same(predictor, state, make):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[16:48, 24:72] = True  # edges that fall between no pixels of the model's image
    _, _, expected = predictor.add_new_mask(state, 0, 1, mask)
    _, _, logits = predictor.add_new_mask(state, 0, 1, make(mask))
    assert torch.equal(logits, expected)


def test_an_empty_mask_says_that_the_object_is_absent(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    _, _, logits = predictor.add_new_mask(state, 3, 1, np.zeros((HEIGHT, WIDTH), dtype=bool))
    assert (logits < 0).all()
    answers = follow(predictor, state)
    assert (answers[3] < 0).all()
    assert state.objects[1].conditioning[3].object_score_logits.item() < 0


# ---------------------------------------------------- objects come, go, and change


@in_float64
def test_an_object_added_after_tracking_is_tracked_next_time(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    alone = follow(predictor, state)
    _, object_ids, _ = predictor.add_new_points_or_box(state, 4, "b", **BOX)
    assert object_ids == ["a", "b"]
    both = follow(predictor, state)
    assert list(both) == list(range(8))
    for frame_index in both:
        torch.testing.assert_close(both[frame_index][:1], alone[frame_index], atol=1e-6, rtol=0)


@pytest.fixture
def conditioned(predictor, monkeypatch) -> list[int]:
    """How many objects each call conditioned on memories."""
    calls = []
    condition = predictor.model.condition_on_memory

    def counting(top, tokens):
        calls.append(len((tokens.maps or tokens.pointers)[0]))
        return condition(top, tokens)

    monkeypatch.setattr(predictor.model, "condition_on_memory", counting)
    return calls


def test_propagating_again_with_nothing_new_computes_nothing(predictor, state, conditioned):
    predictor.add_new_points_or_box(state, 0, "a", **BOX)
    first = follow(predictor, state)
    del conditioned[:]
    encoded = state.encoded_frame_count
    assert_equal_answers(follow(predictor, state), first)
    assert conditioned == [] and state.encoded_frame_count == encoded


@in_float64
def test_another_object_does_not_recompute_those_already_tracked(predictor, state, conditioned):
    predictor.add_new_points_or_box(state, 0, "a", **BOX)
    follow(predictor, state)
    del conditioned[:]
    predictor.add_new_points_or_box(state, 0, "b", **CLICK)
    both = follow(predictor, state)
    assert sum(conditioned) == state.num_frames - 1
    with predictor.init_state(moving_square(8)) as fresh:
        predictor.add_new_points_or_box(fresh, 0, "a", **BOX)
        predictor.add_new_points_or_box(fresh, 0, "b", **CLICK)
        assert_equal_answers(both, follow(predictor, fresh), atol=1e-6)


@in_float64
def test_a_new_prompted_frame_changes_what_every_frame_looks_at(predictor, state, conditioned):
    predictor.add_new_points_or_box(state, 0, "a", **BOX)
    follow(predictor, state, max_frame_num_to_track=4)
    predictor.add_new_points_or_box(state, 6, "a", **CLICK)
    del conditioned[:]
    again = follow(predictor, state, start_frame_idx=0)
    assert sum(conditioned) == state.num_frames - 2
    with predictor.init_state(moving_square(8)) as fresh:
        predictor.add_new_points_or_box(fresh, 0, "a", **BOX)
        predictor.add_new_points_or_box(fresh, 6, "a", **CLICK)
        assert_equal_answers(again, follow(predictor, fresh), atol=1e-6)


def test_frames_before_a_corrected_one_are_not_tracked_again(predictor, state, conditioned):
    predictor.add_new_points_or_box(state, 0, "a", **BOX)
    first = follow(predictor, state)
    predictor.add_new_points_or_box(state, 5, "a", points=[[70, 50]], labels=[0])
    del conditioned[:]
    again = follow(predictor, state)
    assert len(conditioned) == 3
    for frame in range(5):
        torch.testing.assert_close(again[frame], first[frame], atol=0, rtol=0)


def test_a_pass_the_other_way_is_computed_anew(predictor, state, conditioned):
    predictor.add_new_points_or_box(state, 4, "a", **BOX)
    follow(predictor, state)
    del conditioned[:]
    follow(predictor, state, reverse=True)
    assert len(conditioned) == 4


def test_memories_without_overlaps_are_never_taken_over(conditioned, predictor, state):
    # What is remembered then depends on the other objects of the frame.
    predictor.options = dataclasses.replace(
        predictor.options, non_overlap_masks_for_mem_enc=True
    )
    predictor.add_new_points_or_box(state, 0, "a", **BOX)
    follow(predictor, state)
    count = len(conditioned)
    follow(predictor, state)
    assert len(conditioned) == 2 * count > 0


def test_an_object_added_while_a_propagation_waits_joins_the_next_one(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    propagation = predictor.propagate_in_video(state)
    next(propagation)
    predictor.add_new_points_or_box(state, 3, "b", **BOX)
    assert all(object_ids == ["a"] for _, object_ids, _ in propagation)
    assert [ids for _, ids, _ in predictor.propagate_in_video(state)] == [["a", "b"]] * 8


def test_an_object_removed_while_a_propagation_waits_is_gone_from_then_on(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 0, "b", **BOX)
    propagation = predictor.propagate_in_video(state)
    assert next(propagation)[1] == ["a", "b"]
    predictor.remove_object(state, "a")
    assert [ids for _, ids, _ in propagation] == [["b"]] * 7


def test_removing_an_object_answers_the_others_on_its_frames(predictor, state):
    predictor.add_new_points_or_box(state, 2, "a", **CLICK)
    predictor.add_new_points_or_box(state, 5, "a", **CLICK)
    _, _, before = predictor.add_new_points_or_box(state, 2, "b", **BOX)
    remaining, updated = predictor.remove_object(state, "a")
    assert remaining == ["b"] == state["obj_ids"]
    assert [frame_index for frame_index, _ in updated] == [2, 5]
    assert torch.equal(updated[0][1], before[1:])
    assert (updated[1][1] == ABSENT).all()
    assert predictor.remove_object(state, "b", need_output=False) == ([], [])


def test_removing_an_unknown_object_is_an_error_only_when_strict(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    assert predictor.remove_object(state, "ghost") == (["a"], [])
    with pytest.raises(RuntimeError, match="'ghost'.*'a'"):
        predictor.remove_object(state, "ghost", strict=True)


def test_cleared_prompts_on_an_untracked_frame_leave_nothing(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 4, "a", **CLICK)
    expected = follow(predictor, state, max_frame_num_to_track=2)
    predictor.reset_state(state)

    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_mask(state, 4, "a", np.ones((HEIGHT, WIDTH), dtype=bool))
    frame_index, object_ids, logits = predictor.clear_all_prompts_in_frame(state, 4, "a")
    assert (frame_index, object_ids) == (4, ["a"])
    assert (logits == ABSENT).all()
    assert predictor.clear_all_prompts_in_frame(state, 4, "a", need_output=False) is None
    cleared = follow(predictor, state, max_frame_num_to_track=2)
    assert not torch.equal(cleared[2], expected[2])
    assert state.prompted_frames() == {0}


def test_a_cleared_frame_stays_as_a_memory_and_is_tracked_again(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 3, "a", **BOX)
    prompted = follow(predictor, state)[3]
    _, _, logits = predictor.clear_all_prompts_in_frame(state, 3, "a")
    assert torch.equal(logits, prompted)  # what is known of the frame
    assert not torch.equal(follow(predictor, state)[3], prompted)


def test_a_prompt_after_clearing_is_a_first_look_again(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 3, "a", **BOX)
    follow(predictor, state)
    predictor.clear_all_prompts_in_frame(state, 3, "a")
    predictor.add_new_points_or_box(state, 3, "a", **CLICK)
    follow(predictor, state)
    assert sorted(state.objects["a"].conditioning) == [0, 3]


def test_clearing_where_nothing_is_does_nothing(predictor, state):
    _, object_ids, logits = predictor.clear_all_prompts_in_frame(state, 0, "ghost")
    assert object_ids == [] and logits.shape == (0, 1, HEIGHT, WIDTH)
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    expected = follow(predictor, state)
    _, object_ids, _ = predictor.clear_all_prompts_in_frame(state, 0, "ghost")
    assert object_ids == ["a"]
    assert_equal_answers(follow(predictor, state), expected)


def test_an_object_whose_only_prompt_was_cleared_cannot_be_tracked(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.clear_all_prompts_in_frame(state, 0, "a")
    with pytest.raises(RuntimeError, match="'a' has no prompt"):
        follow(predictor, state)
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    assert len(follow(predictor, state)) == 8


def test_reset_starts_over_with_the_features_still_there(predictor, state):
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    expected = follow(predictor, state)
    predictor.add_new_points_or_box(state, 5, "b", **BOX)
    predictor.reset_state(state)
    assert state["obj_ids"] == [] and state.prompted_frames() == set()
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    assert_equal_answers(follow(predictor, state), expected)
    assert state.encoded_frame_count == 8


def test_a_correction_of_a_tracked_frame_changes_it_and_its_neighbours(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    _, _, corrected = predictor.add_new_points_or_box(state, 4, 1, [[80, 50]], [0])
    assert not torch.equal(corrected, before[4])
    after = follow(predictor, state, start_frame_idx=5)
    assert not torch.equal(after[5], before[5])


def test_a_correction_of_an_already_prompted_frame_holds_after_propagation(predictor, state):
    # Meta's predictor drops it: it files it under the tracked frames, then
    # removes those that are prompted.
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    before = follow(predictor, state)
    _, _, corrected = predictor.add_new_points_or_box(
        state, 0, 1, [[80, 50]], [0], clear_old_points=False
    )
    after = follow(predictor, state)
    assert torch.equal(after[0], corrected) and not torch.equal(corrected, before[0])
    assert not torch.equal(after[1], before[1])


# ------------------------------------------------------------------ frames to visit


@pytest.mark.parametrize(
    "kwargs, expected",
    [
        ({}, [3, 4, 5, 6, 7]),  # from the earliest prompt
        ({"start_frame_idx": 0}, list(range(8))),  # before it
        ({"start_frame_idx": 6}, [6, 7]),
        ({"max_frame_num_to_track": 2}, [3, 4, 5]),  # N and the first: N + 1, as Meta's
        ({"max_frame_num_to_track": 0}, [3]),
        ({"max_frame_num_to_track": 100}, [3, 4, 5, 6, 7]),
        ({"reverse": True}, [3, 2, 1, 0]),
        ({"reverse": True, "start_frame_idx": 7}, [7, 6, 5, 4, 3, 2, 1, 0]),
        ({"reverse": True, "max_frame_num_to_track": 2}, [3, 2, 1]),
        ({"reverse": True, "start_frame_idx": 1}, [1, 0]),
        ({"reverse": True, "start_frame_idx": 0}, []),  # as Meta's
        ({"start_frame_idx": np.int64(6)}, [6, 7]),
    ],
)
def test_propagation_visits_the_frames_asked_for_in_order(predictor, state, kwargs, expected):
    predictor.add_new_points_or_box(state, 3, 1, **CLICK)
    assert list(follow(predictor, state, **kwargs)) == expected


@pytest.mark.parametrize(
    "kwargs, named",
    [
        ({"start_frame_idx": 8}, "frame_idx=8 must be in \\[0, 8\\)"),
        ({"start_frame_idx": -1}, "frame_idx=-1"),
        ({"start_frame_idx": 1.5}, "frame_idx=1.5 must be a whole number"),
        ({"max_frame_num_to_track": -1}, "max_frame_num_to_track=-1"),
    ],
)
def test_propagation_over_frames_that_do_not_exist_is_refused(predictor, state, kwargs, named):
    predictor.add_new_points_or_box(state, 3, 1, **CLICK)
    with pytest.raises(ValueError, match=named):
        follow(predictor, state, **kwargs)


@pytest.mark.parametrize("size_wh", [(96, 64), (1, 1), (1, 50), (300, 2)])
def test_a_video_of_one_frame_and_of_any_size(predictor, size_wh):
    width, height = size_wh
    state = predictor.init_state(moving_square(1, width, height))
    predictor.add_new_points_or_box(state, 0, 1, [[width / 2, height / 2]], [1])
    answers = follow(predictor, state)
    assert [tuple(logits.shape) for logits in answers.values()] == [(1, 1, height, width)]
    assert torch.isfinite(answers[0]).all()
    predictor.add_new_points_or_box(state, 0, 1, [[0, 0]], [0])  # sees its own memory
    assert torch.isfinite(follow(predictor, state)[0]).all()
    assert follow(predictor, state, reverse=True) == {}


def test_a_one_pixel_video_takes_every_kind_of_prompt(predictor):
    state = predictor.init_state(moving_square(4, 1, 1))
    predictor.add_new_points_or_box(state, 0, "point", [[0.5, 0.5]], [1])
    predictor.add_new_points_or_box(state, 0, "box", box=[0, 0, 1, 1])
    predictor.add_new_mask(state, 1, "mask", np.ones((1, 1), dtype=bool))
    answers = follow(predictor, state)
    assert [tuple(logits.shape) for logits in answers.values()] == [(3, 1, 1, 1)] * 4


@pytest.mark.parametrize("kind", ["file", "jpeg folder", "list of arrays", "list of images"])
def test_videos_of_every_kind_open(predictor, tmp_path, kind):
    frames = moving_square(4)
    if kind == "file":
        source = write_video(tmp_path / "clip.mp4", pictures=frames, count=4)
    elif kind == "jpeg folder":
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / f"{index:05d}.jpg")
        source = str(tmp_path)
    else:
        source = frames if kind == "list of arrays" else [Image.fromarray(f) for f in frames]
    state = predictor.init_state(source)
    assert (state["num_frames"], state["video_height"], state["video_width"]) == (4, 64, 96)
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert list(follow(predictor, state)) == [0, 1, 2, 3]
    state.close()


def test_metas_offload_flags_are_taken_and_change_nothing(predictor):
    answers = []
    for flag in (False, True):
        state = predictor.init_state(
            moving_square(4), offload_video_to_cpu=flag, offload_state_to_cpu=flag,
            async_loading_frames=flag,
        )
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        answers.append(follow(predictor, state))
    assert_equal_answers(*answers)


# ---------------------------------------------------------------------- bad input

NAN, INF = float("nan"), float("inf")
BAD_POINTS = [
    # what is wrong, arguments, what the message says
    ("frame after the end", {"frame_idx": 8, **CLICK}, "frame_idx=8 .*\\[0, 8\\)"),
    ("negative frame", {"frame_idx": -1, **CLICK}, "frame_idx=-1"),
    ("half a frame", {"frame_idx": 0.5, **CLICK}, "frame_idx=0.5"),
    ("no frame", {"frame_idx": None, **CLICK}, "frame_idx=None"),
    ("nothing", {}, "needs points or a box"),
    ("points without labels", {"points": [[1, 1]]}, "given together"),
    ("labels without points", {"labels": [1], **BOX}, "given together"),
    ("no point", {"points": np.zeros((0, 2)), "labels": np.zeros(0)}, "at least one point"),
    ("empty list", {"points": [], "labels": []}, "shape \\(0,\\)"),
    ("one number a point", {"points": [[1]], "labels": [1]}, "shape \\(1, 1, 1\\)"),
    ("flat point", {"points": [4, 5], "labels": [1]}, "shape \\(2,\\)"),
    ("two objects at once", {"points": [[[1, 1]], [[2, 2]]], "labels": [[1], [1]]},
     "shape \\(2, 1, 2\\)"),
    ("too few labels", {"points": [[1, 1], [2, 2]], "labels": [1]}, "labels have shape \\(1, 1\\)"),
    ("scalar label", {"points": [[1, 1]], "labels": 1}, "labels have shape \\(\\)"),
    ("NaN", {"points": [[NAN, 1]], "labels": [1]}, "nan.*finite"),
    ("infinite", {"points": [[1, INF]], "labels": [1]}, "inf.*finite"),
    ("NaN of an ignored point", {"points": [[1, NAN]], "labels": [-1]}, "nan.*finite"),
    ("left of the frame", {"points": [[-0.5, 1]], "labels": [1]}, "-0.5.*inside the frame"),
    ("right of it", {"points": [[96.5, 1]], "labels": [0]}, "96.5.*x in \\[0, 96\\]"),
    ("under it", {"points": [[5, 65]], "labels": [1]}, "65.0.*y in \\[0, 64\\]"),
    ("pixels as shares", {"points": [[40, 30]], "labels": [1], "normalize_coords": False},
     "40.0.*x in \\[0, 1\\]"),
    ("label 4", {"points": [[1, 1]], "labels": [4]}, "labels \\[4\\]"),
    ("label -2", {"points": [[1, 1]], "labels": [-2]}, "labels \\[-2\\]"),
    ("half a label", {"points": [[1, 1]], "labels": [0.5]}, "labels \\[0.5\\]"),
    ("box from right to left", {"box": [50, 10, 10, 50]}, "\\[50.0, 10.0, 10.0, 50.0\\].*x_min"),
    ("box from bottom to top", {"box": [10, 50, 50, 10]}, "y_min <= y_max"),
    ("box with NaN", {"box": [10, 10, NAN, 50]}, "nan.*finite"),
    ("box of three", {"box": [1, 2, 3]}, "3 numbers"),
    ("empty box", {"box": []}, "0 numbers"),
    ("two boxes", {"box": [[1, 1, 5, 5], [2, 2, 6, 6]]}, "8 numbers"),
    ("box added to old points", {"clear_old_points": False, **BOX}, "clear_old_points=True"),
    ("an id that cannot be hashed", {"obj_id": [1], **CLICK}, "\\[1\\] must be hashable"),
]
BAD_MASKS = [
    ("one row", {"mask": np.ones(5)}, "shape \\(5,\\)"),
    ("a channel", {"mask": np.ones((1, 4, 4))}, "shape \\(1, 4, 4\\)"),
    ("no pixels", {"mask": np.ones((0, 4))}, "shape \\(0, 4\\)"),
    ("logits", {"mask": np.full((4, 4), -3.5)}, "-3.5"),
    ("NaN", {"mask": np.full((4, 4), NAN)}, "nan"),
    ("frame after the end", {"frame_idx": 8, "mask": np.ones((4, 4))}, "frame_idx=8"),
    ("an id that cannot be hashed", {"obj_id": {}, "mask": np.ones((4, 4))}, "hashable"),
]


@pytest.mark.parametrize("method, _what, arguments, message", [
    *(pytest.param("add_new_points_or_box", *row, id=row[0]) for row in BAD_POINTS),
    *(pytest.param("add_new_mask", *row, id=f"mask: {row[0]}") for row in BAD_MASKS),
])
def test_a_bad_prompt_is_refused_and_leaves_no_trace(
    predictor, state, method, _what, arguments, message
):
    arguments = {"frame_idx": 0, "obj_id": "new", **arguments}
    with pytest.raises(ValueError, match=message):
        getattr(predictor, method)(state, **arguments)
    assert state["obj_ids"] == [] and state.prompted_frames() == set()

    predictor.add_new_points_or_box(state, 0, "kept", **CLICK)
    expected = follow(predictor, state)
    if "hashed" not in _what:
        arguments["obj_id"] = "kept"
    with pytest.raises(ValueError, match=message):
        getattr(predictor, method)(state, **arguments)
    assert state["obj_ids"] == ["kept"]
    assert_equal_answers(follow(predictor, state), expected)


def test_a_prompt_whose_frame_cannot_be_read_leaves_no_trace(predictor, tmp_path):
    for index, frame in enumerate(moving_square(3)):
        Image.fromarray(frame).save(tmp_path / f"{index}.jpg")
    state = predictor.init_state(tmp_path)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "1.jpg").read_bytes()[:200])
    with pytest.raises(ValueError, match="1.jpg"):
        predictor.add_new_points_or_box(state, 1, "a", **CLICK)
    with pytest.raises(ValueError, match="1.jpg"):
        predictor.add_new_mask(state, 1, "a", np.ones((4, 4)))
    assert state["obj_ids"] == []
    predictor.add_new_points_or_box(state, 0, "b", **CLICK)
    propagation = predictor.propagate_in_video(state)
    assert next(propagation)[0] == 0
    with pytest.raises(ValueError, match="1.jpg"):
        next(propagation)
    assert not new_threads()


@pytest.mark.parametrize(
    "points", [[[0, 0]], [[96, 64]], [[95.99, 0.01]]], ids=["origin", "far corner", "inside"]
)
def test_the_frames_border_is_inside(predictor, state, points):
    predictor.add_new_points_or_box(state, 0, 1, points, [1])


def test_a_box_may_cross_the_border_or_have_no_area(predictor, state):
    for box in ([-20, -20, 200, 200], [50, 50, 50, 50]):
        _, _, logits = predictor.add_new_points_or_box(state, 0, 1, box=box)
        assert torch.isfinite(logits).all()


def test_no_object_cannot_be_propagated(predictor, state):
    with pytest.raises(RuntimeError, match="no object has a prompt"):
        follow(predictor, state)


def test_pictures_are_read_as_stored_unless_they_are_to_be_upright(predictor, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (48, 32)).save(tmp_path / "0.jpg", exif=turned)
    for options, size in (({}, (48, 32)), ({"upright": True}, (32, 48))):
        with predictor.init_state(tmp_path, **options) as opened:
            assert (opened.source.info.width, opened.source.info.height) == size


def test_an_empty_video_is_refused(predictor, tmp_path):
    with pytest.raises(ValueError, match="empty"):
        predictor.init_state([])
    with pytest.raises(ValueError, match="no image file"):
        predictor.init_state(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone.mp4"):
        predictor.init_state(tmp_path / "gone.mp4")


@pytest.mark.parametrize(
    "options, named",
    [
        ({"fill_hole_area": -1}, "fill_hole_area=-1"),
        ({"remove_speck_area": -8}, "remove_speck_area=-8"),
        ({"memory_temporal_stride_for_eval": 0}, "memory_temporal_stride_for_eval=0"),
        ({"max_objects_per_batch": 0}, "max_objects_per_batch=0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        PredictorOptions(**options)


@pytest.mark.parametrize("name", ["feature_cache_bytes", "history_bytes"])
def test_limits_below_zero_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=-1"):
        StateLimits(**{name: -1})


# ------------------------------------------------------------ several objects at once

THREE_OBJECTS = {
    "click": (0, CLICK),
    "box": (0, BOX),
    "later": (3, {"points": [[70, 50], [20, 20]], "labels": [1, 0]}),
}


def track_objects(names, count=12, **options) -> dict[int, torch.Tensor]:
    """In float64: see `in_float64`."""
    predictor = small_predictor(small_network(dtype=torch.float64), **options)
    state = predictor.init_state(moving_square(count))
    for name in names:
        frame_index, prompt = THREE_OBJECTS[name]
        predictor.add_new_points_or_box(state, frame_index, name, **prompt)
    return follow(predictor, state, start_frame_idx=0)


def test_objects_together_are_what_they_are_alone():
    together = track_objects(THREE_OBJECTS)
    for index, name in enumerate(THREE_OBJECTS):
        alone = track_objects([name])
        own = {at: logits[index : index + 1] for at, logits in together.items()}
        assert_equal_answers(own, alone, atol=1e-6)
    assert not torch.allclose(together[8][0], together[8][1], atol=0.1)  # not one and the same


@pytest.mark.parametrize("limit", [1, 2])
def test_how_many_go_together_does_not_matter(limit):
    together = track_objects(THREE_OBJECTS)
    apart = track_objects(THREE_OBJECTS, max_objects_per_batch=limit)
    assert_equal_answers(apart, together, atol=1e-6)


# -------------------------------------------------------------------- bounded memory

TINY_LIMITS = StateLimits(feature_cache_bytes=0, history_bytes=0)


def track_long(limits, count=60, *, reverse=False, **network_changes):
    predictor = small_predictor(small_network(**network_changes), limits=limits)
    state = predictor.init_state(moving_square(count))
    start = count - 1 if reverse else 0
    predictor.add_new_points_or_box(state, start, "a", **CLICK)
    predictor.add_new_points_or_box(state, start, "b", **BOX)
    longest_history = most_feature_bytes = 0
    answers = {}
    for at, _, logits in predictor.propagate_in_video(state, start, reverse=reverse):
        answers[at] = logits
        longest_history = max(longest_history, *(len(o.history) for o in state.objects.values()))
        most_feature_bytes = max(most_feature_bytes, state._features.byte_count)
    return answers, longest_history, most_feature_bytes, state


@pytest.mark.parametrize("reverse", [False, True])
def test_plain_propagation_needs_no_more_than_the_least_memory(reverse):
    expected, *_ = track_long(StateLimits(), reverse=reverse)
    answers, longest_history, most_feature_bytes, state = track_long(TINY_LIMITS, reverse=reverse)
    assert_equal_answers(answers, expected)
    assert longest_history <= max(SMALL.num_maskmem, SMALL.max_object_pointers)
    one_frame = state.features(5, small_network()).byte_count
    assert most_feature_bytes <= one_frame


@pytest.mark.parametrize(
    "changes, options",
    [
        ({"num_maskmem": 9, "max_object_pointers": 4}, {}),  # memories reach further back
        ({"num_maskmem": 3}, {}),
        ({}, {"memory_temporal_stride_for_eval": 3}),
    ],
)
def test_the_least_memory_follows_the_reach_of_the_model(changes, options):
    answers = []
    for limits in (StateLimits(), TINY_LIMITS):
        predictor = small_predictor(small_network(**changes), limits=limits, **options)
        state = predictor.init_state(moving_square(40))
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        answers.append(follow(predictor, state))
    assert_equal_answers(*answers)


def test_feature_bytes_stay_under_the_budget():
    predictor = small_predictor()
    probe = predictor.init_state(moving_square(1))
    one_frame = probe.features(0, predictor.model).byte_count
    limits = StateLimits(feature_cache_bytes=5 * one_frame, history_bytes=0)
    _, _, most_feature_bytes, state = track_long(limits)
    assert most_feature_bytes <= 5 * one_frame
    # Those near the prompt are the ones kept.
    assert [at for at in range(60) if state.has_features(at)] == [0, 1, 2, 3, 59]


def test_history_counts_its_bytes_and_keeps_to_the_budget():
    budget = 200_000
    *_, state = track_long(StateLimits(history_bytes=budget), count=40)
    follow(small_predictor(), state)  # the same frames again count once
    for object_state in state.objects.values():
        counted = sum(output.byte_count for output in object_state.history.values())
        assert object_state.history_bytes == counted
        assert 0 < counted <= budget / 2
        assert max(object_state.history) == 39
        # Two runs: the frames nearest to the prompt, and the latest.
        kept = sorted(object_state.history)
        gaps = [(a, b) for a, b in zip(kept, kept[1:]) if b != a + 1]
        assert len(gaps) == 1
        assert kept[0] == 1


def test_tracked_outputs_hold_no_more_memory_than_they_count():
    *_, state = track_long(StateLimits(), count=6)
    output = state.objects["a"].history[3]
    for tensor in (output.mask_logits, output.memory):
        # Both objects' outputs of one frame may share their storage, nothing else.
        assert tensor.untyped_storage().nbytes() <= 2 * tensor.numel() * tensor.element_size()


def test_memories_are_kept_in_bfloat16():
    *_, state = track_long(StateLimits(), count=3)
    assert state.objects["a"].history[2].memory.dtype == torch.bfloat16
    assert state.objects["a"].conditioning[0].memory.dtype == torch.bfloat16


def test_a_second_pass_encodes_nothing_when_the_features_fit(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    first = follow(predictor, state)
    assert state.encoded_frame_count == 8
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    follow(predictor, state)
    predictor.add_new_points_or_box(state, 4, 1, [[80, 50]], [0])
    assert list(follow(predictor, state)) == list(first)
    assert state.encoded_frame_count == 8


def test_a_second_pass_with_a_small_cache_gives_the_same(predictor):
    answers = []
    for limits in (StateLimits(), StateLimits(feature_cache_bytes=0)):
        state = predictor.init_state(moving_square(20), limits=limits)
        predictor.add_new_points_or_box(state, 0, "a", **CLICK)
        predictor.add_new_points_or_box(state, 9, "a", **BOX)
        follow(predictor, state)
        predictor.add_new_points_or_box(state, 5, "a", [[80, 50]], [0])
        answers.append(follow(predictor, state))
    assert_equal_answers(*answers)


def test_frames_are_read_in_a_row_whatever_the_cache_keeps(predictor, tmp_path, monkeypatch):
    # Frames 0 and 10 are prompted and no longer cached when propagation
    # passes them: nobody asks for them, and the row must go on.
    state = predictor.init_state(
        write_video(tmp_path / "clip.mp4", count=20),
        limits=StateLimits(feature_cache_bytes=0),
    )
    for frame_index in (0, 10, 15):
        predictor.add_new_points_or_box(state, frame_index, "a", **CLICK)
    predictor.finish_prompts(state)
    single_reads = []
    frame = type(state.source).frame
    monkeypatch.setattr(
        type(state.source), "frame",
        lambda self, index: single_reads.append(index) or frame(self, index),
    )
    assert list(follow(predictor, state)) == list(range(20))
    assert single_reads == []


class TestFeatureCache:
    Features = collections.namedtuple("Features", "byte_count")

    def cache(self, budget, frames, prompted):
        cache = FeatureCache(budget)
        for frame_index in frames:
            cache.put(frame_index, self.Features(10), prompted)
        return cache

    @pytest.mark.parametrize(
        "frames, prompted, kept",
        [
            (range(6), [], {3, 4, 5}),  # no prompt: the newest are the nearest
            (range(6), [0], {0, 1, 5}),  # near the prompt, and the newest
            (range(6), [0, 4], {0, 4, 5}),
            (range(5, -1, -1), [5], {5, 4, 0}),  # backward
            (range(6), [100], {3, 4, 5}),
        ],
    )
    def test_keeps_frames_near_prompts_and_the_newest(self, frames, prompted, kept):
        cache = self.cache(30, frames, prompted)
        assert {at for at in range(6) if at in cache} == kept
        assert cache.byte_count == 30 and len(cache) == 3

    def test_the_newest_stays_even_over_the_budget(self):
        cache = self.cache(5, range(3), [0])
        assert 2 in cache and len(cache) == 1 and cache.byte_count == 10

    def test_the_same_frame_twice_counts_once(self):
        cache = self.cache(30, [1, 1, 1, 1], [1])
        assert cache.byte_count == 10 and len(cache) == 1

    def test_clear_empties_it(self):
        cache = self.cache(30, range(3), [])
        cache.clear()
        assert cache.byte_count == 0 and len(cache) == 0 and cache.get(1) is None


# --------------------------------------------------------------------- threads


def test_a_propagation_closed_early_leaves_no_thread(predictor, tmp_path):
    before = threading.active_count()
    state = predictor.init_state(write_video(tmp_path / "clip.mp4", count=30))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    propagation = predictor.propagate_in_video(state)
    for _ in range(3):
        next(propagation)
    assert threading.active_count() > before
    propagation.close()
    assert threading.active_count() == before
    state.close()


@pytest.mark.parametrize("how", ["dropped", "finished", "state closed", "state reset"])
def test_no_end_of_a_propagation_leaves_a_thread(predictor, tmp_path, how):
    before = threading.active_count()
    state = predictor.init_state(write_video(tmp_path / "clip.mp4", count=30))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    propagation = predictor.propagate_in_video(state)
    next(propagation), next(propagation)
    if how == "dropped":
        del propagation
        gc.collect()
    elif how == "finished":
        assert len(list(propagation)) == 28
    elif how == "state closed":
        state.close()
    else:
        predictor.reset_state(state)
        assert [object_ids for _, object_ids, _ in propagation] == [[]] * 28
    assert threading.active_count() == before


def test_a_prompt_while_a_propagation_waits_does_not_disturb_it(predictor, tmp_path):
    path = write_video(tmp_path / "clip.mp4", count=12)
    answers = []
    for is_disturbed in (False, True):
        state = predictor.init_state(path, limits=StateLimits(feature_cache_bytes=0))
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        seen = {}
        for at, _, logits in predictor.propagate_in_video(state):
            seen[at] = logits
            if is_disturbed and at == 4:
                state.features(9, predictor.model)  # ahead
                state.features(1, predictor.model)  # behind
        answers.append(seen)
    assert_equal_answers(*answers)


def test_two_propagations_of_one_state_at_once_both_end(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    forward = predictor.propagate_in_video(state)
    again = predictor.propagate_in_video(state)
    assert [(one[0], other[0]) for one, other in zip(forward, again)] == [
        (at, at) for at in range(8)
    ]
    forward.close()
    again.close()
    assert not new_threads()


def test_a_source_that_fails_in_the_reading_thread_raises_and_does_not_hang(predictor, tmp_path):
    state = predictor.init_state(write_video(tmp_path / "clip.mp4", count=10))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    state.source.close()
    with pytest.raises(ValueError, match="clos"):
        follow(predictor, state)
    assert not new_threads()


# ------------------------------------------------------------------------- options


def low_res_outputs(**options) -> dict[int, torch.Tensor]:
    predictor = small_predictor(**options)
    state = predictor.init_state(moving_square(6))
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    predictor.add_new_points_or_box(state, 0, "b", **BOX)
    order = predictor.plan_propagation(state)
    return {at: logits for at, _, logits, _ in predictor.propagate_low_res(state, order)}


def test_hole_filling_fills_what_is_small_and_nothing_else():
    plain, filled = low_res_outputs(), low_res_outputs(fill_hole_area=8)
    assert any(small_components(logits <= 0, 8).any() for logits in plain.values())
    assert not any(small_components(logits <= 0, 8).any() for logits in filled.values())
    # Tracked frames are remembered as the network saw them: the same but for holes.
    holes = small_components(plain[0] <= 0, 8)
    assert (filled[0][holes] > 0).all()
    assert torch.equal(filled[0][~holes], plain[0][~holes])


def test_speck_removal_removes_what_is_small_and_nothing_else():
    plain, cleaned = low_res_outputs(), low_res_outputs(remove_speck_area=8)
    assert any(small_components(logits > 0, 8).any() for logits in plain.values())
    assert not any(small_components(logits > 0, 8).any() for logits in cleaned.values())
    specks = small_components(plain[0] > 0, 8)
    assert torch.equal(cleaned[0][~specks], plain[0][~specks])


def test_non_overlapping_masks_are_disjoint_in_every_answer():
    plain = small_predictor()
    disjoint = small_predictor(non_overlap_masks=True)
    overlap = 0
    for predictor in (plain, disjoint):
        state = predictor.init_state(moving_square(4))
        predictor.add_new_points_or_box(state, 0, "a", **CLICK)
        answers = [predictor.add_new_points_or_box(state, 0, "b", **BOX)[2]]
        answers += follow(predictor, state).values()
        most = max(int((logits > 0).sum(dim=0).max()) for logits in answers)
        if predictor is plain:
            overlap = most
        else:
            assert (overlap, most) == (2, 1)


def test_memories_without_overlaps_change_what_is_tracked_but_not_the_first_answer():
    plain = low_res_outputs()
    apart = low_res_outputs(non_overlap_masks_for_mem_enc=True)
    assert torch.equal(plain[1], apart[1])  # looks at the prompted frame only
    assert not torch.equal(plain[2], apart[2])


def test_memories_around_a_new_prompt_are_cleared_when_asked():
    for clears in (False, True):
        predictor = small_predictor(clear_non_cond_mem_around_input=clears)
        state = predictor.init_state(moving_square(30))
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        follow(predictor, state)
        predictor.add_new_points_or_box(state, 20, 1, [[80, 50]], [0])
        predictor.finish_prompts(state)
        reach = SMALL.num_maskmem
        around = set(range(20 - reach, 20 + reach + 1))
        kept = set(state.objects[1].history)
        expected = set(range(1, 30))
        assert kept == (expected - around if clears else expected)
        assert len(follow(predictor, state)) == 30


@pytest.mark.parametrize("as_conditioning", [False, True])
def test_a_corrected_frame_counts_as_prompted_when_asked(as_conditioning):
    predictor = small_predictor(add_all_frames_to_correct_as_cond=as_conditioning)
    state = predictor.init_state(moving_square(8))
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    follow(predictor, state)
    _, _, corrected = predictor.add_new_points_or_box(state, 4, 1, [[80, 50]], [0])
    after = follow(predictor, state)
    assert sorted(state.objects[1].conditioning) == ([0, 4] if as_conditioning else [0])
    assert 4 not in state.objects[1].history or not as_conditioning
    assert torch.equal(after[4], corrected) == as_conditioning


@pytest.mark.parametrize(
    "frame_index, limit, chosen",
    [
        (10, -1, [0, 4, 8, 12, 20]),  # all
        (10, 5, [0, 4, 8, 12, 20]),
        (10, 2, [8, 12]),  # the nearest on either side
        (10, 3, [8, 12, 4]),  # then the nearest of the rest
        (10, 4, [8, 12, 4, 0]),  # 0 and 20 are equally far: the first in order
        (30, 2, [20, 12]),  # none after
        (0, 2, [0, 4]),  # none before; the frame itself counts as after
        (12, 3, [8, 12, 4]),
    ],
)
def test_the_nearest_prompted_frames_are_attended_to(frame_index, limit, chosen):
    outputs = {at: f"output {at}" for at in (0, 4, 8, 12, 20)}
    selected, others = _nearest_conditioning(outputs, frame_index, limit)
    assert list(selected) == chosen
    assert {**selected, **others} == outputs and not set(selected) & set(others)


def test_more_prompted_frames_than_are_attended_to_still_track():
    answers = []
    for limit in (-1, 2):
        predictor = small_predictor(small_network(max_cond_frames_in_attn=limit))
        state = predictor.init_state(moving_square(16))
        for frame_index in (0, 5, 10, 15):
            predictor.add_new_points_or_box(state, frame_index, 1, **CLICK)
        answers.append(follow(predictor, state))
    everything, nearest = answers
    assert list(everything) == list(nearest) == list(range(16))
    assert not torch.equal(everything[8], nearest[8])


def test_binarized_memories_of_prompted_frames_change_what_follows():
    plain, binarized = low_res_outputs(), low_res_outputs(binarize_mask_from_pts_for_mem_enc=True)
    assert torch.equal(plain[0], binarized[0])
    assert not torch.equal(plain[1], binarized[1])


def test_an_absent_object_has_no_mask_and_a_score_below_zero():
    predictor = small_predictor(small_network(score_bias=-50.0))
    state = predictor.init_state(moving_square(3))
    predictor.add_new_mask(state, 0, 1, np.ones((HEIGHT, WIDTH), dtype=bool))
    order = predictor.plan_propagation(state)
    answers = list(predictor.propagate_low_res(state, order))
    assert [float(scores) > 0 for *_, scores in answers] == [True, False, False]
    assert (answers[1][2] == ABSENT).all()


def test_options_are_those_of_metas_predictor_by_name():
    names = {field.name for field in dataclasses.fields(PredictorOptions)}
    assert {
        "fill_hole_area", "non_overlap_masks", "clear_non_cond_mem_around_input",
        "add_all_frames_to_correct_as_cond", "binarize_mask_from_pts_for_mem_enc",
        "non_overlap_masks_for_mem_enc", "memory_temporal_stride_for_eval",
        "dynamic_multimask_via_stability",
    } <= names
