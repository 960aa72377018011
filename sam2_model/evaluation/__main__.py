"""`python -m sam2_model.evaluation DATASET`: J and F of a model on a data set.

The folder is in DAVIS, YouTube-VOS or SA-V layout. With DAVIS 2017 val and
`--model sam2.1_hiera_large`, this is the published measurement.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from sam2_model import build_sam2_video_predictor
from sam2_model.build import DOWNLOAD
from sam2_model.evaluation.datasets import open_data_set
from sam2_model.evaluation.semi_supervised import ObjectResult, PromptKind, evaluate


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sam2_model.evaluation", description=__doc__)
    parser.add_argument("data_set", type=Path, help="folder in DAVIS, YouTube-VOS or SA-V layout")
    parser.add_argument("--model", default="demo", help="a model's name (default: demo)")
    parser.add_argument("--checkpoint", default=DOWNLOAD, help="a file of weights for the model")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument(
        "--prompt", default="mask", choices=list(PromptKind),
        help="what the first frame shows of an object (default: mask, as in DAVIS)",
    )
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--keep-ends", action="store_true",
        help="judge the first and last frames too (DAVIS does not)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    options = parser.parse_args(arguments)
    try:
        videos = open_data_set(options.data_set, options.videos)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    predictor = build_sam2_video_predictor(
        options.model, options.checkpoint, device=options.device
    )
    results: list[ObjectResult] = []
    print(f"{'video':24} {'object':>6} {'J&F':>6} {'J':>6} {'F':>6} {'frames':>6}")
    for number, video in enumerate(videos, start=1):
        def show(done: int, total: int) -> None:
            if not options.quiet and sys.stderr.isatty():
                print(
                    f"\r{number}/{len(videos)} {video.name} {done}/{total}\x1b[K",
                    end="\r" if done < total else "\r\x1b[K", file=sys.stderr, flush=True,
                )

        for result in evaluate(
            predictor, [video], PromptKind(options.prompt),
            keep_ends=options.keep_ends, progress=show,
        ):
            results.append(result)
            print(_line(result.video, str(result.object_id), [result], result.frame_count))
    print(_line("mean over objects", str(len(results)), results, sum(r.frame_count for r in results)))
    if options.json:
        options.json.write_text(json.dumps(report(results, options), indent=1) + "\n")
    return 0


def report(results: list[ObjectResult], options) -> dict:
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
        "objects": [asdict(result) for result in results],
    }


def _line(name: str, object_id: str, results: list[ObjectResult], frames: int) -> str:
    figures = (
        np.mean([r.region_and_contour for r in results]),
        np.mean([r.region for r in results]),
        np.mean([r.contour for r in results]),
    )
    cells = " ".join(f"{100 * value:6.1f}" for value in figures)
    return f"{name:24} {object_id:>6} {cells} {frames:6d}"


if __name__ == "__main__":
    raise SystemExit(main())
