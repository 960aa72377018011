"""Data set folders in, J and F out."""

import json

import numpy as np
import pytest
from PIL import Image

from sam2_model.evaluation.__main__ import main
from sam2_model.evaluation.datasets import open_data_set
from sam2_model.evaluation.semi_supervised import (
    PromptKind,
    evaluate,
    innermost_pixel,
    prompts_of,
)
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
    assert [line.split()[0] for line in printed[1:]] == ["bees", "bees", "mean"]
    figures = json.loads(out.read_text())
    assert len(figures["objects"]) == 2 and figures["prompt"] == "box"
    mean = np.mean([line["region"] for line in figures["objects"]])
    assert figures["mean"]["J"] == pytest.approx(mean)
