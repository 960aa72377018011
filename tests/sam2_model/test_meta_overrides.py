"""`hydra_overrides_extra` and the other arguments of Meta's builders."""

import logging

import pytest
import torch

from sam2_model.build import build_sam2, build_sam2_video_predictor
from sam2_model.configs import model_config
from sam2_model.meta_overrides import read_overrides
from sam2_model.video_predictor import PredictorOptions
from tests.sam2_model.small_model import SMALL, moving_square, small_state_dict

SAM21, SAM20 = model_config("sam2.1_hiera_tiny"), model_config("sam2_hiera_tiny")


@pytest.mark.parametrize(
    "override, options",
    [
        ("++model.non_overlap_masks=true", {"non_overlap_masks": True}),
        ("+model.non_overlap_masks=False", {"non_overlap_masks": False}),
        ("model.fill_hole_area=16", {"fill_hole_area": 16}),
        (" ++model.fill_hole_area = 0 ", {"fill_hole_area": 0}),
        ("++model.memory_temporal_stride_for_eval=2", {"memory_temporal_stride_for_eval": 2}),
        ("++model.add_all_frames_to_correct_as_cond=TRUE",
         {"add_all_frames_to_correct_as_cond": True}),
        ("++model.max_objects_per_batch=null", {"max_objects_per_batch": None}),
        ("++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
         {"dynamic_multimask_via_stability": True}),
    ],
)  # fmt: skip
def test_an_override_that_names_an_option_is_that_option(override, options):
    asked = read_overrides([override], SAM21)
    assert asked.options == options
    assert asked.config_changes == {} and not asked.is_compiled


@pytest.mark.parametrize(
    "override, changes",
    [
        ("++model.image_size=512", {"image_size": 512}),
        ("++model.max_cond_frames_in_attn=4", {"max_cond_frames_in_attn": 4}),
        ("++model.max_obj_ptrs_in_encoder=8", {"max_object_pointers": 8}),
        ("++model.sigmoid_scale_for_mem_enc=10", {"memory_mask_scale": 10}),
        ("++model.sigmoid_bias_for_mem_enc=-5.5", {"memory_mask_bias": -5.5}),
    ],
)
def test_an_override_that_names_a_size_changes_the_config(override, changes):
    asked = read_overrides([override], SAM21)
    assert (asked.options, asked.config_changes) == ({}, changes)


@pytest.mark.parametrize(
    "override, config",
    [
        ("++model.pred_obj_scores=true", SAM21),
        ("++model.multimask_min_pt_num=0", SAM21),
        ("++model.no_obj_embed_spatial=true", SAM21),
        ("++model.no_obj_embed_spatial=false", SAM20),
        ("++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98", SAM21),
        ("++model.compile_image_encoder=False", SAM21),
        ("++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictor", SAM21),
        ("++model.memory_attention.layer.self_attention.feat_sizes=[64,64]", SAM21),
    ],
)
def test_an_override_that_says_what_is_so_anyway_is_taken(override, config):
    asked = read_overrides([override], config)
    assert (asked.options, asked.config_changes, asked.is_compiled) == ({}, {}, False)


def test_of_two_overrides_the_later_counts_and_grids_follow_the_size_wherever_it_stands():
    asked = read_overrides(
        [
            "++model.memory_attention.layer.cross_attention.feat_sizes=[32, 32]",
            "++model.image_size=256",
            "++model.image_size=512",
        ],
        SAM21,
    )
    assert asked.config_changes == {"image_size": 512}


@pytest.mark.parametrize(
    "overrides, named",
    [
        # what is asked, what the message must name
        (["++model.samurai_mode=true"], "samurai_mode"),
        (["++model.image_encoder.trunk.embed_dim=96"], "image_encoder.trunk.embed_dim"),
        (["++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.9"], "thresh"),
        (["++model.pred_obj_scores=false"], "pred_obj_scores.*true in this model"),
        (["++model.multimask_min_pt_num=false"], "multimask_min_pt_num"),  # 0, but no number
        (["++model.no_obj_embed_spatial=false"], "no_obj_embed_spatial"),
        (["++model._target_=my.package.Predictor"], "my.package.Predictor"),
        (["++model.non_overlap_masks=1"], "non_overlap_masks.*true or false"),
        (["++model.non_overlap_masks="], "non_overlap_masks.*true or false"),
        (["++model.fill_hole_area=true"], "fill_hole_area.*whole number"),
        (["++model.fill_hole_area=8.5"], "fill_hole_area.*whole number"),
        (["++model.sigmoid_scale_for_mem_enc=NaN"], "sigmoid_scale_for_mem_enc.*number"),
        (["++model.memory_attention.layer.self_attention.feat_sizes=[32,32]"], "64, 64"),
        (["~model.fill_hole_area"], "~model.fill_hole_area"),
        (["trainer.max_epochs=3"], "trainer.max_epochs"),
        (["model.fill_hole_area"], "NAME=VALUE"),
        ([8], "NAME=VALUE"),
        ("++model.fill_hole_area=8", "list"),
        (True, "apply_postprocessing"),  # the fifth argument is Meta's fifth
        (None, "list"),
    ],
)
def test_every_other_override_is_refused_by_name(overrides, named):
    with pytest.raises(ValueError, match=f"(?s)hydra_overrides_extra.*{named}"):
        read_overrides(overrides, SAM21)


