"""The demo's own parts; `make demo` itself needs the network once."""

import json

import numpy as np
import pytest

from backend import demo
from backend.exports import save_tracks
from converters.masks import encode_mask
from converters.types import Track, VideoInfo
from sam2_model.video import open_frame_source
from tests.backend.conftest import payload

INFO = VideoInfo(1280, 720, 132, 25.0, tuple(i / 25 for i in range(132)), 5.28)


def result_shape(call):
    """The context's first result, values replaced by their types."""

    def shape(value):
        if isinstance(value, dict):
            return {name: shape(item) for name, item in value.items()}
        if isinstance(value, list):
            return [shape(value[0])]
        return "number" if isinstance(value, (int, float)) and value is not True else type(value)

    return shape(call["params"]["context"]["result"][0])


def test_calls_have_the_shape_of_captured_ones():
    drawn = payload("predict_interactive_videorectangle")
    call = demo.video_call(INFO, "/data/local-files/?d=v.mp4")
    assert result_shape(call) == result_shape(drawn)
    assert set(call) == set(drawn) and set(call["params"]) == set(drawn["params"])
    clicked = payload("predict_interactive_image_valuelist_keypoints_pos_neg_two_frames")
    call = demo.frames_call(["/data/local-files/?d=f0.jpg"] * 22)
    assert result_shape(call) == result_shape(clicked)
    assert [r["is_positive"] for r in call["params"]["context"]["result"]] == [True, True, False]


def test_the_boxes_drawn_by_hand_are_on_frames_of_both_tasks():
    for frame, box in (demo.CHECKED_BOXES | {demo.PROMPT_FRAME: demo.PROMPT_BOX}).items():
        assert frame % demo.FRAME_STEP == 0 and frame < 132
        assert 0 <= box.x_min < box.x_max <= 1280 and 0 <= box.y_min < box.y_max <= 720


def test_the_iou_is_that_of_the_masks_box():
    box = demo.CHECKED_BOXES[60]
    mask = np.zeros((720, 1280), bool)
    mask[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)] = True
    assert demo.checked_iou(Track("a", ("R",), {10: encode_mask(mask)}), 60, 6) == 1.0
    assert demo.checked_iou(Track("a", ("R",), {}), 60, 6) == 0.0


@pytest.fixture
def files(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:20] = True
    track = Track("a", ("R",), {1: encode_mask(mask)})
    with open_frame_source([np.zeros((20, 30, 3), np.uint8)] * 3) as source:
        return save_tracks(tmp_path, "v", source, [track])


def test_good_files_pass_the_checks(files):
    demo.check_coco(files[0], 3, 1)
    demo.check_youtube_vis(files[1], 3, 1)


def test_bad_files_do_not(files):
    with pytest.raises(demo.DemoError, match="must have 2"):
        demo.check_coco(files[0], 3, 2)
    with pytest.raises(demo.DemoError, match="must have 2"):
        demo.check_youtube_vis(files[1], 3, 2)
    data = json.loads(files[0].read_text())
    data["annotations"][0]["area"] += 1
    files[0].write_text(json.dumps(data))
    with pytest.raises(demo.DemoError, match="area"):
        demo.check_coco(files[0], 3, 1)
    data = json.loads(files[1].read_text())
    data["annotations"][0]["areas"][1] = None
    files[1].write_text(json.dumps(data))
    with pytest.raises(demo.DemoError, match="both there and not"):
        demo.check_youtube_vis(files[1], 3, 1)


def test_a_changed_video_is_refused(tmp_path):
    (tmp_path / "bigbuckbunny.mp4").write_bytes(b"other")
    with pytest.raises(demo.DemoError, match="SHA-256"):
        demo.fetch_video(tmp_path)
