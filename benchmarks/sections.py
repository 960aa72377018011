"""The measurements, one function a section. Each runs in a process of its own.

Both packages get the same seeded weights, the same JPEG frames and the same
prompts. Weights do not change how long a network takes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import harness
from sam2_model.build import VIDEO_POSTPROCESSING, default_dtype
from sam2_model.configs import DEMO, model_config
from sam2_model.image_predictor import SAM2ImagePredictor
from sam2_model.network import SAM2Network
from sam2_model.session import StateLimits
from sam2_model.video_predictor import PredictorOptions, SAM2VideoPredictor
from tests.parity import reference
from tests.parity.weights import lively_state_dict

SIZE_WH = (1280, 720)
TINY = "sam2.1_hiera_tiny"


def our_predictor(config, dtype: torch.dtype, device: str = "cpu") -> SAM2VideoPredictor:
    network = SAM2Network(config)
    network.load_state_dict(lively_state_dict(config, sharpened=False))
    network = network.to(device, dtype).eval()
    return SAM2VideoPredictor(network, PredictorOptions(**VIDEO_POSTPROCESSING))


def _prompt(predictor, state, objects: int) -> None:
    for index, box in enumerate(harness.object_boxes(objects, SIZE_WH)):
        predictor.add_new_points_or_box(state, 0, index, box=box)


def steady_state(which: str, objects: int, skip: int, count: int) -> dict:
    """Seconds a frame once the memory bank is full: `reference`, `ours`, `ours_float32`."""
    harness.threads_from_environment()
    config = model_config(TINY)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        frames = harness.write_frames(Path(folder) / "f", skip + count + 1, SIZE_WH)
        if which == "reference":
            weights = lively_state_dict(config, sharpened=False)
            predictor = reference.video_predictor(TINY, weights)
            state = predictor.init_state(str(frames))
            dtype = torch.float32
        else:
            dtype = torch.float32 if which == "ours_float32" else default_dtype(torch.device("cpu"))
            predictor = our_predictor(config, dtype)
            state = predictor.init_state(frames)
        _prompt(predictor, state, objects)
        with torch.inference_mode():
            each = harness.step_seconds(
                predictor.propagate_in_video(state), skip=skip, count=count
            )
    return {"which": which, "objects": objects, "seconds": each, "dtype": str(dtype)}


def parts_of_a_frame() -> dict:
    """Seconds of the encoder, the memory attention, the decoder and the memory encoder."""
    harness.threads_from_environment()
    from sam2_model.network.sam2 import MemoryTokens

    config = model_config(TINY)
    network = our_predictor(config, torch.float32).model
    cells = config.feature_size**2
    with torch.inference_mode():
        image = torch.randn(1, 3, config.image_size, config.image_size)
        features = network.encode_image(image)
        tokens = MemoryTokens(
            maps=tuple(torch.randn(1, cells, config.memory_dim) for _ in range(7)),
            map_recency=tuple(range(7)),
            pointers=tuple(torch.randn(1, config.hidden_dim) for _ in range(16)),
            pointer_offsets=tuple(range(16)),
            pointer_offset_scale=15,
        )
        conditioned = network.condition_on_memory(features.top, tokens)
        decode = lambda: network.predict_masks(conditioned, features.high_res, multimask=True)
        prediction = decode()
        return {
            "image encoder": harness.seconds(lambda: network.encode_image(image)),
            "memory attention": harness.seconds(
                lambda: network.condition_on_memory(features.top, tokens)
            ),
            "mask decoder": harness.seconds(decode),
            "memory encoder": harness.seconds(
                lambda: network.encode_memory(
                    features.top, prediction.mask_logits, prediction.object_score_logits
                )
            ),
        }


def correction_again(frame_count: int) -> dict:
    """Seconds of a first propagation and of one after a correction, features kept."""
    harness.threads_from_environment()
    results = {}
    for label, limits in (
        ("kept", StateLimits()),
        ("not kept", StateLimits(feature_cache_bytes=0)),
    ):
        predictor = our_predictor(model_config(TINY), default_dtype(torch.device("cpu")))
        with tempfile.TemporaryDirectory() as folder:
            frames = harness.write_frames(Path(folder) / "f", frame_count, SIZE_WH)
            state = predictor.init_state(frames, limits=limits)
            first = harness.seconds(
                lambda: (_prompt(predictor, state, 1), _propagate(predictor, state)),
                repeats=1, warm_up=0,
            )
            click = np.array([[SIZE_WH[0] / 2, SIZE_WH[1] / 2]])
            second = harness.seconds(
                lambda: (
                    predictor.add_new_points_or_box(
                        state, frame_count // 2, 0, points=click, labels=[1]
                    ),
                    _propagate(predictor, state),
                ),
                repeats=1, warm_up=0,
            )
        results[label] = {"first": first, "second": second}
    return results


def _propagate(predictor, state) -> None:
    for _ in predictor.propagate_in_video(state):
        pass


def second_click() -> dict:
    """Seconds of the first and the second prediction on an image."""
    harness.threads_from_environment()
    config = model_config(TINY)
    predictor = SAM2ImagePredictor(our_predictor(config, default_dtype(torch.device("cpu"))).model)
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
    click = {"point_coords": np.array([[640, 360]]), "point_labels": np.array([1])}
    predictor.set_image(image)
    predictor.predict(**click)
    first = harness.seconds(lambda: (predictor.set_image(image), predictor.predict(**click)))
    return {"first": first, "second": harness.seconds(lambda: predictor.predict(**click))}


def peak_memory(frame_count: int, objects: int) -> dict:
    """Peak MiB of tracking a whole video with the small network, caches bounded."""
    harness.threads_from_environment()
    torch.manual_seed(0)
    predictor = our_predictor(DEMO, torch.float32)
    limits = StateLimits(feature_cache_bytes=16 * 2**20, history_bytes=2 * 2**20)
    with tempfile.TemporaryDirectory() as folder:
        video = harness.write_video(Path(folder) / "v.mp4", frame_count, (640, 360))
        before = harness.peak_memory_mib()
        state = predictor.init_state(video, limits=limits)
        for index, box in enumerate(harness.object_boxes(objects, (640, 360))):
            predictor.add_new_points_or_box(state, 0, index, box=box)
        seen = sum(1 for _ in predictor.propagate_in_video(state))
    return {"frames": seen, "before": before, "peak": harness.peak_memory_mib()}


def track_memory(frame_count: int, what: str) -> dict:
    """Peak MiB of `track` with the embedded model and two objects, and its masks' hash.

    `what`: "file", or "state": with the predictor's own budgets, as sessions have them and
    as `track` of a file had before it kept only what the next frame needs.
    """
    from converters.types import Box, Prompt
    from sam2_model import build_sam2_video_predictor
    from sam2_model.tracker import track

    harness.threads_from_environment()
    predictor = build_sam2_video_predictor("demo")
    masks = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        video = harness.write_video(Path(folder) / "v.mp4", frame_count, (640, 360))
        prompts = [
            Prompt(index, 0, box=Box(*box.tolist()))
            for index, box in enumerate(harness.object_boxes(2, (640, 360)))
        ]
        before = harness.peak_memory_mib()
        source = video if what == "file" else predictor.init_state(video)
        begin = time.perf_counter()
        for answer in track(source, prompts, predictor=predictor):
            masks.update(answer.masks.tobytes())
        seconds = time.perf_counter() - begin
    return {
        "frames": frame_count, "before": before, "peak": harness.peak_memory_mib(),
        "seconds": seconds, "masks": masks.hexdigest(),
    }


def embedded_speed(objects: int, skip: int, count: int) -> dict:
    """Frames a second of tracking an H.264 video with the embedded model, decoding included."""
    from converters.types import Box, Prompt
    from sam2_model import build_sam2_video_predictor
    from sam2_model.tracker import track

    harness.threads_from_environment()
    predictor = build_sam2_video_predictor("demo")
    with tempfile.TemporaryDirectory() as folder:
        video = harness.write_video(Path(folder) / "v.mp4", skip + count + 2, SIZE_WH)
        prompts = [
            Prompt(index, 0, box=Box(*box.tolist()))
            for index, box in enumerate(harness.object_boxes(objects, SIZE_WH))
        ]
        frames = track(video, prompts, predictor=predictor)
        each = harness.step_seconds(frames, skip=skip, count=count)
    dtype = str(predictor.model.dtype).removeprefix("torch.")
    return {"objects": objects, "frames_per_second": 1 / each, "dtype": dtype}


def bfloat16_agreement(frame_count: int) -> dict:
    """IoU of the embedded model's masks in bfloat16 with its own in float32."""
    from sam2_model import build_sam2_video_predictor

    harness.threads_from_environment()
    tracked = []
    with tempfile.TemporaryDirectory() as folder:
        frames = harness.write_frames(Path(folder) / "f", frame_count, SIZE_WH)
        for dtype in (torch.float32, torch.bfloat16):
            predictor = build_sam2_video_predictor("demo", device="cpu", dtype=dtype)
            state = predictor.init_state(frames)
            _prompt(predictor, state, 3)
            tracked.append(
                [(logits > 0).numpy() for _, _, logits in predictor.propagate_in_video(state)]
            )
    ious = [
        (a & b).sum() / max(1, (a | b).sum())
        for exact, rounded in zip(*tracked)
        for a, b in zip(exact, rounded)
    ]
    return {"mean": float(np.mean(ious)), "least": float(np.min(ious)), "masks": len(ious)}


def growth(axis: str, value: int) -> dict:
    """Seconds a frame as one thing grows: objects, memory length, image size, frame number."""
    harness.threads_from_environment()
    config = model_config(TINY)
    objects, skip = 1, 7
    if axis == "objects":
        objects, config = value, dataclasses.replace(config, image_size=512)
    elif axis == "memories":
        config = dataclasses.replace(config, num_maskmem=value)
    elif axis == "image size":
        config = dataclasses.replace(config, image_size=value)
    elif axis == "frame number":
        skip, config = value, dataclasses.replace(config, image_size=256)
    predictor = our_predictor(config, default_dtype(torch.device("cpu")))
    with tempfile.TemporaryDirectory() as folder:
        frames = harness.write_frames(Path(folder) / "f", skip + 4, SIZE_WH)
        state = predictor.init_state(frames)
        _prompt(predictor, state, objects)
        each = harness.step_seconds(predictor.propagate_in_video(state), skip=skip, count=3)
    return {"axis": axis, "value": value, "seconds": each}
