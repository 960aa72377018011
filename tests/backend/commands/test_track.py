"""`track`: prompts of all kinds in, tracks.json out, and mistakes said in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from backend.cli import main
from converters.masks import decode_mask
from converters.tracks_json import load_tracks
from tests.backend.conftest import FRAME_COUNT, SIZE

BOX = "70,50,150,130"
"""Around the disc on frame 0."""


@pytest.fixture
def video(media_root):
    return media_root / "n25.mp4"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "tracks.json"


def tracks(path):
    (found,) = load_tracks(path)
    return {track.object_id: track for track in found.tracks}


def test_boxes_become_objects_with_ids_and_labels(run, video, out):
    status, said, _ = run(
        "track", video, "--box", f"0:{BOX}", "--box", "3:90,60,180,150:7:Car",
        "--label", "thing", "--out", out,
    )
    assert status == 0 and f"{FRAME_COUNT} frames in" in said and str(out) in said
    found = tracks(out)
    assert {key: track.labels for key, track in found.items()} == {1: ("thing",), 7: ("Car",)}
    assert sorted(found[1].scores) == list(range(FRAME_COUNT))
    assert sorted(found[7].scores) == list(range(3, FRAME_COUNT))  # from its own prompt on
    assert found[1].masks.keys() >= set(range(FRAME_COUNT))


def test_points_go_to_the_only_object_and_a_minus_is_background(run, video, out):
    status, *_ = run(
        "track", video, "--box", f"0:{BOX}", "--point", "0:110,90", "--point", "0:5,5:-",
        "--out", out, "--stop", 1,
    )
    (track,) = tracks(out).values()
    mask = decode_mask(track.masks[0])
    assert status == 0 and mask[90, 110] and not mask[5, 5]


def test_percent_and_pixels_give_the_same(run, video, out, tmp_path):
    width, height = SIZE
    percent = f"0:{70 / width:%},{50 / height:%},{150 / width:%},{130 / height:%}".replace("%", "")
    assert run("track", video, "--box", f"0:{BOX}", "--out", out, "--stop", 2)[0] == 0
    other = tmp_path / "percent.json"
    assert run("track", video, "--box", percent, "--percent", "--out", other, "--stop", 2)[0] == 0
    pairs = zip(tracks(out)[1].masks.values(), tracks(other)[1].masks.values())
    assert all((decode_mask(a) == decode_mask(b)).mean() > 0.999 for a, b in pairs)


def test_a_mask_and_a_file_of_prompts_are_taken(run, video, out, tmp_path):
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[50:130, 70:150] = 1
    Image.fromarray(mask).save(tmp_path / "disc.png")
    prompts = [
        {"frame": 1, "object": "b", "label": "Dog", "box": [76, 54, 158, 134]},
        {"frame": 2, "object": "b", "points": [[126, 98], [3, 3, 0]]},
        {"frame": 0, "object": "c", "mask": "disc.png"},
    ]
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    status, *_ = run(
        "track", video, "--mask", f"0:{tmp_path / 'disc.png'}:a", "--prompts",
        tmp_path / "prompts.json", "--out", out, "--stop", 3,
    )
    found = tracks(out)
    assert status == 0 and list(found) == ["a", "b", "c"]
    assert found["b"].labels == ("Dog",) and found["c"].labels == ("object",)
    assert decode_mask(found["a"].masks[0]).sum() > 1000


@pytest.mark.parametrize(
    ("direction", "options", "frames"),
    [
        ("forward", [], range(4, FRAME_COUNT)),
        ("backward", [], range(0, 5)),
        ("both", [], range(0, FRAME_COUNT)),
        ("both", ["--start", "3", "--stop", "6"], range(3, 6)),
        ("forward", ["--stop", "5"], range(4, 5)),
    ],
)
def test_direction_and_range_decide_the_frames(run, video, out, direction, options, frames):
    arguments = ["track", video, "--box", "4:102,66,182,146", "--direction", direction]
    assert run(*arguments, *options, "--out", out)[0] == 0
    assert sorted(tracks(out)[1].scores) == list(frames)


def test_the_tracks_convert_and_a_preview_is_drawn(run, video, out, tmp_path):
    sheet, coco = tmp_path / "sheet.png", tmp_path / "coco.json"
    assert run("track", video, "--box", f"0:{BOX}", "--out", out, "--preview", sheet)[0] == 0
    with Image.open(sheet) as image:
        assert image.width > 1000
    assert run("convert", out, "--to", "coco", "--out", coco)[0] == 0
    annotations = json.loads(coco.read_text())["annotations"]
    assert {item["track_id"] for item in annotations} == {1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "99:1,1,9,9"], "the video has frames [0, 8)"),
        (["--box", "0:1,1,9,9", "--model", "sam3"], "model name 'sam3' is not known"),
        (["--box", "0:1,1,9,9", "--checkpoint", "/none.pt"], "no such checkpoint file"),
        (["--box", "0:1,1,9,9", "--start", "5", "--stop", "5"], "0 <= start < stop <= 8"),
        (["--box", "0:1,1,9,9", "--preview", "p.txt"], "must end in .mp4, .gif or .png"),
        ([], "nothing to follow"),
        (["--box", "0:1,1,9,9:a", "--box", "0:2,2,9,9:b", "--point", "0:1,1"], "says no object"),
        (["--box", "0:1,1,9,9:a:Car", "--box", "1:2,2,9,9:a:Dog"], "has the labels 'Car' and"),
        (["--point", "0:500,1"], "must lie in the picture of 320 x 240"),
        (["--mask", "0:/none.png"], "/none.png"),
        (["--prompts", "/none.json"], "/none.json"),
    ],
)
def test_a_mistake_is_said_in_a_line(run, video, out, arguments, message):
    status, _, said = run("track", video, "--out", out, *arguments)
    assert status == 2 and message in said and said.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--box", "1,2,3,4", "parts between colons"),
        ("--box", "0:1,2,3", "must be 4 numbers"),
        ("--box", "0:a,b,c,d", "must be 4 numbers"),
        ("--box", "0:nan,1,2,3", "must be 4 numbers"),
        ("--box", "0:9,9,1,1", "must have x_min"),
        ("--box", "0:10,10,10,20", "has no area"),
        ("--box", "-1:1,1,2,2", "frame '-1'"),
        ("--box", "0:1,1,2,2:a:b:c", "parts between colons"),
        ("--point", "0:1,2:x:y", "'x' must be -"),
        ("--point", "x:1,2", "frame 'x'"),
        ("--mask", "nothing", "must be FRAME:FILE"),
    ],
)
def test_a_prompt_that_is_none_is_refused_by_its_text(capsys, option, text, message):
    with pytest.raises(SystemExit):
        main(["track", "v.mp4", f"{option}={text}", "--out", "out.json"])
    said = capsys.readouterr().err
    assert message in said and repr(text) in said


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "must be an object"),
        ({"frame": 0}, "must have a box, points or a mask"),
        ({"box": [0, 0, 1, 1]}, "frame: must be a whole number"),
        ({"frame": 0, "box": [0, 0, 1]}, "has 3 numbers, must have 4"),
        ({"frame": 0, "points": [[1, 2, 3]]}, "points[0]: must be [x, y]"),
        ({"frame": 0, "points": []}, "at least one point"),
        ({"frame": 0, "mask": "m.png", "box": [0, 0, 1, 1]}, "a mask stands alone"),
        ({"frame": 0, "boxes": [0, 0, 1, 1]}, "boxes: is not known"),
    ],
)
def test_a_bad_entry_of_a_prompt_file_is_named(run, video, out, tmp_path, entry, message):
    file = tmp_path / "p.json"
    file.write_text(json.dumps([entry]))
    status, _, said = run("track", video, "--prompts", file, "--out", out)
    assert status == 2 and "p.json: [0]" in said and message in said


@pytest.mark.parametrize("content", [b"no image", b""])
def test_a_mask_that_is_no_image_is_named(run, video, out, tmp_path, content):
    (tmp_path / "m.png").write_bytes(content)
    status, _, said = run("track", video, "--mask", f"0:{tmp_path / 'm.png'}", "--out", out)
    assert status == 2 and "m.png is not an image" in said


@pytest.mark.parametrize(
    ("size", "value", "message"),
    [((10, 10), 1, "must have the video's 320 x 240"), (SIZE, 0, "is black or transparent all over")],
)
def test_a_mask_of_another_size_or_with_nothing_is_refused(
    run, video, out, tmp_path, size, value, message
):
    Image.new("L", size, value).save(tmp_path / "m.png")
    status, _, said = run("track", video, "--mask", f"0:{tmp_path / 'm.png'}", "--out", out)
    assert status == 2 and message in said


def test_a_missing_video_is_said(run, tmp_path):
    status, _, said = run("track", tmp_path / "no.mp4", "--box", "0:1,1,2,2", "--out", "o.json")
    assert status == 2 and "no such video file" in said
