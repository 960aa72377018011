"""What scripts for Meta's predictor do with it and with its state, beside the tutorial."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sam2_model import SAM2ImagePredictor, SAM2VideoPredictor, build_sam2_video_predictor
from sam2_model.session import StateLimits
from sam2_model.video_predictor import PredictorOptions
from tests.sam2_model.small_model import (
    SMALL,
    answers_of,
    moving_square,
    small_network,
    small_predictor,
    small_state_dict,
)

CLICK = {"points": [[40, 30]], "labels": [1]}
KEYS_OF_SAM2_1_1 = {
    "images", "num_frames", "offload_video_to_cpu", "offload_state_to_cpu", "video_height",
    "video_width", "device", "storage_device", "point_inputs_per_obj", "mask_inputs_per_obj",
    "cached_features", "constants", "obj_id_to_idx", "obj_idx_to_id", "obj_ids",
    "output_dict_per_obj", "temp_output_dict_per_obj", "frames_tracked_per_obj",
}  # fmt: skip


@pytest.fixture
def own_predictor():
    """One whose network the test may change."""
    return build_sam2_video_predictor(SMALL, device="cpu", dtype=torch.float32)


@pytest.fixture
def predictor():
    return small_predictor()


@pytest.fixture
def state(predictor):
    with predictor.init_state(moving_square(6)) as state:
        yield state


@pytest.fixture
def tracked(predictor, state):
    """Two objects, "a" clicked on frame 0 and 5 masked on frame 1, and every frame tracked."""
    predictor.add_new_points_or_box(state, 0, "a", **CLICK)
    mask = np.zeros((64, 96), bool)
    mask[10:40, 20:60] = True
    predictor.add_new_mask(state, 1, 5, mask)
    list(predictor.propagate_in_video(state))
    return state


# ------------------------------------------------------- semi-supervised evaluation


@pytest.mark.parametrize("one_by_one", [False, True], ids=["together", "one by one"])
def test_an_evaluation_of_masks_on_the_first_frames_runs_as_metas_does(tmp_path, one_by_one):
    """The calls of Meta's tools/vos_inference.py: builder, masks, and scores put together."""
    checkpoint, video = tmp_path / "model.pt", tmp_path / "video"
    torch.save({"model": small_state_dict()}, checkpoint)
    video.mkdir()
    for index, frame in enumerate(moving_square(5)):
        Image.fromarray(frame).save(video / f"{index:05d}.jpg")
    predictor = build_sam2_video_predictor(
        config_file=SMALL,
        ckpt_path=str(checkpoint),
        apply_postprocessing=False,
        hydra_overrides_extra=["++model.non_overlap_masks=true"],
        vos_optimized=False,
    )
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        state = predictor.init_state(video_path=str(video), async_loading_frames=False)
        height, width = state["video_height"], state["video_width"]
        given = {7: (0, np.zeros((height, width), bool)), 9: (2, np.zeros((height, width), bool))}
        given[7][1][10:30, 10:40] = True
        given[9][1][30:60, 30:80] = True
        scores = torch.full((2, 5, 1, height, width), -1024.0)
        for ids in [[7], [9]] if one_by_one else [[7, 9]]:
            predictor.reset_state(state)
            for object_id in ids:
                frame, mask = given[object_id]
                predictor.add_new_mask(
                    inference_state=state, frame_idx=frame, obj_id=object_id, mask=mask
                )
            start = min(given[object_id][0] for object_id in ids)
            for frame, object_ids, logits in predictor.propagate_in_video(
                state, start_frame_idx=start, reverse=False
            ):
                assert object_ids == ids
                for object_id, plane in zip(object_ids, logits):
                    scores[[7, 9].index(object_id), frame] = plane.cpu()
        for frame in range(5):
            together = predictor._apply_non_overlapping_constraints(scores[:, frame])
            masks = (together > 0.0).cpu().numpy()
            assert masks.shape == (2, 1, height, width)
            assert masks.sum(axis=0).max() <= 1
    # Together, each pixel is given to the other object where that claims it more.
    claimed = (scores[:, 0, 0] > 0).any(dim=0).numpy()
    assert claimed[given[7][1]].mean() > 0.9
    assert bool((scores[1, 0] == -1024).all()) == one_by_one


# -------------------------------------------------------------------------- the state


