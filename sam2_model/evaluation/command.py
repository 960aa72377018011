"""The evaluate command: figures of a model on a data set, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
from tqdm import tqdm

from sam2_model import build_sam2_video_predictor
from sam2_model.build import DOWNLOAD
from sam2_model.evaluation.box_clips import BoxResult, evaluate_boxes, lists_boxes, load_box_clips
from sam2_model.evaluation.options import SYNTHETIC
from sam2_model.evaluation.overlays import save_worst
from sam2_model.evaluation.semi_supervised import ObjectResult, PromptKind, TrueVideo, evaluate
from sam2_model.evaluation.synthetic_clips import held_out_clips
from sam2_model.video_predictor import SAM2VideoPredictor

OpenVideos = Callable[[argparse.Namespace], Sequence[TrueVideo]]


def run(options: argparse.Namespace, open_videos: OpenVideos | None = None) -> int:
    """Evaluate by parsed options (`options.add_options`) and print; the exit status.

    Args:
        open_videos: opens `options.data` as a data set of masks, which this
            package reads none of; None: such data is an error.
    """
    try:
        report = _run(options, open_videos or _refuse)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _refuse(options: argparse.Namespace) -> Sequence[TrueVideo]:
    raise ValueError(
        f"{options.data} is neither {SYNTHETIC!r} nor a file that lists boxes; for a data set of "
        "masks use: sam2-label-studio evaluate"
    )


def _run(options: argparse.Namespace, open_videos: OpenVideos) -> dict:
    if options.data != SYNTHETIC and lists_boxes(Path(options.data)):
        clips = load_box_clips(Path(options.data))
        return _run_boxes(_predictor(options), clips, options)
    if options.data == SYNTHETIC:
        if options.clips < 1:
            raise ValueError(f"--clips {options.clips} must be at least 1")
        if options.first_clip < 0:
            raise ValueError(f"--first-clip {options.first_clip} must not be negative")
        videos: Sequence[TrueVideo] = list(
            held_out_clips(options.clips, options.materials, first=options.first_clip)
        )
    else:
        videos = open_videos(options)
    return _run_masks(_predictor(options), videos, options)


def _predictor(options: argparse.Namespace) -> SAM2VideoPredictor:
    return build_sam2_video_predictor(
        options.model, options.checkpoint or DOWNLOAD, device=options.device
    )


def _progress(total: int, options: argparse.Namespace) -> tqdm:
    # disable=None: no bar where nobody is looking.
    return tqdm(
        total=total, unit="frame", leave=False, disable=True if options.quiet else None
    )


def _run_masks(predictor, videos: Sequence[TrueVideo], options: argparse.Namespace) -> dict:
    results: list[ObjectResult] = []
    print(f"{'video':24} {'object':>6} {'J&F':>6} {'J':>6} {'F':>6} {'frames':>6}")
    with _progress(sum(video.frame_count for video in videos), options) as bar:
        for video in videos:
            bar.set_description(video.name)
            for result in evaluate(
                predictor, [video], PromptKind(options.prompt),
                keep_ends=options.keep_ends, progress=lambda done, total: bar.update(),
            ):
                results.append(result)
                line = _line(result.video, str(result.object_id), [result], result.frame_count)
                tqdm.write(line, file=sys.stdout)
    if not results:
        raise ValueError(f"{options.data}: no object is seen on a frame that is judged")
    frames = sum(result.frame_count for result in results)
    print(_line("mean over objects", str(len(results)), results, frames))
    presence = np.mean([result.presence_accuracy for result in results])
    print(f"object presence known on {100 * presence:.1f} % of frames")
    if options.overlays:
        written = save_worst(results, videos, options.overlays)
        print(f"{len(written)} pictures of the worst cases in {options.overlays}")
    return report(results, options)


def _run_boxes(predictor, clips, options: argparse.Namespace) -> dict:
    results: list[BoxResult] = []
    for clip in clips:
        with _progress(max(clip.boxes) - clip.prompt_frame + 1, options) as bar:
            result = evaluate_boxes(predictor, clip, lambda done, total: bar.update())
        results.append(result)
        each = " ".join(f"{frame}: {100 * iou:.1f}" for frame, iou in result.ious.items())
        print(f"{result.video:32} box IoU {100 * result.mean_iou:5.1f}   {each}")
    mean = float(np.mean([result.mean_iou for result in results]))
    print(f"{'mean over clips':32} box IoU {100 * mean:5.1f}")
    return {
        "model": options.model,
        "mean": {"box_iou": mean},
        "clips": [asdict(result) for result in results],
    }


def report(results: list[ObjectResult], options: argparse.Namespace) -> dict:
    """The figures as plain data."""
    return {
        "model": options.model,
        "prompt": options.prompt,
        "mean": {
            "J": float(np.mean([r.region for r in results])),
            "F": float(np.mean([r.contour for r in results])),
            "J&F": float(np.mean([r.region_and_contour for r in results])),
            "presence_accuracy": float(np.mean([r.presence_accuracy for r in results])),
        },
        "objects": [
            {key: value for key, value in asdict(result).items() if key != "worst_mask"}
            for result in results
        ],
    }


def _line(name: str, object_id: str, results: list[ObjectResult], frames: int) -> str:
    figures = (
        np.mean([r.region_and_contour for r in results]),
        np.mean([r.region for r in results]),
        np.mean([r.contour for r in results]),
    )
    cells = " ".join(f"{100 * value:6.1f}" for value in figures)
    return f"{name:24} {object_id:>6} {cells} {frames:6d}"
