"""Data sets of mask folders as `evaluate` and `finetune` see them: masks, pictures, J and F."""

import json

import numpy as np
import pytest
from PIL import Image
from vos_benchmark.benchmark import benchmark

from backend.annotated import cases_of
from backend.cli import main
from converters.masks import encode_mask
from converters.report import Report
from sam2_model import build_sam2_video_predictor
from sam2_model.evaluation.metrics import contour_accuracy, region_similarity
from sam2_model.evaluation.semi_supervised import PromptKind, evaluate, prompts_of
from tests.sam2_model.small_model import small_predictor
from tests.video_files import write_video

SIZE_WH = (60, 40)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # Its handler would keep this test's captured stderr for all later ones.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


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
    ants, bees = cases_of(davis)
    assert (ants.name, bees.name) == ("ants", "bees")
    assert list(ants.annotations) == [0, 1, 2, 3] and ants.frame_count == 4
    assert sorted(bees.masks(0)) == [1] and sorted(bees.masks(1)) == [1, 2]
    assert bees.masks(1)[2].sum() == 10 * 20


def test_davis_2016_writes_its_object_white(tmp_path):
    write_frame(tmp_path / "JPEGImages/v/00000.jpg")
    path = tmp_path / "Annotations/v/00000.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(indices((255, slice(0, 4), slice(0, 4)))).save(path)
    (video,) = cases_of(tmp_path)
    assert {key: mask.sum() for key, mask in video.masks(0).items()} == {1: 16}


def test_the_void_index_belongs_to_no_object(tmp_path):
    write_frame(tmp_path / "JPEGImages/v/00000.jpg")
    write_indices(
        tmp_path / "Annotations/v/00000.png",
        indices((1, slice(0, 4), slice(0, 4)), (255, slice(10, 20), slice(0, 4))),
    )
    (video,) = cases_of(tmp_path)
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
    (video,) = cases_of(tmp_path)
    assert list(video.annotations) == [0, 4]
    masks = video.masks(4)
    assert sorted(masks) == [0, 1] and (masks[0] & masks[1]).sum() == 400


def evaluated(data, *arguments):
    return main(["evaluate", str(data), "--quiet", "--device", "cpu", *arguments])


def test_a_folder_that_is_no_data_set_is_named(davis, capsys):
    (davis / "Annotations").rename(davis / "Labels")
    with pytest.raises(ValueError, match="is no data set"):
        cases_of(davis)
    assert evaluated(davis) == 2
    assert "is no data set" in capsys.readouterr().err


def test_a_frame_without_its_picture_is_no_frame(davis, capsys):
    (davis / "JPEGImages/480p/ants/00002.jpg").unlink()
    with pytest.raises(ValueError, match="00002.png: annotates a frame that has no image"):
        cases_of(davis)
    (ants, _) = cases_of(davis, report=Report())
    assert (ants.annotations, ants.frame_count) == ([0, 1, 2], 3)
    # The third picture is the fourth frame.
    assert ants.masks(2)[1][5, 8:28].all() and not ants.masks(2)[1][5, 7]
    assert evaluated(davis) == 0
    assert "1 masks (annotates a frame" in capsys.readouterr().err


def test_a_mask_that_cannot_be_read_is_not_judged(davis, capsys, tmp_path):
    (davis / "Annotations/480p/ants/00001.png").write_bytes(b"no picture")
    ants = cases_of(davis, report=Report())[0]
    assert ants.annotations == [0, 2, 3] and ants.frame_count == 4
    out = tmp_path / "figures.json"
    assert evaluated(davis, "--videos", "ants", "--json", str(out)) == 0
    assert json.loads(out.read_text())["objects"][0]["frame_count"] == 1
    assert "ants/00001.png: is no readable image" in capsys.readouterr().err


def test_a_video_without_masks_costs_itself(davis, capsys):
    for path in (davis / "Annotations/480p/ants").iterdir():
        path.unlink()
    assert [case.name for case in cases_of(davis, report=Report())] == ["bees"]
    with pytest.raises(ValueError, match="holds no mask"):
        cases_of(davis)
    assert evaluated(davis, "--videos", "ants") == 2


def test_an_object_gone_at_the_end_is_judged_to_the_last_frame(davis):
    write_indices(davis / "Annotations/480p/ants/00003.png", indices())
    assert cases_of(davis)[0].annotations == [0, 1, 2, 3]