def test_the_state_is_a_mapping_with_the_keys_of_metas_dict(state):
    assert set(state) == set(state.keys()) == KEYS_OF_SAM2_1_1
    assert len(state) == len(KEYS_OF_SAM2_1_1) and state
    assert "images" in state and "output_dict" not in state
    assert state.get("num_frames") == 6 and state.get("output_dict", "none") == "none"
    assert dict(state)["video_width"] == 96
    assert state == state and hash(state) == hash(state)


def test_images_are_the_frames_as_the_network_reads_them(state):
    images = state["images"]
    assert len(images) == 6 and images.shape == (6, 3, 128, 128) == images.size()
    assert images.size(0) == images.shape[0] == 6
    assert images[-1].shape == (3, 128, 128) and images[-1].dtype == images.dtype
    torch.testing.assert_close(images[1:3], torch.stack([images[1], images[np.int64(2)]]))
    assert images[6:].shape == (0, 3, 128, 128)
    assert sum(1 for _ in images) == 6
    deviation, mean = torch.tensor([0.229, 0.224, 0.225]), torch.tensor([0.485, 0.456, 0.406])
    shown = images[0] * deviation[:, None, None] + mean[:, None, None]
    assert shown.min() >= -1e-6 and shown.max() <= 1 + 1e-6
    with pytest.raises(IndexError, match=r"\[0, 6\)"):
        images[6]


def test_objects_have_places_in_the_order_they_came(predictor, state):
    places, ids = state["obj_id_to_idx"], state["obj_idx_to_id"]
    assert dict(places) == {} and state["obj_ids"] == []
    for object_id in ("a", 5, "c"):
        predictor.add_new_points_or_box(state, 0, object_id, **CLICK)
    # Taken before the objects came: views are live.
    assert dict(places) == {"a": 0, 5: 1, "c": 2} and places.get("d") is None
    assert dict(ids) == {0: "a", 1: 5, 2: "c"} and list(ids.values()) == state["obj_ids"]
    assert predictor._obj_id_to_idx(state, 5) == 1 and predictor._obj_idx_to_id(state, 2) == "c"
    predictor.remove_object(state, "a")
    assert dict(places) == {5: 0, "c": 1} and predictor._get_obj_num(state) == 2
    with pytest.raises(KeyError, match="'a'.*no object has that id"):
        places["a"]
    with pytest.raises(KeyError, match="place"):
        ids[2]


def test_prompts_are_shown_by_object_and_frame(tracked):
    points, masks = tracked["point_inputs_per_obj"], tracked["mask_inputs_per_obj"]
    assert list(points) == list(masks) == [0, 1]
    assert (list(points[0]), list(points[1])) == ([0], [])
    assert (list(masks[0]), list(masks[1])) == ([], [1])
    prompt = points[0][0]
    # Pixels of the model's image, as Meta keeps them.
    torch.testing.assert_close(
        prompt["point_coords"], torch.tensor([[[40 / 96 * 128, 30 / 64 * 128]]])
    )
    assert prompt["point_labels"].tolist() == [[1]]
    assert masks[1][1].shape == (1, 1, 128, 128)


def test_outputs_are_pending_until_propagation_makes_them_final(predictor, state):
    predictor.add_new_points_or_box(state, 2, "a", **CLICK)
    pending = state["temp_output_dict_per_obj"][0]["cond_frame_outputs"]
    final = state["output_dict_per_obj"][0]
    assert list(pending) == [2] and not final["cond_frame_outputs"]
    assert pending[2]["maskmem_features"] is None is pending[2]["maskmem_pos_enc"]
    predictor.propagate_in_video_preflight(state)
    assert list(final["cond_frame_outputs"]) == [2] and len(pending) == 0
    assert not state["frames_tracked_per_obj"][0]
    list(predictor.propagate_in_video(state, start_frame_idx=2, reverse=True))
    assert sorted(final["non_cond_frame_outputs"]) == [0, 1]
    assert dict(state["frames_tracked_per_obj"][0]) == {at: {"reverse": True} for at in (2, 1, 0)}


