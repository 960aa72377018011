"""Other people's evaluators on what we write: perfect against itself, and less when it is not."""

import contextlib
import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from hotcoco import COCO as HotCOCO
from hotcoco import COCOeval as HotCOCOeval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from vos_benchmark.benchmark import benchmark

from converters.coco import save_coco, to_coco
from converters.davis import save_davis
from converters.masks import decode_mask, encode_mask
from converters.sav import save_sav
from converters.types import Track
from converters.youtube_vis import save_youtube_vis, save_youtube_vis_results
from tests import youtube_vis_judge
from tests.converters.cases import (
    ADVERSARIAL_MASKS,
    annotated_video,
    constant_rate_info,
    moving_track,
)

# pycocotools hands NumPy an __array__ without `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation", "ignore::FutureWarning")

VIDEOS = (annotated_video("one"), annotated_video("two"))


def frame_video(mask):
    info = constant_rate_info(1, width=mask.shape[1], height=mask.shape[0])
    name = f"{mask.shape[0]}x{mask.shape[1]}-{int(mask.sum())}"
    return annotated_video(name, info=info, tracks=[Track(1, ("Car",), {0: encode_mask(mask)})])


HARD = tuple({video.name: video for video in map(frame_video, ADVERSARIAL_MASKS.values())}.values())


# --- COCO ---------------------------------------------------------------------


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("videos", [VIDEOS, HARD], ids=["two videos", "hard masks"])
@pytest.mark.parametrize(
    ("coco", "evaluation"),
    [(COCO, COCOeval), (FasterCOCO, COCOeval_faster), (HotCOCO, HotCOCOeval)],
    ids=["pycocotools", "faster-coco-eval", "hotcoco"],
)
def test_coco_compared_with_itself_has_average_precision_one(tmp_path, coco, evaluation, videos, polygons):
    save_coco(tmp_path / "coco.json", videos, polygons=polygons)
    keys = ("image_id", "category_id", "segmentation", "bbox")
    results = [
        {**{k: a[k] for k in keys}, "score": 0.9} for a in to_coco(videos, polygons=False)["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco(str(tmp_path / "coco.json"))
        judged = evaluation(truth, truth.loadRes(str(tmp_path / "results.json")), "segm")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[0] == pytest.approx(1.0, abs=1e-12)


# --- YouTube-VIS --------------------------------------------------------------


def track_eval(folder, truth, results, categories=None):
    """(track AP, HOTA) of TrackEval, averaged over classes."""
    pytest.importorskip("trackeval", reason="installed apart: see the Makefile")
    return youtube_vis_judge.track_eval(
        folder,
        lambda path: save_youtube_vis(path, truth, categories=categories),
        lambda path: save_youtube_vis_results(path, results, categories=categories),
    )


def with_first_track(change):
    """VIDEOS, the first track of the first video changed."""
    first = VIDEOS[0]
    tracks = (change(first.tracks[0]), *first.tracks[1:])
    return (dataclasses.replace(first, tracks=tracks), VIDEOS[1])


def without_a_frame(track):
    masks = {frame: mask for frame, mask in track.masks.items() if frame != 7}
    return dataclasses.replace(track, masks=masks)


def a_frame_later(track):
    masks = {frame + 1: mask for frame, mask in track.masks.items() if frame < 9}
    return dataclasses.replace(track, masks=masks)


def test_youtube_vis_compared_with_itself_is_perfect(tmp_path):
    assert track_eval(tmp_path, VIDEOS, VIDEOS) == (1.0, 1.0)


@pytest.mark.parametrize("change", [without_a_frame, a_frame_later])
def test_youtube_vis_with_a_frame_dropped_or_shifted_is_not(tmp_path, change):
    _, hota = track_eval(tmp_path, VIDEOS, with_first_track(change))
    assert hota < 1.0


# --- DAVIS and SA-V -----------------------------------------------------------


def apart(video):
    """Objects side by side: DAVIS holds no overlap."""
    info = video.info
    left = moving_track(info, [0, 1, 2, 6, 7, 8, 9], object_id="a", speed=0.0)
    masks = {i: decode_mask(m) & (np.arange(info.width) >= 40) for i, m in left.masks.items()}
    right = {i: encode_mask(np.roll(decode_mask(m), 40, axis=1) & (np.arange(64) >= 40))
             for i, m in left.masks.items()}  # fmt: skip
    assert masks.keys() == right.keys()
    return dataclasses.replace(video, tracks=(left, Track("b", ("Dog",), right)))


def vos_benchmark(truth, predicted):
    (joint,), (regions,), (contours,), _ = benchmark(
        [str(truth)], [str(predicted)], num_processes=1, verbose=False, skip_first_and_last=False
    )
    return joint, regions, contours


def test_davis_compared_with_itself_is_perfect(tmp_path):
    videos = [apart(video) for video in VIDEOS]
    for name in ("truth", "ours"):
        save_davis(tmp_path / name, videos)
    folders = [tmp_path / name / "Annotations" / "Full-Resolution" for name in ("truth", "ours")]
    assert vos_benchmark(*folders) == (100.0, 100.0, 100.0)


def test_sav_compared_with_itself_is_perfect(tmp_path):
    """vos-benchmark takes a folder of PNGs for a video: here one an object."""
    for name in ("truth", "ours"):
        save_sav(tmp_path / name, VIDEOS, layout="folders")
        flat = tmp_path / f"{name} flat"
        for folder in sorted((tmp_path / name / "Annotations_6fps").glob("*/*")):
            shutil.copytree(folder, flat / f"{folder.parent.name}-{folder.name}")
    folders = [tmp_path / f"{name} flat" for name in ("truth", "ours")]
    assert vos_benchmark(*folders) == (100.0, 100.0, 100.0)


def test_davis_and_sav_say_the_same_to_the_benchmark(tmp_path):
    """The masks of one object, written as indices and as a binary PNG of its own."""
    track = moving_track(constant_rate_info(), range(10))
    videos = [annotated_video(tracks=[track])]
    save_davis(tmp_path / "davis", videos)
    save_sav(tmp_path / "sav", videos, layout="folders")
    (tmp_path / "flat").mkdir()
    shutil.copytree(tmp_path / "sav/Annotations_6fps/clip/000", tmp_path / "flat/clip")
    davis_folder = tmp_path / "davis/Annotations/Full-Resolution"
    assert vos_benchmark(davis_folder, tmp_path / "flat") == (100.0, 100.0, 100.0)
