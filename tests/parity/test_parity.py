"""Our predictors against Meta's package: same weights, same frames, float32.

Run by `make parity`, in an environment that has `sam2` 1.1.0. Bounds:
low-resolution logits within 1e-3, masks differing on at most 1e-5 of the
pixels. PARITY_FRAMES (default 12, past the memory bank's length) and
PARITY_OTHER_FRAMES (default 2, for all variants but the first) say how long
the clip is. The scenarios that differ most run at 1024 px; the others, which share their code,
at 512 px, where attention costs a sixteenth. PARITY_IMAGE_SIZE sets one size for
all: 1024 for the whole comparison at full size (an hour on two cores), 256 for a
check in minutes while working on the code.
"""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
import torch

from sam2_model.build import VIDEO_POSTPROCESSING
from sam2_model.configs import CONFIGS, model_config
from sam2_model.image_predictor import SAM2ImagePredictor
from sam2_model.network import SAM2Network
from sam2_model.video_predictor import PredictorOptions, SAM2VideoPredictor
from tests.parity import reference, scenarios
from tests.parity.clip import write_frames
from tests.parity.weights import lively_state_dict

pytest.importorskip("sam2", reason="make parity builds the environment that has it")

LOGIT_BOUND = 1e-3
MASK_BOUND = 1e-5
FRAMES = int(os.environ.get("PARITY_FRAMES", 12))
OTHER_FRAMES = int(os.environ.get("PARITY_OTHER_FRAMES", 2))
ONE_SIZE = os.environ.get("PARITY_IMAGE_SIZE")
FULL_SIZE, SMALLER_SIZE = (int(ONE_SIZE), int(ONE_SIZE)) if ONE_SIZE else (1024, 512)
AT_FULL_SIZE = (
    scenarios.one_click,
    scenarios.three_objects_on_different_frames,
    scenarios.correction_then_again,
    scenarios.both_directions,
)
TINY = "sam2.1_hiera_tiny"
OTHERS = [name for name in CONFIGS if name not in (TINY, "demo")]
# Options of both predictors; hole filling needs a CUDA extension in Meta's.
OPTIONS = {**VIDEO_POSTPROCESSING, "fill_hole_area": 0}


class Pair:
    """Both video predictors of one variant, with the same weights.

    The image encoder sees the same frames in every scenario, so its answers
    are kept: each frame is encoded once by each package.
    """

    def __init__(self, name: str, image_size: int = FULL_SIZE, **overrides) -> None:
        config = model_config(name)
        weights = lively_state_dict(config)
        overrides["image_size"] = image_size
        self.theirs = reference.video_predictor(name, weights, **overrides)
        ours = {key: overrides.pop(key) for key in list(overrides) if hasattr(config, key)}
        network = SAM2Network(dataclasses.replace(config, **ours)).eval()
        network.load_state_dict(weights)
        self.ours = SAM2VideoPredictor(network, PredictorOptions(**{**OPTIONS, **overrides}))
        kept = _encoded.setdefault((name, image_size), ({}, {}))
        self.theirs.forward_image = _keeping(kept[0], self.theirs.forward_image, _copy_backbone)
        network.encode_image = _keeping(kept[1], network.encode_image, lambda answer: answer)


_encoded: dict[tuple[str, int], tuple[dict, dict]] = {}
"""For each variant and size what the two image encoders answered."""


def _keeping(answers: dict[bytes, object], encode, copy):
    def encode_once(images: torch.Tensor):
        key = images[:, :, ::16, ::16].contiguous().numpy().tobytes()
        if key not in answers:
            answers[key] = encode(images)
        return copy(answers[key])

    return encode_once


def _copy_backbone(answer: dict) -> dict:
    """Meta's code replaces entries of these lists."""
    return {
        key: list(value) if isinstance(value, list) else value for key, value in answer.items()
    }


@pytest.fixture(scope="session")
def tiny_pairs() -> dict[int, Pair]:
    return {size: Pair(TINY, size) for size in {FULL_SIZE, SMALLER_SIZE}}


@pytest.fixture(scope="session")
def frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("frames"), FRAMES)


@pytest.fixture(scope="session")
def few_frames(tmp_path_factory):
    return write_frames(tmp_path_factory.mktemp("few"), OTHER_FRAMES)


def compare(pair: Pair, scenario, folder, report) -> None:
    """Run a scenario on both and hold every answer against the other."""
    their_state = pair.theirs.init_state(str(folder))
    our_state = pair.ours.init_state(folder)
    count = our_state.num_frames
    expected = scenarios.run(scenario, pair.theirs, their_state, count)
    actual = scenarios.run(scenario, pair.ours, our_state, count)
    assert [answer[:3] for answer in actual] == [answer[:3] for answer in expected]
    worst_logit = worst_share = 0.0
    for (what, frame, _, theirs), (_, _, _, ours) in zip(expected, actual):
        assert ours.shape == theirs.shape, (what, frame)
        if pair.ours.options.non_overlap_masks:
            # Where two objects claim a pixel alike, rounding picks the winner;
            # what must agree is the winning logit, and that there is one winner.
            assert ((ours > 0).sum(dim=0) <= 1).all()
            ours, theirs = ours.amax(dim=0), theirs.amax(dim=0)
        worst_logit = max(worst_logit, (ours - theirs).abs().max().item())
        differs = (ours > 0) != (theirs > 0)
        worst_share = max(worst_share, differs.float().mean().item())
    worst_low_res = _compare_low_res(their_state, our_state)
    our_state.close()
    positive = np.mean([(answer[3] > 0).float().mean().item() for answer in expected])
    report(
        f"{scenario.__name__}, {pair.ours.image_size} px: "
        f"logits {worst_low_res:.1e} at low resolution, "
        f"{worst_logit:.1e} at video size, masks {worst_share:.1e} "
        f"({len(expected)} answers, {positive:.0%} inside)"
    )
    assert 0.02 < positive < 0.98, "masks all of one kind prove nothing"
    assert worst_low_res <= LOGIT_BOUND
    assert worst_logit <= LOGIT_BOUND
    assert worst_share <= MASK_BOUND