def test_an_output_has_metas_names_and_shapes_and_shares_its_numbers(tracked):
    output = tracked["output_dict_per_obj"][0]["non_cond_frame_outputs"][3]
    kept = tracked.objects["a"].history[3]
    assert {key: tuple(output[key].shape) for key in output if key != "maskmem_pos_enc"} == {
        "maskmem_features": (1, 8, 8, 8),
        "pred_masks": (1, 1, 32, 32),
        "obj_ptr": (1, 32),
        "object_score_logits": (1, 1),
    }
    assert output["maskmem_features"].data_ptr() == kept.memory.data_ptr()
    assert output["pred_masks"] is kept.mask_logits
    torch.testing.assert_close(
        output["maskmem_features"].flatten(2).transpose(1, 2), kept.memory
    )
    assert output["maskmem_pos_enc"][0].shape == (1, 8, 8, 8)
    assert torch.equal(output["maskmem_pos_enc"][0], tracked["constants"]["maskmem_pos_enc"][0])


def test_memories_deleted_through_the_state_are_gone_and_made_again(predictor, tracked):
    before = answers_of(predictor.propagate_in_video(tracked))
    for outputs in tracked["output_dict_per_obj"].values():
        kept = outputs["non_cond_frame_outputs"]
        assert kept.pop(3)["pred_masks"].shape == (1, 1, 32, 32)
        assert kept.pop(3, None) is None
        del kept[4]
        assert 3 not in kept and 4 not in kept and 5 in kept
    item = tracked.objects["a"]
    assert item.history_bytes == sum(output.byte_count for output in item.history.values())
    after = answers_of(predictor.propagate_in_video(tracked))
    assert all(torch.equal(before[at], after[at]) for at in before)
    for outputs in tracked["output_dict_per_obj"].values():
        outputs["non_cond_frame_outputs"].clear()
        outputs["cond_frame_outputs"].clear()
    assert item.history_bytes == 0
    with pytest.raises(RuntimeError, match="'a' has no prompt"):
        list(predictor.propagate_in_video(tracked))


def test_what_the_history_has_no_room_for_is_said_to_be_missing(predictor):
    with predictor.init_state(
        moving_square(30), limits=StateLimits(history_bytes=0)
    ) as state:
        predictor.add_new_points_or_box(state, 0, "a", **CLICK)
        list(predictor.propagate_in_video(state))
        kept = state["output_dict_per_obj"][0]["non_cond_frame_outputs"]
        assert 29 in kept and 3 not in kept
        with pytest.raises(KeyError, match="history_bytes"):
            kept[3]


@pytest.mark.parametrize("how", ["clear", "assign", "delete"])
def test_cached_features_may_be_dropped(predictor, tracked, how):
    cached = tracked["cached_features"]
    assert set(cached) == set(range(6)) and cached[2].top.shape == (1, 32, 8, 8)
    if how == "clear":
        cached.clear()
    elif how == "assign":
        tracked["cached_features"] = {}
    else:
        for frame in list(cached):
            del cached[frame]
    assert len(cached) == 0 and 2 not in cached and not tracked.has_features(2)
    with pytest.raises(KeyError, match="no features"):
        cached[2]
    count = tracked.encoded_frame_count
    predictor.add_new_points_or_box(tracked, 2, "b", **CLICK)
    assert tracked.encoded_frame_count == count + 1 and list(cached) == [2]


def test_scripts_may_keep_their_own_values_in_the_state(state):
    state["tracking_has_started"] = False  # a habit from sam2 1.0
    state["colours"] = {1: "red"}
    assert state["colours"] == {1: "red"} and "colours" in state
    assert state.setdefault("colours", {}) == {1: "red"}
    assert state.pop("colours") == {1: "red"} and state.pop("colours", None) is None
    assert set(state) == KEYS_OF_SAM2_1_1 | {"tracking_has_started"}
    with pytest.raises(KeyError, match="colours"):
        del state["colours"]


@pytest.mark.parametrize(
    "change, instead",
    [
        # what a script does, what the message names
        (lambda state: state.update(images=[]), "init_state takes"),
        (lambda state: state.pop("images"), "init_state takes"),
        (lambda state: state.update(storage_device="cpu"), "offload_state_to_cpu"),
        (lambda state: state.update(obj_ids=[1]), "remove_object"),
        (lambda state: state.update(cached_features={0: 1}), "cached_features"),
        (lambda state: state.clear(), "reset_state.*close"),
        (lambda state: state["obj_id_to_idx"].update({"b": 1}), "add_new_points_or_box"),
        (lambda state: state["obj_id_to_idx"].clear(), "remove_object"),
        (lambda state: state["point_inputs_per_obj"][0].pop(0), "clear_all_prompts_in_frame"),
        (lambda state: state["frames_tracked_per_obj"].clear(), "reset_state"),
        (lambda state: state["output_dict_per_obj"][0]["cond_frame_outputs"].update({3: {}}),
         "add_new_mask"),
        (lambda state: state["output_dict_per_obj"][0]["cond_frame_outputs"][0].update(q=1),
         "your own values"),
    ],
)  # fmt: skip
def test_changes_that_are_the_predictors_to_make_name_its_method(tracked, change, instead):
    shown = dict(tracked["obj_id_to_idx"])
    with pytest.raises(ValueError, match=instead):
        change(tracked)
    assert dict(tracked["obj_id_to_idx"]) == shown and len(tracked["point_inputs_per_obj"][0]) == 1


