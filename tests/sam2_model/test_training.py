"""Training: losses, sampled prompts, and a run that resumes as if never stopped."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sam2_model.configs import DEMO, ModelConfig
from sam2_model.network import SAM2Network
from sam2_model.training.batches import BatchSettings, step_batches
from sam2_model.training.demo import STAGES
from sam2_model.training.losses import LossWeights, mask_iou, prediction_loss
from sam2_model.training.materials import Materials
from sam2_model.training.objective import ClipBatch, PromptMix, run_clips, spoil
from sam2_model.training.progress import training_bar
from sam2_model.training.prompt_sampling import (
    boxes_of,
    central_points,
    sample_boxes,
    sample_correction,
)
from sam2_model.training.trainer import Schedule, Trainer, freeze, parameter_groups

CONFIG = ModelConfig(
    name="trained in a test", image_size=64, trunk_embed_dim=16, trunk_stages=(1, 1, 1, 1),
    trunk_global_attention_blocks=(2,), trunk_window_sizes=(8, 4, 4, 2), hidden_dim=64,
    memory_attention_layers=1, memory_attention_feedforward_dim=64, memory_dim=16,
    memory_fuser_layers=1, decoder_mlp_dim=64, iou_head_hidden_dim=32,
)
BATCHES = BatchSettings(
    image_size=64, frame_count=2, clip_count=2, objects_per_clip=2,
    mix=(("composed", 1.0),),
)


def batches(start: int, stop: int, in_turn=(BATCHES,)):
    return step_batches(
        Materials.procedural(0, count_per_kind=4), in_turn,
        seed=3, start=start, stop=stop, workers=0,
    )


def square(batch: int, size: int = 16) -> torch.Tensor:
    target = torch.zeros(batch, 1, size, size)
    target[:, :, 4:12, 4:12] = 1
    return target


def test_a_confident_right_prediction_costs_next_to_nothing():
    target = square(2)
    logits = (target * 2 - 1) * 20
    loss, iou = prediction_loss(
        logits.expand(2, 3, -1, -1), torch.ones(2, 3), torch.full((2, 1), 20.0), target
    )
    assert loss < 0.01
    assert iou.tolist() == [1.0, 1.0]


def test_of_three_candidates_only_the_best_is_supervised():
    target = square(1)
    right, wrong = (target * 2 - 1) * 20, (1 - target * 2) * 20
    logits = torch.cat((wrong, right, wrong), dim=1).requires_grad_()
    loss, _ = prediction_loss(logits, torch.zeros(1, 3), torch.zeros(1, 1), target)
    loss.backward()
    assert logits.grad[0, 0].abs().max() == 0
    assert logits.grad[0, 2].abs().max() == 0


def test_an_absent_object_counts_for_presence_only():
    target = torch.zeros(1, 1, 16, 16)
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    score = torch.zeros(1, 1, requires_grad=True)
    loss, _ = prediction_loss(logits, torch.zeros(1, 3), score, target)
    loss.backward()
    assert logits.grad.abs().max() == 0
    assert score.grad.item() > 0


def test_two_empty_masks_agree():
    assert mask_iou(torch.full((1, 1, 4, 4), -1.0), torch.zeros(1, 1, 4, 4)).item() == 1


def test_sampled_boxes_hug_the_object_and_stay_inside_the_image():
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(50, 32, 32, dtype=torch.bool)
    masks[:, 0:20, 10:32] = True
    exact = boxes_of(masks)[0]
    assert exact.tolist() == [10, 0, 31, 19]
    boxes = sample_boxes(masks, generator).flatten(1)
    assert (boxes >= 0).all() and (boxes <= 31).all()
    assert (boxes - exact).abs().max() <= 0.1 * 21
    assert boxes.std(dim=0).max() > 0


def test_central_points_are_far_from_the_edge_and_always_on_the_object():
    masks = torch.zeros(4, 64, 60, dtype=torch.bool)
    masks[0, 10:40, 20:50] = True
    masks[1, 8:12, 4:60] = True  # one cell high: nothing is left once it is peeled
    masks[2] = True
    masks[3, 4:60, 40:60] = True  # at the picture's edge, which is one too
    points = central_points(masks)
    assert (points[0] - torch.tensor([35.0, 25.0])).abs().max() <= 4
    assert (points[2] - torch.tensor([30.0, 32.0])).abs().max() <= 4
    assert 46 <= points[3, 0] <= 54
    x, y = points.long().unbind(1)
    assert masks[torch.arange(4), y, x].all()
    assert central_points(masks[:0]).shape == (0, 2)


def test_a_region_that_is_too_thin_for_a_centre_still_has_one_near():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 5, 62] = True
    assert (central_points(mask)[0] - torch.tensor([62.0, 5.0])).abs().max() <= 4


def test_a_batch_is_split_by_its_clips():
    batch = next(batches(0, 1))
    first, second = batch.split(2)
    assert len(first.frames) == len(second.frames) == 1
    assert torch.equal(torch.cat((first.masks, second.masks)), batch.masks)
    assert set(second.clip_of_object.tolist()) == {0}
    assert len(batch.split(5)) == 2, "no part without a clip"


def test_kinds_of_batch_take_turns_wherever_a_run_starts():
    single = replace(BATCHES, frame_count=1, clip_count=3, encoder_learns=False)
    whole = list(batches(0, 4, (BATCHES, single)))
    assert [tuple(batch.frames.shape[:2]) for batch in whole] == [(2, 2), (3, 1)] * 2
    assert [batch.encoder_learns for batch in whole] == [True, False] * 2
    (late,) = batches(3, 4, (BATCHES, single))
    assert torch.equal(late.frames, whole[3].frames)


def test_drawn_clips_are_of_no_material_that_was_given():
    one, other = (
        next(step_batches(
            Materials.procedural(seed, count_per_kind=4), [replace(BATCHES, mix=(("drawn", 1.0),))],
            seed=3, start=0, stop=1, workers=0,
        ))
        for seed in (0, 1)
    )
    assert torch.equal(one.frames, other.frames)


def test_an_encoder_that_is_only_used_gets_no_gradient():
    network = SAM2Network(CONFIG).train()
    batch = replace(next(batches(0, 1)), encoder_learns=False)
    run_clips(network, batch, torch.Generator().manual_seed(0)).loss.backward()
    assert all(p.grad is None for p in network.image_encoder.parameters())
    assert any(p.grad is not None for p in network.memory_attention.parameters())


def test_a_single_frame_is_never_prompted_by_its_mask():
    network = SAM2Network(CONFIG).train()
    batch = next(batches(0, 1, [replace(BATCHES, frame_count=1)]))
    for seed in range(5):
        result = run_clips(
            network, batch, torch.Generator().manual_seed(seed),
            prompt_mix=PromptMix(box=0.01, point=0.01),
        )
        assert result.prompt_iou and result.loss > 0


def test_threads_that_share_a_batch_find_its_gradient(tmp_path):
    """By masks alone nothing is drawn by chance, and clips of as many objects weigh alike."""
    batch = next(batches(0, 1))
    kept = [(batch.clip_of_object == clip).nonzero()[0, 0].item() for clip in (0, 1)]
    batch = ClipBatch(batch.frames, batch.masks[kept], torch.tensor([0, 1]))
    gradients = []
    for parts in (1, 2):
        torch.manual_seed(0)
        trainer = Trainer(
            SAM2Network(CONFIG), Schedule(steps=1), tmp_path / str(parts),
            prompt_mix=PromptMix(box=0.0, point=0.0), parts=parts,
        )
        trainer.train(iter([batch]))
        gradients.append(
            {n: p.grad for n, p in trainer.network.named_parameters() if p.grad is not None}
        )
    alone, shared = gradients
    assert alone.keys() == shared.keys()
    for name, gradient in alone.items():
        assert torch.allclose(gradient, shared[name], rtol=1e-3, atol=1e-5), name


def test_corrections_fall_where_the_prediction_is_wrong():
    generator = torch.Generator().manual_seed(0)
    true = torch.zeros(30, 16, 16, dtype=torch.bool)
    true[:, 4:12, 4:12] = True
    predicted = torch.zeros_like(true)
    predicted[:, 8:16, 4:12] = True
    points, labels = sample_correction(true, predicted, generator)
    x, y = points.long().unbind(1)
    rows = torch.arange(30)
    assert (true[rows, y, x] ^ predicted[rows, y, x]).all()
    assert (labels.bool() == true[rows, y, x]).all()
    assert 0 < labels.float().mean() < 1


@pytest.mark.parametrize(
    "mix",
    [PromptMix(box=1.0, point=0.0), PromptMix(box=0.0, point=1.0), PromptMix(box=0.0, point=0.0)],
    ids=["box", "point", "mask"],
)
def test_every_kind_of_prompt_trains_the_whole_network(mix):
    torch.manual_seed(0)
    network = SAM2Network(CONFIG).train()
    batch = next(batches(0, 1))
    result = run_clips(network, batch, torch.Generator().manual_seed(0), prompt_mix=mix)
    result.loss.backward()
    assert torch.isfinite(result.loss)
    for part in ("image_encoder", "memory_attention", "memory_encoder", "sam_mask_decoder"):
        gradients = [
            p.grad.abs().max() for p in getattr(network, part).parameters() if p.grad is not None
        ]
        assert gradients and max(gradients) > 0, part


def train(folder, *stops: int) -> Trainer:
    """Train to each stop in turn, in a new trainer each time."""
    for stop in stops:
        torch.manual_seed(0)
        trainer = Trainer(
            SAM2Network(CONFIG), Schedule(steps=4, warmup_steps=1, learning_rate=1e-3), folder,
            loss_weights=LossWeights(focal=0.0, cross_entropy=2.0),
        )
        trainer.resume()
        trainer.train(batches(trainer.step, 4), save_every=1, until_step=stop)
    return trainer


def test_a_resumed_run_ends_with_the_weights_of_one_that_never_stopped(tmp_path):
    whole = train(tmp_path / "whole", 4)
    pieces = train(tmp_path / "pieces", 1, 3, 4)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, pieces.network.state_dict()[name]), name
    assert all(torch.equal(v, pieces.average[k]) for k, v in whole.average.items())


def test_the_same_step_has_the_same_clips_wherever_a_run_starts():
    whole, late = list(batches(0, 3)), list(batches(2, 3))
    assert torch.equal(whole[2].frames, late[0].frames)
    assert torch.equal(whole[2].masks, late[0].masks)


def test_the_learning_rate_warms_up_and_falls_to_its_end():
    schedule = Schedule(steps=100, learning_rate=1.0, warmup_steps=10, final_fraction=0.1)
    rates = [schedule.rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.1)
    assert all(b <= a + 1e-9 for a, b in zip(rates[10:], rates[11:]))


def test_spoiled_masks_are_the_share_that_was_asked_for():
    logits = torch.full((200, 1, 16, 16), -5.0)
    logits[:, :, 2:6, 2:6] = 5.0
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(spoil(logits, 0.0, generator), logits)
    spoiled = spoil(logits, 0.5, generator)
    changed = (spoiled != logits).flatten(1).any(dim=1).float().mean()
    assert 0.35 < changed < 0.6
    areas = (spoil(logits, 1.0, generator) > 0).flatten(1).sum(dim=1)
    assert (areas > 16).any() and (areas == 0).any() and ((0 < areas) & (areas < 16)).any()


def test_the_gradient_flows_through_what_was_not_spoiled():
    logits = torch.randn(20, 1, 8, 8, requires_grad=True)
    spoiled = spoil(logits, 0.5, torch.Generator().manual_seed(0))
    spoiled.sum().backward()
    untouched = (spoiled == logits).flatten(1).all(dim=1)
    assert 0 < untouched.sum() < 20
    assert (logits.grad.flatten(1).abs().sum(dim=1) > 0).tolist() == untouched.tolist()


def test_an_absent_objects_mask_can_be_spoiled():
    logits = torch.full((30, 1, 8, 8), -1024.0)
    spoiled = spoil(logits, 1.0, torch.Generator().manual_seed(0))
    assert torch.isfinite(spoiled).all()


def test_frozen_parameters_stay_and_slowed_ones_learn_less(tmp_path):
    torch.manual_seed(0)
    network = SAM2Network(CONFIG)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    schedule = Schedule(
        steps=2, warmup_steps=1, learning_rate=1e-3, weight_decay=0.0,
        frozen=("image_encoder.trunk.",), slowed=("image_encoder.neck.",), slowed_by=0.01,
    )
    trainer = Trainer(network, schedule, tmp_path)
    trainer.train(batches(0, 2))

    def moved(prefix: str) -> float:
        return max(
            (value - before[name]).abs().max().item()
            for name, value in network.state_dict().items()
            if name.startswith(prefix)
        )

    assert moved("image_encoder.trunk.") == 0
    assert 0 < moved("image_encoder.neck.") < 0.05 * moved("sam_mask_decoder.")


def test_a_prefix_of_no_parameter_is_refused(tmp_path):
    with pytest.raises(ValueError, match="begins with 'trunk.'"):
        Trainer(SAM2Network(CONFIG), Schedule(steps=1, frozen=("trunk.",)), tmp_path)


def test_a_run_with_another_schedule_is_not_continued(tmp_path):
    trainer = Trainer(SAM2Network(CONFIG), Schedule(steps=2), tmp_path)
    trainer.save()
    other = Trainer(SAM2Network(CONFIG), Schedule(steps=3), tmp_path)
    with pytest.raises(ValueError, match="another schedule"):
        other.resume()


def test_a_piece_ends_in_time_with_a_checkpoint(tmp_path):
    trainer = Trainer(SAM2Network(CONFIG), Schedule(steps=4, warmup_steps=1), tmp_path)
    trainer.train(batches(0, 4), until_time=0.0)
    assert trainer.step == 1
    again = Trainer(SAM2Network(CONFIG), Schedule(steps=4, warmup_steps=1), tmp_path)
    assert again.resume() and again.step == 1


def test_the_bar_shows_means_and_bears_missing_figures(capsys):
    with training_bar("stage", 0, 2) as report:
        report({"loss": 1.0, "prompt_iou": None, "track_iou": 0.5})
        report({"loss": 0.5, "prompt_iou": None, "track_iou": 0.7})
    shown = capsys.readouterr().err
    assert "loss=0.750" in shown and "J tracked=0.600" in shown and "2/2" in shown


def test_the_recipe_of_the_demo_model_fits_its_network():
    network = SAM2Network(DEMO)
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    for stage in STAGES:
        freeze(network, stage.schedule.frozen)
        assert any(p.requires_grad for p in network.parameters())
        assert parameter_groups(network, stage.schedule)
