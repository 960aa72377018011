"""What scripts read from Meta's predictor and its state, beside what ours answer.

Run by `make parity`, as `test_parity.py`.
"""

from __future__ import annotations

import pytest
import torch

from sam2_model.build import build_sam2_video_predictor
from sam2_model.configs import model_config
from sam2_model.meta_settings import SETTINGS
from tests.parity import reference, scenarios
from tests.parity.clip import write_frames
from tests.parity.weights import lively_state_dict

pytest.importorskip("sam2", reason="make parity builds the environment that has it")

NAME = "sam2.1_hiera_tiny"
OVERRIDES = ["++model.image_size=256", "++model.non_overlap_masks=true"]
BOUND = 1e-3
MEMORY_BOUND = 2**-6
"""Relative: memories are bfloat16, rounded from numbers that differ in their last digits."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Both predictors, built with the same overrides and weights, and a state of each after
    clicks, a mask, both directions and a removed object."""
    reference.import_sam2()
    import sam2.build_sam

    folder = write_frames(tmp_path_factory.mktemp("frames"), 5)
    found = []
    for build, options in (
        (sam2.build_sam.build_sam2_video_predictor, {}),
        (build_sam2_video_predictor, {"dtype": torch.float32}),
    ):
        predictor = build(
            reference.config_path(NAME), None, device="cpu", apply_postprocessing=False,
            hydra_overrides_extra=OVERRIDES, **options,
        )
        predictor.load_state_dict(lively_state_dict(model_config(NAME)))
        state = predictor.to("cpu").eval().init_state(str(folder))
        scenarios.run(_session, predictor, state, 5)
        found.append((predictor, state))
    return found


def _session(session) -> None:
    session.click(0, "gone", [[0.2, 0.2]], [1])
    session.click(2, "a", [[0.5, 0.5], [0.6, 0.5]], [1, 0])
    session.mask(2, 7, [0.3, 0.25, 0.7, 0.8])
    session.propagate(start_frame_idx=2)
    session.propagate(start_frame_idx=2, reverse=True)
    session.remove("gone")
    session.click(4, "a", [[0.4, 0.4]], [1])


def test_the_states_have_the_same_keys_objects_and_prompts(pair):
    (_, theirs), (_, ours) = pair
    assert set(ours) == set(theirs)
    for key in ("num_frames", "video_height", "video_width", "obj_ids", "device",
                "storage_device", "offload_video_to_cpu", "offload_state_to_cpu"):  # fmt: skip
        assert ours[key] == theirs[key], key
    for key in ("obj_id_to_idx", "obj_idx_to_id"):
        assert dict(ours[key]) == dict(theirs[key])
    assert ours["images"].shape == theirs["images"].shape
    torch.testing.assert_close(ours["images"][:], theirs["images"], atol=1e-5, rtol=0)
    for key in ("point_inputs_per_obj", "mask_inputs_per_obj", "frames_tracked_per_obj"):
        assert list(ours[key]) == list(theirs[key])
        for place, frames in theirs[key].items():
            assert set(ours[key][place]) == set(frames), (key, place)
    for place, frames in theirs["frames_tracked_per_obj"].items():
        assert dict(ours["frames_tracked_per_obj"][place]) == frames
    for place, frames in theirs["point_inputs_per_obj"].items():
        for frame, prompt in frames.items():
            mine = ours["point_inputs_per_obj"][place][frame]
            assert mine.keys() == prompt.keys()
            for name, value in prompt.items():
                torch.testing.assert_close(mine[name], value)
    mine, other = (state["mask_inputs_per_obj"][1][2] for state in (ours, theirs))
    assert torch.equal(mine, other)


@pytest.mark.parametrize("key", ["output_dict_per_obj", "temp_output_dict_per_obj"])
def test_the_states_have_the_same_outputs(pair, key):
    (_, theirs), (_, ours) = pair
    count = 0
    for place, kinds in theirs[key].items():
        assert ours[key][place].keys() == kinds.keys()
        for kind, frames in kinds.items():
            assert set(ours[key][place][kind]) == set(frames), (place, kind)
            for frame, output in frames.items():
                _compare_outputs(ours[key][place][kind][frame], output)
                count += 1
    assert count


def _compare_outputs(ours, theirs) -> None:
    assert set(ours) == set(theirs)
    for name in ("pred_masks", "obj_ptr", "object_score_logits"):
        torch.testing.assert_close(ours[name], theirs[name], atol=BOUND, rtol=0)
    if theirs["maskmem_features"] is None:
        assert ours["maskmem_features"] is None
        return
    mine, other = ours["maskmem_features"], theirs["maskmem_features"]
    assert mine.dtype == other.dtype == torch.bfloat16
    torch.testing.assert_close(mine.float(), other.float(), atol=1e-2, rtol=MEMORY_BOUND)
    torch.testing.assert_close(ours["maskmem_pos_enc"], theirs["maskmem_pos_enc"])


def test_features_of_a_frame_have_the_same_layout_and_numbers(pair):
    (their_predictor, their_state), (our_predictor, our_state) = pair
    with torch.inference_mode():
        theirs = their_predictor._get_image_feature(their_state, 1, 2)
    ours = our_predictor._get_image_feature(our_state, 1, 2)
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-5, rtol=0)
    for mine, other in zip((ours[2], ours[3]), (theirs[2], theirs[3])):
        for level, their_level in zip(mine, other, strict=True):
            torch.testing.assert_close(level, their_level, atol=BOUND, rtol=0)
    assert ours[4] == [tuple(size) for size in theirs[4]]
    image = their_state["images"][3][None]
    with torch.inference_mode():
        expected = their_predictor.forward_image(image)
    actual = our_predictor.forward_image(image)
    assert actual.keys() == expected.keys()
    for key in ("vision_pos_enc", "backbone_fpn"):
        for level, their_level in zip(actual[key], expected[key], strict=True):
            torch.testing.assert_close(level, their_level, atol=BOUND, rtol=0)


def test_settings_and_options_have_the_same_values(pair):
    (theirs, _), (ours, _) = pair
    names = sorted(name for name in SETTINGS if "." not in name)
    for name in [*names, "fill_hole_area", "non_overlap_masks", "memory_temporal_stride_for_eval",
                 "binarize_mask_from_pts_for_mem_enc", "non_overlap_masks_for_mem_enc",
                 "clear_non_cond_mem_around_input", "add_all_frames_to_correct_as_cond",
                 "training", "device"]:  # fmt: skip
        value = getattr(theirs, name)
        if name == "no_obj_embed_spatial":
            # There the parameter stands in the setting's place.
            assert getattr(ours, name).shape == value.shape
        else:
            assert getattr(ours, name) == value, name
