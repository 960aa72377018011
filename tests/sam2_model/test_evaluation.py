"""What is judged by, and the data that come without a data set's folder."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sam2_model.evaluation.__main__ import main
from sam2_model.evaluation.overlays import overlay
from sam2_model.evaluation.semi_supervised import innermost_pixel
from sam2_model.evaluation.synthetic_clips import held_out_clips


def test_the_click_is_far_from_every_edge():
    mask = np.zeros((50, 50), dtype=bool)
    mask[10:13, :] = True
    mask[5:26, 20:41] = True
    assert innermost_pixel(mask) == (30.5, 15.5)
    one = np.zeros((3, 3), dtype=bool)
    one[2, 0] = True
    assert innermost_pixel(one) == (0.5, 2.5)


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


def test_a_data_set_of_masks_is_for_the_other_command(tmp_path, capsys):
    (tmp_path / "Annotations").mkdir()
    assert main([str(tmp_path)]) == 2
    assert "use: sam2-label-studio evaluate" in capsys.readouterr().err
