"""A device whose memory does not suffice: smaller pieces, the same masks, and an end to it."""

import numpy as np
import pytest
import torch

from sam2_model.errors import DeviceMemoryError
from tests.sam2_model.small_model import answers_of, moving_square, small_predictor

OBJECTS = 5


class Device:
    """Bears so many objects at once and so many frames' features; counts what it was asked."""

    def __init__(self, predictor, monkeypatch):
        self.most_objects = self.most_features = 1000
        self.is_broken = False
        self.batches = []
        self.state = None
        network = predictor.model
        condition = network.condition_on_memory

        def limited(top, tokens):
            count = len(tokens.maps[0])
            too_many = count > self.most_objects
            if self.is_broken or too_many or len(self.state._features) > self.most_features:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")
            self.batches.append(count)
            return condition(top, tokens)

        monkeypatch.setattr(network, "condition_on_memory", limited)


@pytest.fixture
def predictor():
    return small_predictor(max_objects_per_batch=4)


@pytest.fixture
def device(predictor, monkeypatch):
    return Device(predictor, monkeypatch)


def prompted(predictor, device):
    state = device.state = predictor.init_state(moving_square(6))
    for number in range(OBJECTS):
        predictor.add_new_points_or_box(state, 0, number, box=[8 + number, 8, 40 + number, 40])
    return state


def test_fewer_objects_at_a_time_give_the_same_masks(predictor, device):
    with prompted(predictor, device) as state:
        whole = answers_of(predictor.propagate_in_video(state))
    assert max(device.batches) == 4
    device.most_objects, device.batches = 1, []
    with prompted(predictor, device) as state:
        pieces = answers_of(predictor.propagate_in_video(state))
        assert set(device.batches) == {1} and state.max_objects_per_batch == 1
        assert len(device.batches) == OBJECTS * 5  # each frame once, the prompted one not at all
    assert list(pieces) == list(whole)
    for index, logits in whole.items():
        torch.testing.assert_close(pieces[index], logits, atol=1e-3, rtol=1e-3)


def test_cached_features_go_first_and_do_not_come_back(predictor, device):
    device.most_features = 2
    with prompted(predictor, device) as state:
        answers = answers_of(predictor.propagate_in_video(state))
        assert len(answers) == 6 and len(state._features) == 1
        assert state.max_objects_per_batch is None and max(device.batches) == 4


def test_memories_move_to_main_memory_last(predictor, device):
    with prompted(predictor, device) as state:
        frames = predictor.propagate_in_video(state)
        answers = [next(frames) for _ in range(3)]
        # As if they were on a GPU; nothing new is put there before it runs out.
        state.storage_device = torch.device("cuda", 0)
        device.most_objects = 0
        offload = state.offload

        def room_at_last():
            device.most_objects = 1
            return offload()

        state.offload = room_at_last
        answers += list(frames)
        assert state.storage_device == torch.device("cpu") and len(answers) == 6


def test_when_nothing_helps_it_is_said_and_other_videos_go_on(predictor, device):
    with prompted(predictor, device) as state:
        frames = predictor.propagate_in_video(state)
        next(frames)
        device.is_broken = True
        with pytest.raises(DeviceMemoryError, match="smaller model.*Tried to allocate 1.00 GiB"):
            list(frames)
    device.is_broken = False
    with prompted(predictor, device) as state:
        assert len(answers_of(predictor.propagate_in_video(state))) == 6


@pytest.mark.parametrize("prompt", ["box", "mask"])
def test_a_prompt_that_finds_no_room_changes_nothing(predictor, monkeypatch, prompt):
    def full(*_, **__):
        raise torch.OutOfMemoryError("full")

    with predictor.init_state(moving_square(3)) as state:
        with monkeypatch.context() as patch:
            patch.setattr(predictor.model, "encode_image", full)
            with pytest.raises(DeviceMemoryError):
                if prompt == "box":
                    predictor.add_new_points_or_box(state, 0, 1, box=[8, 8, 40, 40])
                else:
                    predictor.add_new_mask(state, 0, 1, np.ones((4, 4), bool))
        assert not state.objects
        predictor.add_new_points_or_box(state, 0, 1, box=[8, 8, 40, 40])
        assert state.obj_ids == [1]
