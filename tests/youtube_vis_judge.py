"""TrackEval on YouTube-VIS files."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np

_QUIET = {"PRINT_CONFIG": False}


def track_eval(
    folder: Path, write_truth: Callable[[Path], object], write_results: Callable[[Path], object]
) -> tuple[float, float]:
    """(track AP, HOTA), averaged over classes; the functions write the files they are given."""
    truth_folder = folder / "gt" / "youtube_vis_val"
    data = folder / "tr" / "youtube_vis_val" / "ours" / "data"
    truth_folder.mkdir(parents=True)
    data.mkdir(parents=True)
    write_truth(truth_folder / "gt.json")
    write_results(data / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        judged = _judge(folder)
    classes = judged["YouTubeVIS"]["ours"]["COMBINED_SEQ"]["cls_comb_cls_av"]
    return float(np.mean(classes["TrackMAP"]["AP_all"])), float(np.mean(classes["HOTA"]["HOTA"]))


def _judge(folder: Path) -> dict:
    import trackeval  # installed apart: see the Makefile

    dataset = trackeval.datasets.YouTubeVIS(
        {
            "GT_FOLDER": f"{folder}/gt/",
            "TRACKERS_FOLDER": f"{folder}/tr/",
            "SPLIT_TO_EVAL": "val",
            **_QUIET,
        }
    )
    evaluator = trackeval.Evaluator(
        {
            "PRINT_RESULTS": False,
            "PLOT_CURVES": False,
            "TIME_PROGRESS": False,
            "OUTPUT_SUMMARY": False,
            "OUTPUT_EMPTY_CLASSES": False,
            "OUTPUT_DETAILED": False,
            "BREAK_ON_ERROR": True,
            "LOG_ON_ERROR": None,
            **_QUIET,
        }
    )
    track_map = {**_QUIET, "USE_TIME_RANGES": False, "USE_AREA_RANGES": False}
    metrics = [trackeval.metrics.TrackMAP(track_map), trackeval.metrics.HOTA(_QUIET)]
    return evaluator.evaluate([dataset], metrics)[0]