def test_values_out_of_range_are_refused_where_they_are_ruled():
    with pytest.raises(ValueError, match="fill_hole_area=-1"):
        build_sam2_video_predictor(
            SMALL, device="cpu", hydra_overrides_extra=["++model.fill_hole_area=-1"]
        )
    for override in ("image_size=100", "max_obj_ptrs_in_encoder=0"):
        with pytest.raises(ValueError, match=override.split("=")[1]):
            build_sam2_video_predictor(
                SMALL, device="cpu", hydra_overrides_extra=[f"++model.{override}"]
            )


def test_the_builder_takes_metas_arguments_in_metas_order():
    predictor = build_sam2_video_predictor(
        SMALL, None, "cpu", "eval", ["++model.non_overlap_masks=true"], False, False
    )
    assert predictor.options == PredictorOptions(non_overlap_masks=True)
    network = build_sam2(SMALL, None, "cpu", "eval", [], False)
    assert not network.stability_fallback


def test_overrides_win_over_postprocessing_and_options_over_both(caplog):
    overrides = ["++model.fill_hole_area=2", "++model.non_overlap_masks=true"]
    with caplog.at_level(logging.WARNING):
        predictor = build_sam2_video_predictor(
            SMALL, device="cpu", hydra_overrides_extra=overrides, non_overlap_masks=False
        )
    assert predictor.options.fill_hole_area == 2 and not predictor.options.non_overlap_masks
    assert predictor.options.binarize_mask_from_pts_for_mem_enc
    assert "fill_hole_area=2" in caplog.text and "non_overlap" not in caplog.text


def test_another_image_size_takes_the_same_weights(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model": small_state_dict()}, path)
    predictor = build_sam2_video_predictor(
        SMALL, path, device="cpu", dtype=torch.float32,
        hydra_overrides_extra=["++model.image_size=64", "++model.max_cond_frames_in_attn=2"],
    )
    assert predictor.image_size == 64 and predictor.max_cond_frames_in_attn == 2
    with predictor.init_state(moving_square(3)) as state:
        predictor.add_new_points_or_box(state, 0, 1, [[40, 30]], [1])
        answers = list(predictor.propagate_in_video(state))
    assert [logits.shape for _, _, logits in answers] == [(1, 1, 64, 96)] * 3


def test_the_image_builder_takes_what_is_its_own_and_refuses_what_is_the_videos():
    via = "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=false"
    assert not build_sam2(SMALL, device="cpu", hydra_overrides_extra=[via]).stability_fallback
    assert build_sam2(
        SMALL, device="cpu", hydra_overrides_extra=["++model.image_size=64"]
    ).image_size == 64
    with pytest.raises(ValueError, match="fill_hole_area.*build_sam2_video_predictor"):
        build_sam2(SMALL, device="cpu", hydra_overrides_extra=["++model.fill_hole_area=8"])


@pytest.mark.parametrize(
    "arguments",
    [
        {"vos_optimized": True},
        {"hydra_overrides_extra": ["++model.compile_image_encoder=true"]},
        {"hydra_overrides_extra": [
            "++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictorVOS"
        ]},
    ],
)  # fmt: skip
def test_what_asks_for_speed_alone_runs_and_the_log_says_that_nothing_is_compiled(
    arguments, caplog
):
    with caplog.at_level(logging.WARNING):
        predictor = build_sam2_video_predictor(SMALL, device="cpu", **arguments)
    assert "nothing is compiled" in caplog.text
    plain = build_sam2_video_predictor(SMALL, device="cpu")
    assert predictor.options == plain.options
