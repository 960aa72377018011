"""Cells of a frame compared with those remembered."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from sam2_model.network import SAM2Network
from sam2_model.network.memory_matching import KEY_DIM, MemoryMatcher
from sam2_model.network.sam2 import MemoryTokens
from sam2_model.tracker import track
from sam2_model.training.losses import LossWeights, matching_loss
from sam2_model.training.objective import ClipBatch, PromptMix, run_clips
from sam2_model.training.trainer import Schedule, Trainer
from tests.sam2_model.small_model import SMALL, moving_square, small_network, small_predictor
from tests.sam2_model.test_tracker import box, click

MATCHING = dataclasses.replace(SMALL, match_memories=True)
DIM = SMALL.hidden_dim


@pytest.fixture
def matcher():
    torch.manual_seed(0)
    return MemoryMatcher(DIM).eval()


def features(count, size=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, DIM, size, size, generator=generator)


def test_at_first_it_changes_nothing():
    torch.manual_seed(3)
    with_it = SAM2Network(MATCHING).eval()
    without = SAM2Network(SMALL).eval()
    weights = {
        name: value for name, value in with_it.state_dict().items() if "memory_matcher" not in name
    }
    without.load_state_dict(weights)
    answers = [
        list(track(moving_square(5), [click(0)], predictor=small_predictor(network)))
        for network in (with_it, without)
    ]
    for ours, theirs in zip(*answers):
        assert np.array_equal(ours.masks, theirs.masks)
        assert np.array_equal(ours.scores, theirs.scores)


def test_cells_that_look_like_the_object_match_it(matcher):
    top = features(1)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., :8, :8] = 1  # four of the cells, whole
    remembered = matcher.remember(top, mask)
    assert remembered.shape == (1, 16, KEY_DIM + 1)
    with torch.no_grad():
        matcher.log_sharpness.fill_(math.log(25.0))
        object_match, other_match = matcher.compare(matcher.keys(top), remembered)
    is_objects = remembered[0, :, -1] > 0.5
    share = torch.sigmoid(object_match - other_match)[0]
    assert (share[is_objects] > 0.9).all() and (share[~is_objects] < 0.1).all()


def test_a_match_is_the_soft_maximum_over_all_cells(matcher):
    keys = matcher.keys(features(1))
    remembered = torch.cat(
        (matcher.keys(features(2, seed=5)), torch.rand(2, 16, 1)), dim=-1
    )
    with torch.no_grad():
        object_match, other_match = matcher.compare(keys, remembered)
        likeness = matcher.sharpness * keys @ remembered[..., :-1].transpose(1, 2)
        share = remembered[:, None, :, -1]
        expected = torch.logsumexp(likeness + share.log(), dim=-1)
        others = torch.logsumexp(likeness + (1 - share).log(), dim=-1)
    assert torch.allclose(object_match, expected, atol=1e-4)
    assert torch.allclose(other_match, others, atol=1e-4)


def test_the_same_frame_twice_matches_as_once(matcher):
    keys = matcher.keys(features(1))
    cells = matcher.remember(features(1, seed=5), torch.rand(1, 1, 16, 16))
    once = matcher.compare(keys, cells)
    twice = matcher.compare(keys, torch.cat((cells, cells), dim=1))
    for a, b in zip(once, twice):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("sharpness", [-5.0, 100.0])
@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_nothing_overflows(matcher, sharpness, mask):
    with torch.no_grad():
        matcher.log_sharpness.fill_(sharpness)
        torch.nn.init.normal_(matcher.mix[-1].weight)
        cells = matcher.remember(features(1), torch.full((1, 1, 16, 16), mask))
        assert torch.isfinite(matcher(features(1, seed=2), cells, cells)).all()


@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)])
def test_frames_of_either_kind_may_be_missing(matcher, which):
    cells = matcher.remember(features(1), torch.rand(3, 1, 16, 16))
    prompted, recent = (cells if there else None for there in which)
    assert matcher(features(1), prompted, recent).shape == (3, DIM, 4, 4)


def test_memories_carry_what_is_compared():
    network = small_network(match_memories=True)
    size = SMALL.feature_size
    top = torch.randn(1, DIM, size, size)
    memory = network.encode_memory(top, torch.randn(2, 1, 32, 32), torch.ones(2, 1))
    assert memory.shape == (2, size**2, SMALL.memory_dim + KEY_DIM + 1)
    absent = network.encode_memory(top, torch.full((1, 1, 32, 32), -1024.0), -torch.ones(1, 1))
    assert (absent[..., -1] == 0).all()
    tokens = MemoryTokens((memory, memory, memory), (0, 3, 5), (), (), 1)
    prompted, recent = network.to_compare(tokens)
    assert prompted.shape[1] == size**2 and recent.shape[1] == 2 * size**2


def test_of_several_prompts_the_nearest_is_compared_with():
    network = small_network(match_memories=True)
    cells = [torch.full((1, 4, SMALL.memory_dim + KEY_DIM + 1), float(n)) for n in range(3)]
    for nearest in (0, 1):
        tokens = MemoryTokens(tuple(cells), (0, 0, 5), (), (), 1, nearest_prompted=nearest)
        prompted, recent = network.to_compare(tokens)
        assert (prompted == nearest).all() and (recent == 2).all()
    assert network.to_compare(MemoryTokens((cells[2],), (5,), (), (), 1))[0] is None
    assert network.to_compare(MemoryTokens((), (), (cells[0],), (1,), 1)) == (None, None)


def test_a_correction_is_what_later_frames_are_compared_with():
    predictor = small_predictor(small_network(match_memories=True))
    with predictor.init_state(moving_square(12)) as state:
        for frame in (0, 8):
            predictor.add_new_points_or_box(state, frame, "a", points=[(40, 30)], labels=[1])
        predictor.finish_prompts(state)
        item = state.objects["a"]
        nearest = [
            predictor._recall(state, item, frame, False).nearest_prompted
            for frame in (1, 3, 4, 5, 11)
        ]
    assert nearest == [0, 0, 0, 1, 1]


def test_objects_together_are_tracked_as_alone():
    prompts = [click(0), box(0, "b"), click(0, "c", xy=(20, 50))]

    def tracked(prompts):
        predictor = small_predictor(small_network(match_memories=True))
        found = {}
        for frame in track(moving_square(12), prompts, predictor=predictor):
            for object_id, mask, score in zip(frame.object_ids, frame.masks, frame.scores):
                found[object_id, frame.frame_index] = mask, score
        return found

    together = tracked(prompts)
    for prompt in prompts:
        for key, (mask, score) in tracked([prompt]).items():
            assert np.array_equal(mask, together[key][0])
            assert score == pytest.approx(together[key][1], abs=1e-4)


# ------------------------------------------------------------------------ training


def test_an_object_weighs_as_much_as_its_ground():
    targets = torch.zeros(2, 100)
    targets[0, :2] = 1
    targets[1, :60] = 1
    wrong_object = torch.where(targets > 0, -9.0, -9.0)
    wrong_ground = torch.where(targets > 0, 9.0, 9.0)
    assert matching_loss(wrong_object, targets) == pytest.approx([4.5] * 2, abs=0.01)
    assert matching_loss(wrong_ground, targets) == pytest.approx([4.5] * 2, abs=0.01)
    right = torch.where(targets > 0, 9.0, -9.0)
    assert (matching_loss(right, targets) < 0.01).all()


def test_of_an_absent_object_nothing_should_match():
    absent = torch.zeros(1, 100)
    assert matching_loss(torch.full((1, 100), -9.0), absent) < 0.01
    assert matching_loss(torch.full((1, 100), 9.0), absent) > 4


def batch():
    generator = torch.Generator().manual_seed(4)
    frames = torch.randint(0, 255, (1, 4, 3, 128, 128), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(2, 4, 128, 128, dtype=torch.bool)
    masks[0, :, 20:60, 30:80] = True
    masks[1, :2, 70:100, 30:80] = True  # it leaves
    return ClipBatch(frames, masks, torch.tensor([0, 0]))


def test_keys_learn_from_what_matches():
    torch.manual_seed(0)
    network = SAM2Network(MATCHING).train()
    generator = torch.Generator().manual_seed(1)
    result = run_clips(
        network, batch(), generator, prompt_mix=PromptMix(box=1.0, point=0.0),
        weights=LossWeights(matching=1.0),
    )
    result.loss.backward()
    assert network.memory_matcher.key.weight.grad.abs().max() > 0
    assert network.memory_matcher.log_sharpness.grad.abs() > 0


def test_a_run_begins_with_weights_from_before_there_was_one(tmp_path):
    torch.manual_seed(0)
    earlier = SAM2Network(SMALL).state_dict()
    trainer = Trainer(SAM2Network(MATCHING), Schedule(steps=1), tmp_path)
    trainer.start_from(earlier)
    assert trainer.average.keys() == trainer.network.state_dict().keys()
    assert torch.equal(trainer.average["no_obj_ptr"], earlier["no_obj_ptr"])
    with pytest.raises(ValueError, match="another network"):
        trainer.start_from({"something.else": torch.zeros(1)})
