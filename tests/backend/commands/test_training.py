"""`finetune` and `evaluate` on data sets as people have them: exports, COCO, YouTube-VIS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli import main
from backend.commands.training import _register
from converters.coco import save_coco
from converters.label_studio.tasks import to_tasks
from converters.masks import encode_mask
from converters.tracks_json import save_tracks
from converters.types import AnnotatedVideo, Track, VideoInfo
from converters.youtube_vis import save_youtube_vis
from tests.video_files import write_video

SIZE_HW = (64, 80)
FRAMES = 5
NAMES = ("one", "two", "three")
CONFIG = """<View>
  <Video name="video" value="$video" framerate="25"/>
  <VideoRectangle name="box" toName="video"/>
  <Labels name="labels" toName="video"><Label value="Square"/></Labels>
</View>"""
SHORT = (
    "--steps", "2", "--evaluate-every", "1", "--frames", "2", "--clips", "1", "--quiet",
    "--general-share", "0", "--device", "cpu",
)  # fmt: skip


def mask(frame: int) -> np.ndarray:
    plane = np.zeros(SIZE_HW, bool)
    plane[20:40, 10 + 4 * frame : 30 + 4 * frame] = True
    return plane


def picture(name: str, frame: int) -> Image.Image:
    grain = np.random.default_rng(len(name)).integers(0, 70, (*SIZE_HW, 3))
    grain[mask(frame)] = (220, 200, 90)
    return Image.fromarray(grain.astype(np.uint8))


def annotated(name: str, mask=mask) -> AnnotatedVideo:
    info = VideoInfo(
        SIZE_HW[1], SIZE_HW[0], FRAMES, 25.0, tuple(i / 25 for i in range(FRAMES)), FRAMES / 25
    )
    masks = {frame: encode_mask(mask(frame)) for frame in range(FRAMES)}
    track = Track("obj", ("Square",), masks, dict.fromkeys(masks, 5.0))
    return AnnotatedVideo(
        name, info, (track,), tuple(f"{name}/{frame:05d}.jpg" for frame in range(FRAMES))
    )


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # Its handler would keep this test's captured stderr for all later ones.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def data(tmp_path) -> Path:
    """Frames of three videos in `images`, beside nothing yet."""
    for name in NAMES:
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        for frame in range(FRAMES):
            picture(name, frame).save(folder / f"{frame:05d}.jpg")
    return tmp_path


def write_label_studio(path: Path, videos) -> None:
    """An export of tasks whose predictions people accepted as they were."""
    tasks = list(
        to_tasks(videos, label_config=CONFIG, media_urls=lambda v: f"/data/upload/1/{v.name}.mp4")
    )
    for number, task in enumerate(tasks, start=1):
        (prediction,) = task.pop("predictions")
        task |= {"id": number, "annotations": [{"id": number, "result": prediction["result"]}]}
    path.write_text(json.dumps(tasks))


WRITERS = {
    "youtube-vis": save_youtube_vis,
    "coco": save_coco,
    "tracks": save_tracks,
}


@pytest.fixture(params=WRITERS)
def data_set(request, data) -> Path:
    path = data / "data.json"
    WRITERS[request.param](path, [annotated(name) for name in NAMES])
    return path


def test_every_format_is_evaluated(data_set, data, capsys):
    report = data / "figures.json"
    arguments = ["evaluate", str(data_set), "--media-root", str(data / "images"), "--quiet"]
    assert main([*arguments, "--prompt", "box", "--json", str(report), "--device", "cpu"]) == 0
    objects = json.loads(report.read_text())["objects"]
    assert sorted(entry["video"] for entry in objects) == sorted(NAMES)
    assert all(entry["frame_count"] == FRAMES - 2 for entry in objects)
    assert "mean over objects" in capsys.readouterr().out


def test_a_label_studio_export_is_evaluated_on_its_videos(data, capsys):
    for name in NAMES:
        pictures = [np.asarray(picture(name, frame)) for frame in range(FRAMES)]
        write_video(
            data / "images" / f"{name}.mp4", FRAMES, size=SIZE_HW[::-1], pictures=pictures
        )
    export = data / "export.json"
    write_label_studio(export, [annotated(name) for name in NAMES])
    config = data / "config.xml"
    config.write_text(CONFIG)
    arguments = ["evaluate", str(export), "--media-root", str(data / "images"), "--quiet"]
    assert main([*arguments, "--label-config", str(config), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert all(f"{number}-{name}" in out for number, name in enumerate(NAMES, start=1))


def test_fine_tuning_prints_before_and_after_and_names_the_model(data, capsys, monkeypatch):
    monkeypatch.setenv("SAM2_CACHE", str(data / "cache"))
    path = data / "data.json"
    save_youtube_vis(path, [annotated(name) for name in NAMES])
    arguments = ["finetune", "--data", str(path), "--media-root", str(data / "images")]
    out_folder = data / "out"
    assert main([*arguments, "--out", str(out_folder), "--name", "squares", *SHORT]) == 0
    out = capsys.readouterr().out
    assert "before" in out and "after" in out and "known as --model squares" in out
    assert (out_folder / "model.safetensors").is_file()

    arguments = ["evaluate", str(path), "--media-root", str(data / "images"), "--quiet"]
    assert main([*arguments, "--model", "squares", "--device", "cpu"]) == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--name", "demo"], "that of a published model"),
        (["--name", "a/b"], "must be 1 to 64"),
        (["--steps", "0"], "steps=0"),
        (["--model", "nobody"], "'nobody' is not known"),
        (["--media-root", "/nowhere"], "video 'one'"),
    ],
)
def test_mistakes_are_told_before_any_work(data, capsys, arguments, message):
    path = data / "data.json"
    save_youtube_vis(path, [annotated(name) for name in NAMES])
    options = ["finetune", "--data", str(path), "--media-root", str(data / "images")]
    assert main([*options, "--out", str(data / "out"), *SHORT, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (data / "out").exists()


def test_a_data_set_that_is_not_there_is_named(data, capsys):
    assert main(["evaluate", str(data / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


def test_weights_become_known_by_name_whole_or_not_at_all(tmp_path):
    weights, target = tmp_path / "w.safetensors", tmp_path / "cache/finetuned/mine.safetensors"
    weights.write_bytes(b"first")
    _register(weights, target)
    weights.unlink()
    with pytest.raises(FileNotFoundError):
        _register(weights, target)
    assert target.read_bytes() == b"first" and list(target.parent.iterdir()) == [target]
