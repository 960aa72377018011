"""The command line: `track` writes the files, and mistakes are said in one line."""

import json

import pytest
from PIL import Image

from backend.cli import main
from converters.tracks_json import load_tracks
from tests.backend.conftest import FRAME_COUNT


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch, checkpoint):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_MODEL", "SAM2_DIRECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAM2_CHECKPOINT", str(checkpoint))
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda secrets: None)


def test_track_writes_data_sets_and_a_picture(media_root, tmp_path, capsys):
    arguments = ["track", str(media_root / "n25.mp4"), "--box", "70,50,150,130"]
    arguments += ["--box", "200,100,260,180", "--frame", "3", "--label", "Car"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    coco = json.loads((tmp_path / "out" / "n25.coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == ["Car"]
    images = {annotation["image_id"] - 1 for annotation in coco["annotations"]}
    assert images == set(range(3, FRAME_COUNT))
    assert {annotation["track_id"] for annotation in coco["annotations"]} == {1, 2}
    youtube_vis = json.loads((tmp_path / "out" / "n25.youtube_vis.json").read_text())
    assert len(youtube_vis["annotations"]) == 2
    with Image.open(tmp_path / "out" / "n25.sheet.png") as sheet:
        assert sheet.width > 1000
    (video,) = load_tracks(tmp_path / "out" / "n25.tracks.json")
    for track in video.tracks:
        assert set(track.masks) <= set(track.scores) == set(range(3, FRAME_COUNT))
    assert "5 frames in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--frame": "99"}, "the video has frames [0, 8)"),
        ({"--box": "10,10,10,20"}, "has no area"),
        ({"--model": "sam3"}, "model name 'sam3' is not known"),
        ({"--checkpoint": "/none.pt"}, "no such checkpoint file"),
    ],
)
def test_a_mistake_is_said_in_a_line(media_root, tmp_path, capsys, changes, message):
    options = {"--box": "70,50,150,130", "--frame": "0", "--out": str(tmp_path)} | changes
    flat = [part for option in options.items() for part in option]
    assert main(["track", str(media_root / "n25.mp4"), *flat]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("box", ["1,2,3", "a,b,c,d", "9,9,1,1"])
def test_a_box_that_is_none_is_refused(media_root, capsys, box):
    with pytest.raises(SystemExit):
        main(["track", "v.mp4", "--box", box, "--out", "out"])
    assert "must be x1,y1,x2,y2" in capsys.readouterr().err


def test_a_missing_video_is_said(tmp_path, capsys):
    assert main(["track", str(tmp_path / "no.mp4"), "--box", "1,1,2,2", "--out", "out"]) == 2
    assert "no such video file" in capsys.readouterr().err
