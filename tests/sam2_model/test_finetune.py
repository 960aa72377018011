"""Fine-tuning: videos are prepared once, sampled by seed, and the best weights are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sam2_model import build_sam2_video_predictor
from sam2_model.build import build_network, find_model
from sam2_model.checkpoints import CheckpointFileError
from sam2_model.checkpoints.finetuned import finetuned_path, network_of, save_finetuned
from sam2_model.configs import DEMO, ModelConfig
from sam2_model.network import SAM2Network
from sam2_model.training.finetune import (
    FinetuneSettings,
    Judgement,
    Listener,
    finetune,
    split_videos,
)
from sam2_model.training.objective import ClipBatch
from sam2_model.training.trainer import Trainer
from sam2_model.training.video_clips import (
    VideoClipSettings,
    prepare_videos,
    video_clip_batches,
)

SHORT = FinetuneSettings(
    steps=4, evaluate_every=2, frame_count=3, clip_count=1, general_share=0.0
)
BOTH_KINDS = replace(SHORT, general_share=0.5)


@dataclass(frozen=True)
class Squares:
    """A video of a bright square that moves right; a second one is there on some frames."""

    name: str
    length: int = 6
    size: int = 60

    @property
    def source(self) -> list[Image.Image]:
        return [Image.fromarray(self.picture(frame)) for frame in range(self.length)]

    @property
    def frame_count(self) -> int:
        return self.length

    @property
    def annotations(self) -> range:
        return range(self.length)

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        masks = {1: self._square(4 + 3 * frame_index, 10)}
        if frame_index % 3 == 1:
            masks[2] = self._square(40, 44)
        return masks

    def picture(self, frame_index: int) -> np.ndarray:
        seed = sum(self.name.encode())
        picture = np.random.default_rng(seed).integers(0, 60, (self.size, self.size, 3))
        for mask in self.masks(frame_index).values():
            picture[mask] = 220
        return picture.astype(np.uint8)

    def _square(self, left: int, top: int) -> np.ndarray:
        mask = np.zeros((self.size, self.size), bool)
        mask[top : top + 12, left : left + 12] = True
        return mask


VIDEOS = [Squares(name) for name in ("a", "b", "c", "d")]


def test_a_split_depends_on_names_and_seed_alone():
    first = split_videos(VIDEOS, 0.25, 0)
    assert split_videos(VIDEOS[::-1], 0.25, 0) == first
    training, validation = first
    assert len(validation) == 1
    assert sorted(v.name for v in training + validation) == ["a", "b", "c", "d"]
    assert len({split_videos(VIDEOS, 0.25, seed)[1][0].name for seed in range(20)}) > 1


@pytest.mark.parametrize("share, held_back", [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_both_parts_of_a_split_have_a_video(share, held_back):
    assert len(split_videos(VIDEOS, share, 0)[1]) == held_back


@pytest.mark.parametrize(
    "videos, message",
    [
        (VIDEOS[:1], "1 annotated video is too few"),
        ([], "0 annotated video is too few"),
        ([VIDEOS[0], VIDEOS[1], VIDEOS[0]], "two videos are called 'a'"),
    ],
)
def test_videos_that_cannot_be_split_are_named(videos, message):
    with pytest.raises(ValueError, match=message):
        split_videos(videos, 0.25, 0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"steps": 0}, "steps=0"),
        ({"frame_count": 9}, "frame_count=9 must be 1 to 8"),
        ({"validation_share": 1.0}, "validation_share=1.0"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"seed": -1}, "seed=-1"),
        ({"general_share": 1.0}, "general_share=1.0 must be 0 or above, below 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(**changes)


def test_prepared_videos_hold_frames_and_masks_at_the_models_size(tmp_path):
    (video,) = prepare_videos(VIDEOS[:1], tmp_path, 32)
    assert video.frames == tuple(range(6)) and video.object_count == 2
    assert video.seen == ((0,), (0, 1), (0,), (0,), (0, 1), (0,))
    assert video.picture(0).size == (32, 32)
    masks = video.masks(4, 32)
    assert masks.shape == (2, 32, 32)
    small = Image.fromarray(VIDEOS[0].masks(4)[1].astype(np.uint8) * 255)
    expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX)) > 127
    assert (masks[0] == expected).all() and masks[1].any()
    # A second call finds them.
    stamp = (video.folder / "0000000.jpg").stat().st_mtime_ns
    prepare_videos(VIDEOS[:1], tmp_path, 32)
    assert (video.folder / "0000000.jpg").stat().st_mtime_ns == stamp


@dataclass(frozen=True)
class Broken(Squares):
    """Masks of another size than the pictures, or none."""

    empty: bool = False

    def masks(self, frame_index: int) -> dict[int, np.ndarray]:
        return {} if self.empty else {1: np.ones((self.size, self.size + 1), bool)}

    def picture(self, frame_index: int) -> np.ndarray:
        return np.zeros((self.size, self.size, 3), np.uint8)


@pytest.mark.parametrize(
    "video, message",
    [
        (Broken("x"), "video 'x', frame 0: a mask of 60 x 61 pixels on a picture of 60 x 60"),
        (Broken("x", empty=True), "video 'x' shows no object"),
    ],
)
def test_annotations_that_do_not_fit_are_named(tmp_path, video, message):
    with pytest.raises(ValueError, match=message):
        prepare_videos([video], tmp_path, 32)
    assert not (tmp_path / "00000").exists()


def test_clips_are_the_same_wherever_a_run_starts_and_follow_their_objects(tmp_path):
    prepared = prepare_videos(VIDEOS, tmp_path, 64)
    settings = VideoClipSettings(frame_count=4, clip_count=2, objects_per_clip=2)

    def batches(start: int, stop: int):
        return list(
            video_clip_batches(prepared, 64, settings, seed=1, start=start, stop=stop)
        )

    whole, late = batches(0, 4), batches(2, 4)
    assert torch.equal(whole[2].frames, late[0].frames)
    assert torch.equal(whole[3].masks, late[1].masks)
    for batch in whole:
        assert batch.frames.shape == (2, 4, 3, 64, 64) and batch.frames.dtype == torch.uint8
        assert batch.masks.shape[1:] == (4, 64, 64)
        assert batch.masks[:, 0].flatten(1).any(dim=1).all()
        assert len(batch.clip_of_object) == len(batch.masks)
        for masks, clip in zip(batch.masks, batch.clip_of_object):
            for frame, mask in zip(batch.frames[clip].float().mean(dim=1), masks):
                if mask.sum() > 20:  # squares are bright, what surrounds them is not
                    assert frame[mask].mean() > frame[~mask].mean() + 40


def test_fine_tuning_leaves_weights_that_load_by_name_and_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path / "cache"))
    told: list[Judgement] = []
    network = build_network("demo", dtype=torch.float32, mode="train")
    encoder = {k: v.clone() for k, v in network.image_encoder.state_dict().items()}
    report = finetune(network, VIDEOS, tmp_path / "out", SHORT, Listener(judged=told.append))
    assert [judgement.step for judgement in report.history] == [0, 2, 4] == [j.step for j in told]
    assert report.best.region_and_contour >= report.before.region_and_contour
    for name, value in network.image_encoder.state_dict().items():
        assert torch.equal(value, encoder[name]), name
    written = json.loads((tmp_path / "out/report.json").read_text())
    assert written["before"]["region"] == report.before.region
    assert sorted(written["training_videos"] + written["validation_videos"]) == ["a", "b", "c", "d"]

    assert network_of(report.weights) == "demo"
    target = finetuned_path("squares")
    target.parent.mkdir(parents=True)
    target.write_bytes(report.weights.read_bytes())
    for name in ("squares", str(report.weights), str(tmp_path / "out")):
        predictor = build_sam2_video_predictor(name)
        loaded = predictor.model.state_dict()["no_mem_embed"]
        tuned = build_network("demo", report.weights).state_dict()["no_mem_embed"]
        assert torch.equal(loaded, tuned)


@pytest.mark.parametrize("asked, general", [(None, [1, 3]), (0, []), (0.25, [3])])
def test_general_clips_are_shown_between_the_users(tmp_path, monkeypatch, asked, general):
    seen: list[ClipBatch] = []
    train = Trainer.train

    def watched(self, batches, **options):
        train(self, (seen.append(batch) or batch for batch in batches), **options)

    monkeypatch.setattr(Trainer, "train", watched)
    settings = replace(SHORT, evaluate_every=4, general_share=asked)
    finetune(build_network("demo", mode="train"), VIDEOS, tmp_path, settings)
    # The user's clips are as long as the settings say.
    assert [step for step, batch in enumerate(seen) if batch.frames.shape[1] != 3] == general
    own = [batch.frames for step, batch in enumerate(seen) if step not in general]
    assert not any(torch.equal(one, other) for one, other in zip(own, own[1:]))


def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path):
    whole = finetune(
        build_network("demo", mode="train"), VIDEOS, tmp_path / "whole", BOTH_KINDS
    )

    def stops_after(count: int) -> Listener:
        judged: list[Judgement] = []
        return Listener(judged=judged.append, is_cancelled=lambda: len(judged) >= count)

    for count in (1, 1, 5):
        pieces = finetune(
            build_network("demo", mode="train"), VIDEOS, tmp_path / "pieces", BOTH_KINDS,
            stops_after(count),
        )
    assert pieces.history == whole.history


def test_no_gain_for_long_enough_ends_the_run(tmp_path):
    # At this rate the model falls apart at once.
    settings = replace(SHORT, steps=40, evaluate_every=1, patience=2, learning_rate=10.0)
    report = finetune(build_network("demo", mode="train"), VIDEOS, tmp_path, settings)
    assert len(report.history) < 10
    best = build_network("demo", report.weights)
    assert all(torch.isfinite(value).all() for value in best.state_dict().values())


def test_weights_that_could_not_be_named_are_not_trained(tmp_path):
    network = SAM2Network(replace(DEMO, name="other"))
    with pytest.raises(ValueError, match="network 'other' is none of"):
        finetune(network, VIDEOS, tmp_path, SHORT)


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "x" * 65, "a b"])
def test_names_that_are_no_file_names_are_refused(name):
    with pytest.raises(ValueError, match="must be 1 to 64"):
        finetuned_path(name)


@pytest.mark.parametrize("name", ["demo", "sam2.1_hiera_tiny"])
def test_a_published_models_name_is_taken(name):
    with pytest.raises(ValueError, match="published"):
        finetuned_path(name)


def test_an_unknown_model_is_refused_with_the_names_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path))
    path = finetuned_path("mine")
    path.parent.mkdir(parents=True)
    save_finetuned(path, {"x": torch.zeros(1)}, network="demo")
    with pytest.raises(ValueError, match="'nobody' is not known.*fine-tuned models here: mine"):
        find_model("nobody")


def test_a_file_that_does_not_say_its_network_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "some.safetensors")
    with pytest.raises(CheckpointFileError, match="does not say which network"):
        find_model(str(tmp_path / "some.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(CheckpointFileError, match="cannot be read"):
        find_model(tmp_path / "text.safetensors")


def test_a_config_is_itself():
    config: ModelConfig = replace(DEMO, image_size=64)
    assert find_model(config).config is config
    assert find_model(Path("demo")).config == DEMO