def _compare_low_res(their_state, our_state) -> float:
    worst = 0.0
    for index, object_id in their_state["obj_idx_to_id"].items():
        kept = our_state.objects[object_id]
        theirs = their_state["output_dict_per_obj"][index]
        for frame, output in {
            **theirs["non_cond_frame_outputs"], **theirs["cond_frame_outputs"]
        }.items():
            ours = kept.output_at(frame)
            assert ours is not None, f"frame {frame} is missing from our history"
            worst = max(worst, (ours.mask_logits - output["pred_masks"]).abs().max().item())
    return worst


@pytest.fixture
def report(record_property, capsys):
    def write(line: str) -> None:
        record_property("parity", line)
        with capsys.disabled():
            print(f"\n  {line}", end="", flush=True)

    return write


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_video_predictor_answers_as_the_reference(scenario, tiny_pairs, frames, report):
    size = FULL_SIZE if scenario in AT_FULL_SIZE else SMALLER_SIZE
    compare(tiny_pairs[size], scenario, frames, report)


@pytest.mark.parametrize(
    ("overrides", "scenario"),
    [
        ({"add_all_frames_to_correct_as_cond": True}, scenarios.correction_then_again),
        ({"non_overlap_masks": True}, scenarios.three_objects_on_different_frames),
        ({"max_cond_frames_in_attn": 2}, scenarios.many_prompted_frames),
        ({"memory_temporal_stride_for_eval": 2}, scenarios.one_click),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
def test_options_give_the_answers_they_give_in_the_reference(
    overrides, scenario, frames, report
):
    # clear_non_cond_mem_around_input cannot be compared: it calls a method
    # that the reference does not have.
    compare(Pair(TINY, SMALLER_SIZE, **overrides), scenario, frames, report)


@pytest.mark.parametrize("name", OTHERS)
def test_every_variant_answers_as_the_reference(name, few_frames, report):
    compare(Pair(name), scenarios.one_click, few_frames, report)


def _small_image() -> np.ndarray:
    from tests.parity.clip import _drawn

    return _drawn(1)[0]


@pytest.mark.parametrize(
    "prompt",
    [
        {"point_coords": [[160, 90]], "point_labels": [1]},
        {"point_coords": [[160, 90], [20, 20]], "point_labels": [1, 0]},
        {"box": [60, 40, 200, 150]},
        {"box": [60, 40, 200, 150], "point_coords": [[90, 60]], "point_labels": [0]},
        {"box": [[60, 40, 200, 150], [10, 10, 90, 90]]},
    ],
    ids=["click", "two clicks", "box", "box and click", "two boxes"],
)
@pytest.mark.parametrize("multimask", [True, False])
def test_image_predictor_answers_as_the_reference(prompt, multimask, image_pair, report):
    theirs, ours = image_pair
    prompt = {key: np.array(value) for key, value in prompt.items()}
    expected = theirs.predict(**prompt, multimask_output=multimask, return_logits=True)
    actual = ours.predict(**prompt, multimask_output=multimask, return_logits=True)
    for their_array, our_array in zip(expected, actual):
        assert our_array.shape == their_array.shape
    worst = [float(np.abs(a - b).max()) for a, b in zip(expected, actual)]
    report(f"logits {worst[0]:.1e}, IoU {worst[1]:.1e}, low resolution {worst[2]:.1e}")
    assert max(worst) <= LOGIT_BOUND
    assert ((expected[0] > 0) != (actual[0] > 0)).mean() <= MASK_BOUND


def test_image_predictor_takes_its_own_logits_back(image_pair, report):
    theirs, ours = image_pair
    click = {"point_coords": np.array([[160, 90]]), "point_labels": np.array([1])}
    answers = []
    for predictor in image_pair:
        _, ious, logits = predictor.predict(**click)
        again = predictor.predict(
            **click, mask_input=logits[[ious.argmax()]], multimask_output=False,
            return_logits=True,
        )
        answers.append(again)
    worst = float(np.abs(answers[0][0] - answers[1][0]).max())
    report(f"logits {worst:.1e}")
    assert worst <= LOGIT_BOUND


@pytest.fixture(scope="session")
def image_pair():
    weights = lively_state_dict(model_config(TINY))
    theirs = reference.image_predictor(TINY, weights)
    network = SAM2Network(model_config(TINY)).eval()
    network.load_state_dict(weights)
    network.stability_fallback = True
    ours = SAM2ImagePredictor(network)
    image = _small_image()
    theirs.set_image(image)
    ours.set_image(image)
    return theirs, ours