def test_pictures_between_the_annotated_ones_are_shown_to_the_model(tmp_path):
    """YouTube-VOS: every fifth frame has masks; object 2 enters with the second of them."""
    for t in range(11):
        write_frame(tmp_path / "JPEGImages/v" / f"{t:05d}.jpg")
    for t in (0, 5, 10):
        objects = [(1, slice(0, 9), slice(t, t + 9)), (2, slice(20, 30), slice(0, 9))]
        write_indices(tmp_path / f"Annotations/v/{t:05d}.png", indices(*objects[: 1 + (t > 0)]))
    (video,) = cases_of(tmp_path)
    assert (video.annotations, video.frame_count) == ([0, 5, 10], 11)
    assert sorted(video.masks(0)) == [1] and sorted(video.masks(5)) == [1, 2]
    assert video.masks(4) == {}
    assert [path.stem for path in video.source] == [f"{t:05d}" for t in range(11)]
    prompts = prompts_of(video, PromptKind.MASK)
    assert [(p.object_id, p.frame_index) for p in prompts] == [(1, 0), (2, 5)]
    (first, second) = evaluate(small_predictor(), [video])
    assert (first.frame_count, second.frame_count) == (1, 1)
    assert first.worst_frame == second.worst_frame == 5


def test_masks_of_a_sa_v_file_are_on_every_fourth_frame_of_its_video(tmp_path):
    write_video(tmp_path / "sav_1.mp4", 9, size=SIZE_WH)
    masks = []
    for t in (0, 4, 8):
        rle = encode_mask(indices((1, slice(0, 9), slice(t, t + 9))).astype(bool))
        masks.append([{"size": [rle.height, rle.width], "counts": rle.counts}])
    document = {
        "video_id": "sav_1", "video_frame_count": 9, "video_height": 40, "video_width": 60,
        "masklet": masks, "masklet_id": [7],
    }  # fmt: skip
    path = tmp_path / "sav_1_manual.json"
    path.write_text(json.dumps(document))
    (case,) = cases_of(path)
    assert case.annotations == [0, 4, 8]
    assert case.masks(4)[7][0, 4:13].all() and case.masks(4)[7].sum() == 81
    assert case.masks(1) == {}


def test_of_several_resolutions_davis_is_judged_at_480p(davis):
    for folder in ("JPEGImages", "Annotations"):
        (davis / folder / "1080p/ants").mkdir(parents=True)
    write_frame(davis / "JPEGImages/1080p/ants/00000.jpg")
    write_indices(davis / "Annotations/1080p/ants/00000.png", indices((9, slice(5), slice(5))))
    ants, _ = cases_of(davis)
    assert ants.source[0].parent.parent.name == "480p" and list(ants.masks(0)) == [1]


def test_an_unknown_video_is_named(davis):
    with pytest.raises(ValueError, match="'wasps' is not in"):
        cases_of(davis, only=["ants", "wasps"])


def test_each_object_is_shown_on_the_first_frame_that_has_it(davis):
    bees = cases_of(davis)[1]
    masks = prompts_of(bees, PromptKind.MASK)
    assert [(p.object_id, p.frame_index) for p in masks] == [(1, 0), (2, 1)]
    box = prompts_of(bees, PromptKind.BOX)[1].box
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == (30, 25, 50, 35)
    x, y = prompts_of(bees, PromptKind.CLICK)[1].points_xy[0]
    assert 30 < x < 50 and 25 < y < 35


def test_every_object_gets_its_figures(davis):
    results = list(evaluate(small_predictor(), cases_of(davis)))
    assert [(r.video, r.object_id) for r in results] == [("ants", 1), ("bees", 1), ("bees", 2)]
    # Of four annotated frames the first and the last do not count.
    assert [r.frame_count for r in results] == [2, 2, 2]
    for result in results:
        assert 0 <= result.region <= 1 and 0 <= result.contour <= 1
        assert result.worst_frame in (1, 2)
    kept = list(evaluate(small_predictor(), cases_of(davis), keep_ends=True))
    assert [r.frame_count for r in kept] == [4, 4, 3]


def test_the_command_prints_a_table_and_writes_json(davis, tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert evaluated(davis, "--prompt", "box", "--videos", "bees", "--json", str(out)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["video", "object", "J&F", "J", "F", "frames"]
    assert [line.split()[0] for line in printed[1:]] == ["bees", "bees", "mean", "object"]
    figures = json.loads(out.read_text())
    assert len(figures["objects"]) == 2 and figures["prompt"] == "box"
    mean = np.mean([line["region"] for line in figures["objects"]])
    assert figures["mean"]["J"] == pytest.approx(mean)


def test_the_worst_cases_are_drawn(davis, tmp_path, capsys):
    folder = tmp_path / "worst"
    assert evaluated(davis, "--overlays", str(folder)) == 0
    pictures = sorted(folder.iterdir())
    assert len(pictures) == 3
    worst = list(evaluate(build_sam2_video_predictor("demo"), cases_of(davis)))
    worst.sort(key=lambda result: result.region)
    assert pictures[0].name.startswith(f"00-{worst[0].video}-{worst[0].object_id}-")
    with Image.open(pictures[0]) as picture:
        assert picture.size == SIZE_WH
    assert "3 pictures of the worst cases" in capsys.readouterr().out


def test_vos_benchmark_gives_the_same_figures(davis, tmp_path):
    """The reference implementation, on shifted masks written as files."""
    predicted = tmp_path / "predicted"
    regions, contours = {}, {}
    for video in cases_of(davis):
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
