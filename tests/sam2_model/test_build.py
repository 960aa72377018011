"""From names and files to predictors that are ready to use."""

import re

import numpy as np
import pytest
import safetensors.torch
import torch

import sam2_model.build as build
from sam2_model.build import (
    build_network,
    build_sam2,
    build_sam2_video_predictor,
    default_device,
    default_dtype,
)
from sam2_model.checkpoints import CheckpointFileError, CheckpointMismatchError
from sam2_model.image_predictor import SAM2ImagePredictor
from sam2_model.session import StateLimits
from sam2_model.video_predictor import PredictorOptions
from tests.sam2_model.small_model import SMALL, moving_square, small_network, small_state_dict

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights():
    return small_state_dict()


def equal_weights(network, weights) -> bool:
    state = network.state_dict()
    return all(torch.equal(state[key].float(), value) for key, value in weights.items())


# ------------------------------------------------------------------- dtype and device


def test_the_default_device_is_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == CPU


@pytest.mark.parametrize(
    "capabilities, expected",
    [
        ({"amx_bf16": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": False, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),  # a CPU that has no such names
    ],
)
def test_bfloat16_is_the_default_where_the_cpu_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert default_dtype(CPU) == expected
    assert build_network(SMALL, None, device="cpu").dtype == expected


def test_a_network_in_training_is_float32_unless_asked(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    network = build_network(SMALL, None, device="cpu", mode="train")
    assert network.dtype == torch.float32 and network.training
    asked = build_network(SMALL, None, device="cpu", mode="train", dtype=torch.bfloat16)
    assert asked.dtype == torch.bfloat16
    assert not build_network(SMALL, None, device="cpu").training


@pytest.mark.parametrize("device", ["cpu", CPU])
def test_a_device_is_a_name_or_a_torch_device(device):
    assert build_network(SMALL, None, device=device).device == CPU


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_a_device_that_is_none_is_refused(device):
    with pytest.raises(ValueError, match=re.escape(f"device={device!r}")):
        build_network(SMALL, None, device=device)


def test_a_gpu_that_is_not_there_is_refused_not_replaced(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="device='cuda:0'.*no GPU"):
        build_network(SMALL, None, device="cuda:0")


@pytest.mark.parametrize("mode", ["Eval", "", None])
def test_a_mode_that_is_none_is_refused(mode):
    with pytest.raises(ValueError, match=re.escape(f"mode={mode!r}")):
        build_sam2(SMALL, device="cpu", mode=mode)


def test_an_unknown_name_is_refused_by_every_builder():
    for builder in (build_network, build_sam2, build_sam2_video_predictor):
        with pytest.raises(ValueError, match="'sam3'"):
            builder("sam3", device="cpu")


# ------------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize("kind", ["pt with model", "bare pt", "safetensors", "half precision"])
def test_weights_come_from_a_file_of_any_kind(tmp_path, weights, kind):
    path = tmp_path / ("model.safetensors" if kind == "safetensors" else "model.pt")
    if kind == "safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in weights.items()}, path)
    elif kind == "half precision":
        torch.save({"model": {key: value.half() for key, value in weights.items()}}, path)
    else:
        torch.save(weights if kind == "bare pt" else {"model": weights}, path)
    network = build_sam2(SMALL, path, device="cpu", dtype=torch.float32)
    expected = weights
    if kind == "half precision":
        expected = {key: value.half().float() for key, value in weights.items()}
    assert equal_weights(network, expected)
    assert equal_weights(
        build_sam2_video_predictor(SMALL, str(path), device="cpu", dtype=torch.float32).model,
        expected,
    )


def test_no_checkpoint_means_random_weights():
    torch.manual_seed(0)
    first = build_sam2(SMALL, device="cpu", dtype=torch.float32)
    second = build_sam2(SMALL, None, device="cpu", dtype=torch.float32)
    assert not torch.equal(first.no_mem_embed, second.no_mem_embed)


def test_a_checkpoint_of_another_model_names_file_model_and_keys(tmp_path, weights):
    wrong = dict(weights)
    wrong["surplus.weight"] = wrong.pop("no_mem_embed")
    wrong["no_obj_ptr"] = torch.zeros(1, 99)
    path = tmp_path / "other.pt"
    torch.save({"model": wrong}, path)
    with pytest.raises(CheckpointMismatchError) as error:
        build_sam2_video_predictor(SMALL, path, device="cpu")
    for part in (str(path), "'small'", "no_mem_embed", "surplus.weight", "no_obj_ptr", "(1, 99)"):
        assert part in str(error.value)
    assert isinstance(error.value, ValueError)


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointFileError, match="gone.pt"):
        build_sam2(SMALL, tmp_path / "gone.pt", device="cpu")


@pytest.mark.parametrize("asked", ["demo", "sam2.1_hiera_tiny"])
def test_only_the_demo_model_comes_with_weights_of_its_own(monkeypatch, asked):
    resolved = []

    def resolve(name):
        resolved.append(name)
        raise CheckpointFileError(f"{name}: stop here")

    monkeypatch.setattr(build, "resolve_checkpoint", resolve)
    if asked == "demo":
        with pytest.raises(CheckpointFileError):
            build_sam2("demo", device="cpu")
        assert resolved == ["demo"]
    else:
        assert build._default_checkpoint(asked, None) is None
        with pytest.raises(CheckpointFileError):
            build_network("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu")
        assert resolved == ["sam2.1_hiera_tiny"]


# -------------------------------------------------------------------------- predictors


def test_postprocessing_is_metas_by_default_and_options_win():
    plain = build_sam2_video_predictor(SMALL, device="cpu", apply_postprocessing=False)
    assert plain.options == PredictorOptions()
    metas = build_sam2_video_predictor(SMALL, device="cpu")
    assert metas.options == PredictorOptions(
        fill_hole_area=8,
        binarize_mask_from_pts_for_mem_enc=True,
        dynamic_multimask_via_stability=True,
    )
    own = build_sam2_video_predictor(
        SMALL, device="cpu", fill_hole_area=0, non_overlap_masks=True,
        limits=StateLimits(history_bytes=5),
    )
    assert own.options.fill_hole_area == 0 and own.options.non_overlap_masks
    assert own.options.binarize_mask_from_pts_for_mem_enc
    assert own.limits.history_bytes == 5
    assert build_sam2(SMALL, device="cpu").stability_fallback
    assert not build_sam2(SMALL, device="cpu", apply_postprocessing=False).stability_fallback


def test_an_option_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="fill_holes"):
        build_sam2_video_predictor(SMALL, device="cpu", fill_holes=8)


def test_a_state_of_another_predictor_is_refused():
    first, second = (
        build_sam2_video_predictor(SMALL, device="cpu", dtype=torch.float32) for _ in range(2)
    )
    with first.init_state(moving_square(2)) as state:
        with pytest.raises(ValueError, match="another predictor"):
            second.add_new_points_or_box(state, 0, 1, [[40, 30]], [1])


def test_a_built_predictor_is_the_network_in_the_file(tmp_path, weights):
    path = tmp_path / "model.pt"
    torch.save({"model": weights}, path)
    predictor = build_sam2_video_predictor(
        SMALL, path, device="cpu", dtype=torch.float32, apply_postprocessing=False
    )
    state = predictor.init_state(moving_square(2))
    _, _, logits = predictor.add_new_points_or_box(state, 0, 1, [[40, 30]], [1])
    image_predictor = SAM2ImagePredictor(small_network())
    image_predictor.set_image(moving_square(1)[0])
    assert predictor.image_size == SMALL.image_size and predictor.device == CPU
    assert logits.shape == (1, 1, 64, 96)


# ---------------------------------------------------------------------------- bfloat16


def track(predictor):
    state = predictor.init_state(moving_square(10))
    predictor.add_new_points_or_box(state, 0, 1, [[40, 30]], [1])
    predictor.add_new_points_or_box(state, 0, 2, box=[10, 10, 50, 50])
    return [logits for _, _, logits in predictor.propagate_in_video(state)]


def test_a_bfloat16_network_tracks_nearly_as_float32(tmp_path, weights):
    path = tmp_path / "model.pt"
    torch.save({"model": weights}, path)
    answers = [
        torch.stack(track(build_sam2_video_predictor(SMALL, path, device="cpu", dtype=dtype)))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    exact, rounded = (logits > 0 for logits in answers)
    assert answers[1].dtype == torch.float32 and torch.isfinite(answers[1]).all()
    assert (exact & rounded).sum() / (exact | rounded).sum() > 0.8


def test_a_bfloat16_network_predicts_images_nearly_as_float32(tmp_path, weights):
    path = tmp_path / "model.pt"
    torch.save({"model": weights}, path)
    answers = []
    for dtype in (torch.float32, torch.bfloat16):
        predictor = SAM2ImagePredictor(build_sam2(SMALL, path, device="cpu", dtype=dtype))
        predictor.set_image(moving_square(1)[0])
        masks, ious, low_res = predictor.predict(np.array([[40, 30]]), np.array([1]))
        assert ious.dtype == low_res.dtype == np.float32
        answers.append(masks > 0)
    exact, rounded = answers
    assert (exact & rounded).sum() / (exact | rounded).sum() > 0.8


def test_frequencies_of_points_stay_exact_in_bfloat16(weights):
    network = build_network(SMALL, None, device="cpu", dtype=torch.bfloat16)
    name = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    assert network.state_dict()[name].dtype == torch.float32
    others = {key: value.dtype for key, value in network.state_dict().items() if key != name}
    assert set(others.values()) == {torch.bfloat16}
    # And a cast there and back leaves them as they were.
    before = network.state_dict()[name].clone()
    network.to(torch.float16).to(torch.float32)
    assert torch.equal(network.state_dict()[name], before)
