"""`sam2-label-studio preview`: the files it writes, and mistakes said in a line."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from PIL import Image

from backend.commands import preview as preview_command
from backend.cli import main
from converters.coco import save_coco
from converters.label_studio.tasks import to_tasks
from converters.masks import encode_mask
from converters.types import AnnotatedVideo, Track
from converters.youtube_vis import save_youtube_vis
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT, SIZE


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch):
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def video_file(media_root):
    return media_root / "n25.mp4"


@pytest.fixture
def annotated(video_file):
    """A car, and a bike that is gone for two frames."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[60:120, 80:140] = True
    rle = encode_mask(mask)
    with open_frame_source(video_file) as source:
        info = source.info
    car = Track("car", ("Car",), {i: rle for i in range(FRAME_COUNT)})
    bike = Track(2, ("Bike",), {i: rle for i in range(FRAME_COUNT) if i not in (3, 4)})
    return AnnotatedVideo("n25", info, (car, bike))


@pytest.fixture
def preview(monkeypatch, annotated, video_file, tmp_path):
    """Runs the command on videos that any reader could have given."""
    source_file = tmp_path / "annotations.json"
    source_file.write_text("{}")

    def run(*arguments, out="out.mp4", videos=(annotated,), video=video_file):
        monkeypatch.setattr(preview_command, "annotated_videos", lambda *_, **__: iter(videos))
        command = ["preview", str(source_file), "--video", str(video)]
        return main([*command, "--out", str(tmp_path / out), *arguments])

    return run


@pytest.mark.parametrize(
    ("out", "arguments", "kind", "size"),
    [
        ("a.gif", [], "GIF", (480, 360)),
        ("a.GIF", ["--fps", "5", "--width", "200"], "GIF", (200, 150)),
        ("a.png", [], "PNG", (1612, 604)),
        ("a.png", ["--count", "2", "--columns", "1", "--width", "100"], "PNG", (100, 154)),
        ("a.png", ["--frames", "2:5"], "PNG", (1208, 300)),
        ("a.png", ["--as", "plot"], "PNG", (1100, 584)),
        ("a.png", ["--as", "plot", "--object", "2", "--width", "500"], "PNG", (500, 292)),
        ("new/folder/a.png", ["--as", "sheet"], "PNG", (1612, 604)),
    ],
)
def test_the_suffix_or_an_option_says_what_is_drawn(
    preview, tmp_path, capsys, out, arguments, kind, size
):
    assert preview(*arguments, out=out) == 0
    with Image.open(tmp_path / out) as picture:
        assert (picture.format, picture.size) == (kind, size)
    assert capsys.readouterr().out.startswith(str(tmp_path / out))