@pytest.mark.parametrize(
    "key, instead",
    [
        ("output_dict", "output_dict_per_obj"),
        ("consolidated_frame_inds", "cond_frame_outputs"),
        ("frames_already_tracked", "frames_tracked_per_obj"),
        ("tracking_has_started", "any time"),
        ("video_path", "images.*num_frames"),
    ],
)
def test_a_key_that_is_not_kept_says_what_is(state, key, instead):
    with pytest.raises(KeyError, match=f"{key}.*{instead}"):
        state[key]


@pytest.mark.parametrize("offload", [False, True])
def test_the_state_says_what_init_state_was_asked_for(predictor, offload):
    with predictor.init_state(
        moving_square(2), offload_video_to_cpu=offload, offload_state_to_cpu=not offload
    ) as state:
        assert state["offload_video_to_cpu"] is offload
        assert state["offload_state_to_cpu"] is not offload
        assert state["images"].device == state["images"][0].device == torch.device("cpu")


# ---------------------------------------------------------------------- the predictor


def test_the_predictor_is_moved_and_switched_as_a_module_is(own_predictor):
    predictor = own_predictor
    assert predictor.to("cpu") is predictor.eval() is predictor.cpu() is predictor
    assert predictor.training is False and predictor.train().training is True
    assert predictor.eval().model.training is False
    assert predictor.requires_grad_(False) is predictor
    assert not any(parameter.requires_grad for parameter in predictor.parameters())
    assert predictor.bfloat16().model.dtype == torch.bfloat16
    assert predictor.to(torch.float32).model.dtype == torch.float32
    with pytest.raises(ValueError, match="autocast"), torch.autocast("cpu", dtype=torch.float16):
        with predictor.init_state(moving_square(2)) as state:
            predictor.add_new_points_or_box(state, 0, 1, **CLICK)
            list(predictor.propagate_in_video(state))


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_a_predictor_in_half_precision_tracks(cast):
    predictor = build_sam2_video_predictor(SMALL, device="cpu", dtype=torch.float32)
    predictor.load_state_dict(small_state_dict())
    assert getattr(predictor, cast)() is predictor
    with predictor.init_state(moving_square(3)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        answers = answers_of(predictor.propagate_in_video(state))
    assert list(answers) == [0, 1, 2]
    assert all(logits.dtype == torch.float32 for logits in answers.values())


def test_weights_are_counted_loaded_and_saved_by_the_checkpoints_names(own_predictor):
    weights = small_state_dict()
    assert own_predictor.load_state_dict(weights, strict=True).missing_keys == []
    assert own_predictor.state_dict().keys() == weights.keys()
    count = sum(parameter.numel() for parameter in own_predictor.parameters())
    assert count == sum(parameter.numel() for parameter in own_predictor.model.parameters()) > 0
    assert dict(own_predictor.named_parameters()).keys() <= weights.keys()


def test_parts_of_the_network_are_reached_and_replaced_through_the_predictor(own_predictor):
    predictor = own_predictor
    assert predictor.image_encoder is predictor.model.image_encoder
    assert predictor.no_mem_embed is predictor.model.no_mem_embed

    class Counted(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, *args):
            self.calls += 1
            return self.inner(*args)

    # What `predictor.image_encoder = torch.compile(predictor.image_encoder)` relies on.
    predictor.image_encoder = counted = Counted(predictor.image_encoder)
    assert predictor.model.image_encoder is counted
    with predictor.init_state(moving_square(2)) as state:
        predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    assert counted.calls == 1


def test_options_are_attributes_of_the_predictor(predictor, state):
    assert predictor.fill_hole_area == 0 and predictor.non_overlap_masks is False
    predictor.non_overlap_masks = True
    assert predictor.options.non_overlap_masks
    for object_id in (1, 2):
        answer = predictor.add_new_points_or_box(state, 0, object_id, **CLICK)
    assert ((answer[2] > 0).sum(dim=0) <= 1).all()
    low, masks = predictor._get_orig_video_res_output(state, torch.ones(2, 1, 32, 32))
    assert low.shape == (2, 1, 32, 32) and masks.shape == (2, 1, 64, 96)
    assert ((masks > 0).sum(dim=0) == 1).all()
    with pytest.raises(ValueError, match="fill_hole_area=-1"):
        predictor.fill_hole_area = -1


def test_how_far_it_looks_back_may_be_set_as_scripts_for_long_videos_do(own_predictor):
    own_predictor.max_cond_frames_in_attn = 2
    own_predictor.max_obj_ptrs_in_encoder = 4
    config = own_predictor.model.config
    assert (config.max_cond_frames_in_attn, config.max_object_pointers) == (2, 4)
    with pytest.raises(ValueError, match="max_cond_frames_in_attn=1"):
        own_predictor.max_cond_frames_in_attn = 1


def test_an_option_set_between_two_passes_counts_in_the_second(predictor, state):
    predictor.add_new_points_or_box(state, 0, 1, **CLICK)
    list(predictor.propagate_in_video(state))
    predictor.fill_hole_area = 400
    after = answers_of(predictor.propagate_in_video(state))
    with predictor.init_state(moving_square(6)) as fresh:
        predictor.fill_hole_area = 0
        predictor.add_new_points_or_box(fresh, 0, 1, **CLICK)
        before = answers_of(predictor.propagate_in_video(fresh))
        predictor.fill_hole_area = 400
        # Nothing of the first pass but the prompted frame is taken over.
        fresh.objects[1].history.clear()
        expected = answers_of(predictor.propagate_in_video(fresh))
    assert all(torch.equal(after[at], expected[at]) for at in expected)
    assert any(not torch.equal(before[at], after[at]) for at in after)


def test_settings_of_the_network_are_read_by_metas_names_and_not_set(predictor):
    names = ("image_size", "num_maskmem", "hidden_dim", "mem_dim", "max_obj_ptrs_in_encoder",
             "max_cond_frames_in_attn", "backbone_stride", "multimask_max_pt_num")  # fmt: skip
    assert [getattr(predictor, name) for name in names] == [128, 7, 32, 8, 16, -1, 16, 1]
    for name in ("num_maskmem", "hidden_dim", "mem_dim", "backbone_stride", "image_size"):
        with pytest.raises(AttributeError, match=f"{name}.*hydra_overrides_extra"):
            setattr(predictor, name, 3)
    predictor.my_own = 3
    assert predictor.my_own == 3


@pytest.mark.parametrize(
    "name, instead",
    [
        ("track_step", "propagate_in_video"),
        ("_run_single_frame_inference", "propagate_in_video"),
        ("_forward_sam_heads", "add_new_points_or_box"),
        ("load_first_frame", "frame source"),
        ("forward", "propagate_in_video"),
        ("samurai_mode", ""),
        ("encode_image", ""),
    ],
)
def test_a_name_that_is_not_answered_says_what_is(predictor, name, instead):
    assert not hasattr(predictor, name)
    with pytest.raises(AttributeError, match=f"{name}.*{instead}"):
        getattr(predictor, name)


def test_a_method_that_would_never_be_called_is_not_put_in_anothers_place(predictor):
    with pytest.raises(TypeError, match="Samurai overrides _forward_sam_heads, track_step"):

        class Samurai(SAM2VideoPredictor):
            def _forward_sam_heads(self, *args):
                return None

            def track_step(self, *args):
                return None

    with pytest.raises(AttributeError, match="_get_image_feature.*nothing here calls it"):
        predictor._get_image_feature = None

    class Own(SAM2VideoPredictor):
        def track(self, path):
            return self.init_state(path)

    with Own(predictor.model).track(moving_square(2)) as state:
        assert state["num_frames"] == 2


def test_image_features_have_metas_layout(predictor, state):
    image, out, features, positions, sizes = predictor._get_image_feature(state, 1, 2)
    assert image.shape == (2, 3, 128, 128) and torch.equal(image[1], state["images"][1])
    assert sizes == [(32, 32), (16, 16), (8, 8)]
    assert [tuple(level.shape) for level in features] == [(1024, 2, 4), (256, 2, 8), (64, 2, 32)]
    assert [tuple(grid.shape) for grid in positions] == [(h * w, 2, 32) for h, w in sizes]
    own = predictor.forward_image(state["images"][1][None])
    torch.testing.assert_close(own["backbone_fpn"][2], out["vision_features"][:1])
    torch.testing.assert_close(features[2][:, :1].permute(1, 2, 0).reshape(1, 32, 8, 8),
                               own["vision_features"])  # fmt: skip
    assert state.encoded_frame_count == 1  # once for the state, and kept


def test_what_is_no_state_of_this_predictor_now_is_refused(own_predictor):
    with pytest.raises(ValueError, match="dict, must be what init_state returns"):
        own_predictor.add_new_points_or_box({"images": []}, 0, 1, **CLICK)
    with own_predictor.init_state(moving_square(2)) as state:
        own_predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        own_predictor.bfloat16()
        with pytest.raises(ValueError, match="cast.*init_state"):
            own_predictor.add_new_points_or_box(state, 0, 1, **CLICK)
        with pytest.raises(ValueError, match="init_state"):
            list(own_predictor.propagate_in_video(state))
    with own_predictor.init_state(moving_square(2)) as state:
        own_predictor.load_state_dict(small_state_dict())
        with pytest.raises(ValueError, match="other weights.*init_state"):
            own_predictor.add_new_points_or_box(state, 0, 1, **CLICK)


# ---------------------------------------------------------------- the image predictor


def test_an_image_predictor_shares_the_network_of_a_video_predictor():
    video = small_predictor(dynamic_multimask_via_stability=True)
    shared, own = SAM2ImagePredictor(video), SAM2ImagePredictor(small_network())
    assert shared.model is video.model and shared.device == video.device
    for predictor in (shared, own):
        predictor.set_image(moving_square(1)[0])
    click = {"point_coords": np.array([[40, 30]]), "point_labels": np.array([1])}
    for mine, other in zip(shared.predict(**click), own.predict(**click)):
        np.testing.assert_array_equal(mine, other)


def test_one_mask_falls_back_as_the_video_predictors_option_says(own_predictor):
    weights = small_state_dict()
    for name in weights:  # flat single masks: any shift of the threshold changes them
        if "output_hypernetworks_mlps.0.layers.2" in name:
            weights[name] = weights[name] * 1e-3
    own_predictor.load_state_dict(weights)
    images = SAM2ImagePredictor(own_predictor)
    images.set_image(moving_square(1)[0])
    click = {"point_coords": np.array([[40, 30]]), "point_labels": np.array([1])}
    _, three, _ = images.predict(**click)
    own_predictor.options = PredictorOptions(dynamic_multimask_via_stability=False)
    _, single, _ = images.predict(**click, multimask_output=False)
    own_predictor.options = PredictorOptions(dynamic_multimask_via_stability=True)
    _, fallen_back, _ = images.predict(**click, multimask_output=False)
    assert fallen_back == pytest.approx(three.max()) and single != fallen_back


def test_what_an_image_predictor_keeps_is_read_by_metas_names(predictor):
    images = SAM2ImagePredictor(predictor)
    assert images._features is None and images._is_image_set is False
    images.set_image(moving_square(1)[0])
    assert images._is_image_set and images._orig_hw == [(64, 96)]
    assert images._features["image_embed"].shape == (1, 32, 8, 8)
    assert [tuple(level.shape) for level in images._features["high_res_feats"]] == [
        (1, 4, 32, 32), (1, 8, 16, 16)
    ]  # fmt: skip
    images.reset_predictor()
    assert images._features is None


@pytest.mark.parametrize("wrong", ["sam2.1_hiera_tiny", None, nn.Linear(1, 1)])
def test_an_image_predictor_of_something_else_is_refused(wrong):
    with pytest.raises(ValueError, match="build_sam2"):
        SAM2ImagePredictor(wrong)


@pytest.mark.parametrize(
    "name, instead",
    [("_predict", "predict_torch"), ("_transforms", "set_image"), ("_prep_prompts", "predict"),
     ("set_torch_image", "")],
)  # fmt: skip
def test_a_name_that_an_image_predictor_does_not_answer_says_what_is(predictor, name, instead):
    images = SAM2ImagePredictor(predictor)
    assert not hasattr(images, name)
    with pytest.raises(AttributeError, match=f"{name}.*{instead}"):
        getattr(images, name)
