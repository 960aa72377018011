"""Data set folders in, J and F out."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from vos_benchmark.benchmark import benchmark

from sam2_model import build_sam2_video_predictor
from sam2_model.evaluation.__main__ import main
from sam2_model.evaluation.datasets import open_data_set
from sam2_model.evaluation.metrics import contour_accuracy, region_similarity
from sam2_model.evaluation.overlays import overlay
from sam2_model.evaluation.semi_supervised import (
    PromptKind,
    evaluate,
    innermost_pixel,
    prompts_of,
)
from sam2_model.evaluation.synthetic_clips import held_out_clips
from tests.sam2_model.small_model import small_predictor

SIZE_WH = (60, 40)


def write_frame(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_WH, (90, 120, 60)).save(path)


def write_indices(path, indices: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [9] * 759)
    picture.save(path)


def indices(*objects: tuple[int, slice, slice]) -> np.ndarray:
    out = np.zeros(SIZE_WH[::-1], dtype=np.uint8)
    for value, rows, columns in objects:
        out[rows, columns] = value
    return out


@pytest.fixture
def davis(tmp_path):
    """Two videos of four frames; in the second, object 2 enters on frame 1."""
    for video in ("ants", "bees"):
        for t in range(4):
            write_frame(tmp_path / "JPEGImages/480p" / video / f"{t:05d}.jpg")
            objects = [(1, slice(5, 20), slice(5 + t, 25 + t))]
            if video == "bees" and t >= 1:
                objects.append((2, slice(25, 35), slice(30, 50)))
            write_indices(
                tmp_path / "Annotations/480p" / video / f"{t:05d}.png", indices(*objects)
            )
    return tmp_path


def test_davis_masks_are_told_apart_by_index(davis):
    ants, bees = open_data_set(davis)
    assert (ants.name, bees.name) == ("ants", "bees")
    assert list(ants.annotations) == [0, 1, 2, 3] and len(ants.frames) == 4
    assert sorted(bees.masks(0)) == [1] and sorted(bees.masks(1)) == [1, 2]
    assert bees.masks(1)[2].sum() == 10 * 20


def test_davis_2016_writes_its_object_white(tmp_path):
    write_frame(tmp_path / "JPEGImages/v/00000.jpg")
    path = tmp_path / "Annotations/v/00000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(indices((255, slice(0, 4), slice(0, 4)))).save(path)
    (video,) = open_data_set(tmp_path)
    assert {key: mask.sum() for key, mask in video.masks(0).items()} == {1: 16}


def test_the_void_index_belongs_to_no_object(tmp_path):
    write_frame(tmp_path / "JPEGImages/v/00000.jpg")
    write_indices(
        tmp_path / "Annotations/v/00000.png",
        indices((1, slice(0, 4), slice(0, 4)), (255, slice(10, 20), slice(0, 4))),
    )
    (video,) = open_data_set(tmp_path)
    assert sorted(video.masks(0)) == [1]


def test_sa_v_masks_may_overlap_and_skip_frames(tmp_path):
    for t in range(5):
        write_frame(tmp_path / "JPEGImages_24fps/sav_1" / f"{t:05d}.jpg")
    for number in ("000", "001"):
        for t in (0, 4):
            write_indices(
                tmp_path / "Annotations_6fps/sav_1" / number / f"{t:05d}.png",
                indices((1, slice(0, 20), slice(0, 20 + int(number)))),
            )
    (video,) = open_data_set(tmp_path)
    assert list(video.annotations) == [0, 4]
    masks = video.masks(4)
    assert sorted(masks) == [0, 1] and (masks[0] & masks[1]).sum() == 400


@pytest.mark.parametrize(
    "break_it, says",
    [
        (lambda d: (d / "Annotations").rename(d / "Labels"), "is not a data set"),
        (lambda d: (d / "JPEGImages/480p/ants/00002.jpg").unlink(), "00002.png annotates a frame"),
        (
            lambda d: [p.unlink() for p in (d / "Annotations/480p/ants").iterdir()],
            "'ants' has no annotation",
        ),
    ],
)
def test_a_broken_data_set_is_named(davis, break_it, says, capsys):
    break_it(davis)
    with pytest.raises((FileNotFoundError, ValueError), match=says):
        open_data_set(davis)
    assert main([str(davis)]) == 2
    assert says in capsys.readouterr().err


def test_an_unknown_video_is_named(davis):
    with pytest.raises(ValueError, match="'wasps' is not in"):
        open_data_set(davis, ["ants", "wasps"])


def test_a_coloured_mask_is_refused(davis):
    path = davis / "Annotations/480p/ants/00001.png"
    Image.new("RGB", SIZE_WH).save(path)
    with pytest.raises(ValueError, match="mode RGB"):
        open_data_set(davis)[0].masks(1)


def test_each_object_is_shown_on_the_first_frame_that_has_it(davis):
    bees = open_data_set(davis)[1]
    masks = prompts_of(bees, PromptKind.MASK)
    assert [(p.object_id, p.frame_index) for p in masks] == [(1, 0), (2, 1)]
    box = prompts_of(bees, PromptKind.BOX)[1].box
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (30, 25, 50, 35)
    x, y = prompts_of(bees, PromptKind.CLICK)[1].points_xy[0]
    assert 30 < x < 50 and 25 < y < 35


def test_the_click_is_far_from_every_edge():
    mask = np.zeros((50, 50), dtype=bool)
    mask[10:13, :] = True
    mask[5:26, 20:41] = True
    assert innermost_pixel(mask) == (30.5, 15.5)
    one = np.zeros((3, 3), dtype=bool)
    one[2, 0] = True
    assert innermost_pixel(one) == (0.5, 2.5)


def test_every_object_gets_its_figures(davis):
    results = list(evaluate(small_predictor(), open_data_set(davis)))
    assert [(r.video, r.object_id) for r in results] == [("ants", 1), ("bees", 1), ("bees", 2)]
    # Of four annotated frames the first and the last do not count.
    assert [r.frame_count for r in results] == [2, 2, 2]
    for result in results:
        assert 0 <= result.region <= 1 and 0 <= result.contour <= 1
        assert result.worst_frame in (1, 2)
    kept = list(evaluate(small_predictor(), open_data_set(davis), keep_ends=True))
    assert [r.frame_count for r in kept] == [4, 4, 3]


def test_the_command_prints_a_table_and_writes_json(davis, tmp_path, capsys):
    out = tmp_path / "figures.json"
    arguments = [str(davis), "--prompt", "box", "--videos", "bees", "--json", str(out), "--quiet"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["video", "object", "J&F", "J", "F", "frames"]
    assert [line.split()[0] for line in printed[1:]] == ["bees", "bees", "mean", "object"]
    figures = json.loads(out.read_text())
    assert len(figures["objects"]) == 2 and figures["prompt"] == "box"
    mean = np.mean([line["region"] for line in figures["objects"]])
    assert figures["mean"]["J"] == pytest.approx(mean)


def test_the_worst_cases_are_drawn(davis, tmp_path, capsys):
    folder = tmp_path / "worst"
    assert main([str(davis), "--quiet", "--overlays", str(folder)]) == 0
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 3
    worst = list(evaluate(build_sam2_video_predictor("demo"), open_data_set(davis)))
    worst.sort(key=lambda result: result.region)
    assert pictures[0].name.startswith(f"00-{worst[0].video}-{worst[0].object_id}-")
    with Image.open(pictures[0]) as picture:
        assert picture.size == SIZE_WH
    assert "3 pictures of the worst cases" in capsys.readouterr().out


def test_an_overlay_fills_the_answer_and_outlines_the_truth():
    answered, true = np.zeros((2, 60, 60), dtype=bool)
    answered[30:40, 5:20] = True
    true[30:50, 30:55] = True
    pixels = np.asarray(overlay(np.zeros((60, 60, 3), np.uint8), answered, true, ""))
    assert pixels[35, 10].tolist() == [115, 48, 0]
    assert pixels[40, 42].tolist() == [0, 0, 0], "the inside of the true mask stays as it is"
    assert pixels[40, 30].tolist() == [94, 240, 255]


def test_synthetic_clips_are_judged_on_every_frame(capsys, tmp_path):
    out = tmp_path / "figures.json"
    arguments = ["synthetic", "--clips", "1", "--prompt", "box", "--quiet", "--json", str(out)]
    assert main(arguments) == 0
    figures = json.loads(out.read_text())
    assert all(line["frame_count"] == 22 for line in figures["objects"])
    assert "object presence known" in capsys.readouterr().out
    (clip,) = held_out_clips(1)
    (again,) = held_out_clips(1)
    assert np.array_equal(clip.clip.frames, again.clip.frames)
    assert [clip.name for clip in held_out_clips(2, first=7)] == ["clip-0007", "clip-0008"]
    assert clip.clip.frames.shape == (24, 360, 480, 3)


def write_box_clips(folder, **changes) -> Path:
    """A 10-frame video of a bright square that moves right, with its boxes in percent."""
    frames = np.full((10, 48, 64, 3), 40, dtype=np.uint8)
    for t, frame in enumerate(frames):
        frame[12:36, 4 + 2 * t : 28 + 2 * t] = (220, 60, 30)
    with av.open(str(folder / "square.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    boxes = {
        str(t): [100 * (4 + 2 * t) / 64, 25, 100 * (28 + 2 * t) / 64, 75] for t in (0, 5, 8)
    }
    entry = {"prompt": 0, "boxes": boxes} | changes
    path = folder / "boxes.json"
    path.write_text(json.dumps({"clips": {"square.mp4": entry}}))
    return path


def test_boxes_of_masks_are_compared_with_drawn_boxes(tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert main([str(write_box_clips(tmp_path)), "--quiet", "--json", str(out)]) == 0
    (clip,) = json.loads(out.read_text())["clips"]
    assert sorted(clip["ious"]) == ["5", "8"]
    assert clip["mean_iou"] == pytest.approx(np.mean(list(clip["ious"].values())))
    assert "mean over clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"prompt": 3}, "no box on its prompt frame 3"),
        ({"prompt": 8}, "no box after its prompt frame 8"),
        ({"boxes": {"0": [0, 0, 50, 50], "40": [0, 0, 50, 50]}}, "frame 40 of 10"),
        ({"boxes": {"0": [60, 0, 50, 50], "5": [0, 0, 50, 50]}}, r"frame 0: box \[60"),
        ({"boxes": {"0": [0, 0, 50, 500], "5": [0, 0, 50, 50]}}, "in percent"),
        ({"boxes": [1]}, "does not list clips"),
    ],
)
def test_bad_box_clips_are_named(tmp_path, changes, says, capsys):
    assert main([str(write_box_clips(tmp_path, **changes)), "--quiet"]) == 2
    assert re.search(says, capsys.readouterr().err)


def test_vos_benchmark_gives_the_same_figures(davis, tmp_path):
    """The reference implementation, on shifted masks written as files."""
    predicted = tmp_path / "predicted"
    regions, contours = {}, {}
    for video in open_data_set(davis):
        for t in sorted(video.annotations):
            out = np.zeros(SIZE_WH[::-1], dtype=np.uint8)
            for object_id, mask in video.masks(t).items():
                out[np.roll(mask, (object_id, 2 * t), axis=(0, 1))] = object_id
            write_indices(predicted / video.name / f"{t:05d}.png", out)
            if not 0 < t < len(video.annotations) - 1:
                continue
            for object_id, mask in video.masks(t).items():
                key = (video.name, object_id)
                regions.setdefault(key, []).append(region_similarity(out == object_id, mask))
                contours.setdefault(key, []).append(contour_accuracy(out == object_id, mask))
    *_, (theirs,) = benchmark(
        [str(davis / "Annotations/480p")], [str(predicted)], num_processes=1, verbose=False
    )
    for (video, object_id), values in regions.items():
        their_regions, their_contours = theirs[video]
        assert 100 * np.mean(values) == pytest.approx(their_regions[object_id], abs=1e-6)
        assert 100 * np.mean(contours[video, object_id]) == pytest.approx(
            their_contours[object_id], abs=1e-6
        )
