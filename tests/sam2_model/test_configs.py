"""Which networks exist, by what names, and that their weights are the official ones'."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import torch

from sam2_model.configs import (
    ALIASES,
    CONFIGS,
    DEMO,
    ModelConfig,
    model_config,
    resolve_model_name,
)
from sam2_model.network import SAM2Network
from sam2_model.video_predictor import SAM2VideoPredictor
from tests.sam2_model.small_model import SMALL, moving_square, small_network, small_predictor

OFFICIAL = [
    f"{generation}_hiera_{size}"
    for generation in ("sam2", "sam2.1")
    for size in ("tiny", "small", "base_plus", "large")
]
SHAPES_FILE = Path(__file__).parent / "data" / "official_shapes.json.gz"
"""{variant: {key: shape}}, from the state dicts of Meta's package sam2 1.1.0."""


@pytest.fixture(scope="module")
def official_shapes():
    with gzip.open(SHAPES_FILE, "rt", encoding="ascii") as file:
        return json.load(file)


def test_the_eight_official_variants_and_the_demo_model_are_there():
    assert list(CONFIGS) == [*OFFICIAL, "demo"]
    assert all(config.name == name for name, config in CONFIGS.items())


@pytest.mark.parametrize(
    "asked, name",
    [
        ("sam2.1_hiera_tiny", "sam2.1_hiera_tiny"),  # ours, also Meta's checkpoint file name
        ("demo", "demo"),
        ("configs/sam2.1/sam2.1_hiera_t.yaml", "sam2.1_hiera_tiny"),  # Meta's README
        ("configs/sam2.1/sam2.1_hiera_s.yaml", "sam2.1_hiera_small"),
        ("configs/sam2.1/sam2.1_hiera_b+.yaml", "sam2.1_hiera_base_plus"),
        ("configs/sam2.1/sam2.1_hiera_l.yaml", "sam2.1_hiera_large"),
        ("configs/sam2/sam2_hiera_t.yaml", "sam2_hiera_tiny"),
        ("configs/sam2/sam2_hiera_b+.yaml", "sam2_hiera_base_plus"),
        ("configs/sam2/sam2_hiera_l", "sam2_hiera_large"),  # hydra adds the suffix
        ("sam2_hiera_s.yaml", "sam2_hiera_small"),  # Meta's first release
        ("sam2_hiera_l", "sam2_hiera_large"),
        ("facebook/sam2-hiera-tiny", "sam2_hiera_tiny"),
        ("facebook/sam2-hiera-base-plus", "sam2_hiera_base_plus"),
        ("facebook/sam2.1-hiera-large", "sam2.1_hiera_large"),
    ],
)
def test_a_model_answers_to_all_its_names(asked, name):
    assert resolve_model_name(asked) == name
    assert model_config(asked) is CONFIGS[name]


def test_no_alias_hides_a_name():
    assert not set(ALIASES) & set(CONFIGS)
    assert set(ALIASES.values()) == set(OFFICIAL)


@pytest.mark.parametrize(
    "asked",
    [
        "sam2.1_hiera_huge",  # no such size
        "SAM2.1_hiera_tiny",  # case matters
        "facebook/sam2.1-hiera-base_plus",  # hub ids have hyphens
        "configs/sam2/sam2.1_hiera_t.yaml",  # the other generation's folder
        "tiny",
        "",
    ],
)
def test_an_unknown_name_is_refused_with_the_names_that_exist(asked):
    with pytest.raises(ValueError) as error:
        model_config(asked)
    assert repr(asked) in str(error.value)
    assert all(name in str(error.value) for name in CONFIGS)