def test_an_mp4_has_all_frames_and_the_summary_says_so(preview, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert preview() == 0
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert len(drawn) == FRAME_COUNT
    captured = capsys.readouterr()
    assert "8 frames, 2 objects with 14 masks in all, libx264" in captured.out
    assert "8/8" in captured.err  # the progress bar


def test_a_part_of_the_frames_and_one_object(preview, tmp_path, capsys):
    assert preview("--frames", "5:", "--object", "2") == 0
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert len(drawn) == 3
    assert "3 frames, 1 object with 6 masks in all" in capsys.readouterr().out


def test_a_plot_lists_the_doubtful_stretches(preview, capsys):
    assert preview("--as", "plot", out="out.png") == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["Bike · 2: frames 3 to 4: absent"]


def test_a_plot_of_a_part_lists_only_what_is_in_it(preview, capsys):
    assert preview("--as", "plot", "--frames", "5:", out="out.png") == 0
    assert "3 frames, 2 objects" in (text := capsys.readouterr().out)
    assert "0 doubtful stretches" in text and len(text.splitlines()) == 1


def test_a_long_list_of_stretches_is_cut(preview, annotated, capsys):
    rle = annotated.tracks[0].masks[0]
    tracks = [Track(n, ("Car",), {0: rle, 2: rle}) for n in range(25)]
    video = dataclasses.replace(annotated, tracks=tuple(tracks))
    assert preview("--as", "plot", out="out.png", videos=[video]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "25 doubtful stretches" in lines[0]
    assert len(lines) == 22 and lines[-1] == "... and 5 more"


@pytest.mark.parametrize("out", ["a.mp4", "a.gif", "a.png"])
def test_quiet_prints_nothing(preview, capfd, out):
    assert preview("--quiet", out=out) == 0
    assert capfd.readouterr() == ("", "")


def other(video, **changes):
    return dataclasses.replace(video, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "a.avi"], "must end in .mp4, .gif or .png"),
        (["--out", "a.png", "--as", "gif"], "must end in .gif for --as gif"),
        (["--as", "plot"], "must end in .png for --as plot"),
        (["--count", "3"], "--count goes with sheet, not with video"),
        (["--columns", "3"], "--columns goes with sheet"),
        (["--fps", "3"], "--fps goes with gif"),
        (["--out", "a.png", "--as", "plot", "--count", "2"], "not with plot"),
        (["--out", "a.png", "--as", "plot", "--frames", "1:9"], "the video has frames [0, 8)"),
        (["--out", "a.png", "--as", "plot", "--width", "50"], "width=50 must be at least 300"),
        (["--out", "a.gif", "--fps", "0"], "max_fps=0.0"),
        (["--frames", "5:5"], "--frames 5:5"),
        (["--frames", "0:9"], "the video has frames [0, 8)"),
        (["--frames", "8:"], "the video has frames [0, 8)"),
        (["--object", "tram"], "--object tram: video 'n25' has the objects car, 2"),
        (["--name", "n26"], "no video is named 'n26', --name must be one of them: 'n25'"),
        (["--font", "none.ttf"], "font 'none.ttf' is not readable"),
        (["--width", "3"], "width=3 must be at least 16"),
        (["--video", "/none.mp4"], "no such video file or folder: /none.mp4"),
        (["--video", "."], "no image file in this folder"),
        (["--out", "."], "is a folder"),
    ],
)
def test_a_mistake_is_said_in_a_line(preview, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert preview(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.json"]


def test_annotations_that_do_not_fit_are_refused(preview, annotated, capsys):
    small = other(annotated.info, width=100, height=50)
    long_track = Track("car", ("Car",), {99: annotated.tracks[0].masks[0]})
    for video, message in (
        (other(annotated, info=small), "annotated at 100 x 50, the file has 320 x 240"),
        (other(annotated, tracks=()), "video 'n25' has no object with a mask"),
        (other(annotated, tracks=(Track(1, (), {}),)), "has no object with a mask"),
        (other(annotated, tracks=(long_track,)), "frame 99: the video has frames [0, 8)"),
    ):
        for out in ("out.mp4", "out.gif", "out.png"):
            assert preview(out=out, videos=[video]) == 2
            assert message in capsys.readouterr().err


def test_of_several_videos_the_one_named_as_the_file_is_drawn(preview, annotated, capsys):
    empty = other(annotated, tracks=())
    first, second = other(empty, name="a"), other(empty, name="b")
    assert preview(videos=[first, annotated, second]) == 0
    assert preview(videos=[first, other(annotated, name="n25.mp4")]) == 0
    assert preview("--name", "c", videos=[first, other(annotated, name="c")]) == 0
    assert preview(videos=[first, second]) == 2
    assert "no video is named 'n25', give one with --name: 'a', 'b'" in capsys.readouterr().err
    assert preview(videos=[]) == 2
    assert "the annotations hold no video" in capsys.readouterr().err


def test_what_it_is_made_of_is_not_overwritten(preview, tmp_path, video_file, capsys):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video_file.read_bytes())
    assert preview(out="copy.mp4", video=copy) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert copy.read_bytes() == video_file.read_bytes()


@pytest.mark.parametrize(
    "argument",
    [["--frames", "a:b"], ["--frames", "7"], ["--frames", ":"], ["--frames", "-1:3"],
     ["--results", "notes"], ["--count", "0"], ["--width", "-4"], ["--count", "1.5"], ["--as", "avi"]],
)
def test_what_is_no_number_is_refused(preview, capsys, argument):
    with pytest.raises(SystemExit) as stopped:
        preview(*argument)
    assert stopped.value.code == 2
    assert argument[0] in capsys.readouterr().err


def test_a_folder_of_images_is_a_video_too(preview, media_root, annotated, tmp_path):
    rle = annotated.tracks[0].masks[0]
    video = other(annotated, tracks=(Track(1, ("Car",), {0: rle, 5: rle}),))
    assert preview(video=media_root / "sub", videos=[video]) == 0
    with open_frame_source(tmp_path / "out.mp4") as drawn:
        assert len(drawn) == 6


def test_predictions_are_drawn_when_asked_and_else_named(annotated, video_file, tmp_path, capsys):
    config = """<View><Video name="v" value="$video" framerate="25"/><VideoRectangle name="b" toName="v"/>
        <Labels name="l" toName="v"><Label value="Car"/><Label value="Bike"/></Labels></View>"""
    tasks = list(to_tasks([annotated], label_config=config, media_urls=lambda video: "/x/n25.mp4"))
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    command = ["preview", str(tmp_path / "tasks.json"), "--video", str(video_file)]
    command += ["--out", str(tmp_path / "out.png")]
    assert main(command) == 2
    assert "gives no video; dropped: 1 tasks (it has no annotations, but predict" in capsys.readouterr().err
    assert main([*command, "--results", "annotations,predictions"]) == 0
    assert "2 objects with 14 masks in all" in capsys.readouterr().out


def test_the_frames_that_a_gif_shows_are_counted(preview, tmp_path, capsys):
    assert preview(out="a.gif") == 0
    with Image.open(tmp_path / "a.gif") as picture:
        shown = picture.n_frames
    assert 1 < shown < FRAME_COUNT
    assert f"a.gif: {shown} frames, 2 objects" in capsys.readouterr().out


def test_masks_that_an_edit_made_out_of_date_are_said_to_be_drawn_as_boxes(
    annotated, video_file, tmp_path, capsys
):
    config = """<View><Video name="v" value="$video" framerate="25"/><VideoRectangle name="b" toName="v"/>
        <Labels name="l" toName="v"><Label value="Car"/><Label value="Bike"/></Labels></View>"""
    (task,) = to_tasks([annotated], label_config=config, media_urls=lambda video: "/x/n25.mp4")
    results = task["predictions"][0]["result"]
    last = results[0]["value"]["sequence"][-1]
    last["x"] += 5
    export = [{"data": task["data"], "id": 1, "annotations": [{"id": 1, "result": results}]}]
    (tmp_path / "export.json").write_text(json.dumps(export))
    command = ["preview", str(tmp_path / "export.json"), "--video", str(video_file)]
    assert main([*command, "--out", str(tmp_path / "out.png")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "2 objects with 14 masks in all" in first
    assert second == "changed: 7 masks missing or out of date, written as their box"
    assert main([*command, "--out", str(tmp_path / "out.png"), "--stale", "leave-out"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "2 objects with 7 masks in all" in first
    assert second == "dropped: 7 masks (missing or out of date)"
    assert main([*command, "--out", str(tmp_path / "out.png"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("save", [save_coco, save_youtube_vis])
def test_files_that_our_writers_write_are_drawn(annotated, video_file, tmp_path, save):
    pytest.importorskip("converters.formats")
    save(tmp_path / "annotations.json", [annotated])
    command = ["preview", str(tmp_path / "annotations.json"), "--video", str(video_file)]
    assert main([*command, "--out", str(tmp_path / "out.png"), "--quiet"]) == 0
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.width == 1612
