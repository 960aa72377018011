"""A script written for Meta's tutorial runs with only its imports changed."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sam2_model.build
import sam2_model.checkpoints
import sam2_model.configs
from tests.sam2_model import meta_tutorial
from tests.sam2_model.small_model import SMALL, moving_square, small_state_dict

HUB_ID = "facebook/sam2.1-hiera-tiny"
NAME = "sam2.1_hiera_tiny"


@pytest.fixture
def small_model_on_the_hub(monkeypatch, tmp_path):
    """The hub id means a model of toy size, and the hub is a file."""
    checkpoint = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": small_state_dict()}, checkpoint)
    small = dataclasses.replace(SMALL, name=NAME)
    monkeypatch.setattr(
        sam2_model.configs, "CONFIGS", {**sam2_model.configs.CONFIGS, NAME: small}
    )

    def fetch(hub_id, **_kwargs):
        assert hub_id == HUB_ID
        return checkpoint

    monkeypatch.setattr(sam2_model.build, "fetch_from_hub", fetch)


def test_the_tutorial_gives_masks_at_video_size_for_every_frame(
    small_model_on_the_hub, tmp_path
):
    video, output = tmp_path / "video", tmp_path / "output"
    video.mkdir()
    # Number order, not name order: 10.jpg comes last.
    for index, frame in enumerate(moving_square(11)):
        Image.fromarray(frame).save(video / f"{index}.jpg")

    first_mask, segments = meta_tutorial.main(str(video), 40, 30, str(output))

    assert list(segments) == list(range(11))
    for masks in segments.values():
        assert list(masks) == [1]
        assert masks[1].shape == (1, 64, 96) and masks[1].dtype == bool
    np.testing.assert_array_equal(segments[0][1], first_mask)
    assert first_mask.any() and not first_mask.all()
    assert sorted(path.name for path in output.iterdir()) == [
        "0_1.png", "3_1.png", "6_1.png", "9_1.png"
    ]
    with Image.open(output / "9_1.png") as picture:
        assert picture.size == (96, 64)


def test_the_tutorial_imports_nothing_of_ours_but_the_predictor():
    tree = ast.parse(Path(meta_tutorial.__file__).read_text())
    ours = [
        node for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sam2_model")
    ]
    assert [[alias.name for alias in node.names] for node in ours] == [["SAM2VideoPredictor"]]


def test_the_other_ways_to_the_same_hub_model(small_model_on_the_hub):
    import sam2_model as package

    predictor = package.build_sam2_video_predictor_hf(HUB_ID, device="cpu", fill_hole_area=3)
    assert predictor.options.fill_hole_area == 3  # wins over the default
    image_predictor = package.SAM2ImagePredictor.from_pretrained(HUB_ID, device="cpu")
    image_predictor.set_image(moving_square(1)[0])
    masks, _, _ = image_predictor.predict(np.array([[40, 30]]), np.array([1]))
    assert masks.shape == (3, 64, 96)
    own = package.SAM2ImagePredictor.from_pretrained(HUB_ID, device="cpu", max_hole_area=4.0)
    assert own.max_hole_area == 4


@pytest.mark.parametrize("hub_id", ["facebook/sam2.1-hiera-huge", "someone/model"])
def test_a_hub_id_of_no_known_model_is_refused_before_any_download(hub_id, monkeypatch):
    def no_download(*_args, **_kwargs):
        raise AssertionError("asked the hub")

    monkeypatch.setattr(sam2_model.build, "fetch_from_hub", no_download)
    with pytest.raises(ValueError, match=hub_id):
        meta_tutorial.SAM2VideoPredictor.from_pretrained(hub_id)