@pytest.mark.parametrize("name", OFFICIAL)
def test_state_dict_keys_and_shapes_are_those_of_the_official_checkpoint(name, official_shapes):
    with torch.device("meta"):
        network = SAM2Network(CONFIGS[name])
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert ours == official_shapes[name]


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"image_size": 1000}, "image_size=1000"),  # not a multiple of 32
        ({"image_size": 0}, "image_size=0"),
        ({"image_size": -32}, "image_size=-32"),
        ({"image_size": 160, "trunk_window_sizes": (16, 4, 8, 4)}, "trunk_window_sizes[0]=16"),
        ({"memory_dim": 12}, "memory_dim=12"),  # does not divide 32
        ({"hidden_dim": 2, "memory_dim": 2}, "hidden_dim=2"),
        ({"hidden_dim": 30, "memory_dim": 6}, "hidden_dim=30"),
        ({"hidden_dim": 40, "decoder_num_heads": 3}, "decoder_num_heads=3"),
        ({"memory_dim": 2}, "memory_dim=2"),  # sine grids need quarters
        ({"top_down_levels": (1, 2)}, "top_down_levels=(1, 2)"),
        ({"trunk_stages": (1, 1, 0, 1)}, "trunk_stages=(1, 1, 0, 1)"),
        ({"trunk_stages": (1, 1, 1)}, "trunk_stages=(1, 1, 1)"),
        ({"trunk_window_sizes": (8, 4, 0, 4)}, "trunk_window_sizes=(8, 4, 0, 4)"),
        ({"trunk_window_sizes": (8, 3, 8, 4)}, "trunk_window_sizes=(8, 3, 8, 4)"),  # odd
        ({"trunk_num_heads": 3}, "trunk_num_heads=3"),  # does not divide 16
        ({"num_maskmem": 0}, "num_maskmem=0"),
        ({"max_cond_frames_in_attn": 1}, "max_cond_frames_in_attn=1"),
        ({"max_cond_frames_in_attn": 0}, "max_cond_frames_in_attn=0"),
    ],
)
def test_a_config_that_cannot_work_is_refused_with_its_value(changes, named):
    with pytest.raises(ValueError) as error:
        dataclasses.replace(SMALL, **changes)
    assert named in str(error.value)
    assert "'small'" in str(error.value)


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEMO.image_size = 512


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_size": 32, "trunk_window_sizes": (8, 4, 2, 1)},  # one coarsest cell
        {"image_size": 96},  # maps that are no multiple of the windows
        {"trunk_embed_dim": 24, "trunk_num_heads": 2, "trunk_stages": (2, 1, 1, 2)},
        {"trunk_global_attention_blocks": ()},
        {"hidden_dim": 64, "memory_dim": 64},  # pointers as wide as memories
        {"memory_attention_layers": 1, "memory_fuser_layers": 1, "decoder_depth": 1},
        {"num_maskmem": 1},  # nothing but prompted frames
        {"num_maskmem": 3, "max_object_pointers": 2},
        {"memory_of_absence": False, "pointer_time_encoding": False},  # SAM 2.0
        {"top_down_levels": (2,)},
        {"top_down_levels": ()},
    ],
)
def test_a_scaled_down_config_tracks(changes):
    predictor = small_predictor(small_network(**changes))
    state = predictor.init_state(moving_square(4))
    predictor.add_new_points_or_box(state, 0, 1, [[40, 30]], [1])
    answers = [logits for _, _, logits in predictor.propagate_in_video(state)]
    assert [tuple(logits.shape) for logits in answers] == [(1, 1, 64, 96)] * 4
    assert all(torch.isfinite(logits).all() for logits in answers)


def test_the_demo_config_tracks():
    torch.manual_seed(0)
    predictor = SAM2VideoPredictor(SAM2Network(DEMO).eval())
    state = predictor.init_state(moving_square(2))
    predictor.add_new_points_or_box(state, 0, 1, box=[10, 10, 60, 50])
    assert len(list(predictor.propagate_in_video(state))) == 2


def test_a_config_needs_only_a_name():
    assert ModelConfig(name="mine") == dataclasses.replace(CONFIGS["sam2.1_hiera_tiny"], name="mine")
