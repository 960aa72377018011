"""`import`: the tasks that a video becomes."""

import io
import re

import pytest
from PIL import Image

from backend.label_configs import label_config
from tests.backend.conftest import FRAME_COUNT, SIZE
from tests.video_files import write_video


@pytest.fixture
def video(media_root):
    return media_root / "n25.mp4"


def only_task(studio):
    (task,) = studio.tasks.values()
    return task["data"]


def test_a_video_is_uploaded_with_its_frame_rate(run, studio, project, video):
    status, out, _ = run("import", video, "--project", project("video"))
    data = only_task(studio)
    assert status == 0 and data["video"].endswith("-n25.mp4") and data["fps"] == 25.0
    ((_, content),) = studio.uploads.values()
    assert video.read_bytes() in content
    assert "n25.mp4" in out


def test_frames_are_cut_and_uploaded_in_order(run, studio, project, video):
    status, *_ = run("import", video, "--project", project("frames"), "--frames", "every=3")
    data = only_task(studio)
    assert status == 0 and set(data) == {"frames", "every", "fingerprint"} and data["every"] == 3
    numbers = [int(re.search(r"-n25_(\d+)\.jpg$", url)[1]) for url in data["frames"]]
    assert numbers == list(range(0, FRAME_COUNT, 3))
    (content, *_) = [content for _, content in studio.uploads.values()]
    start = content.index(b"\xff\xd8")
    with Image.open(io.BytesIO(content[start:])) as image:
        assert image.size == SIZE


def test_more_frames_than_one_request_takes_stay_in_order(run, studio, project, tmp_path):
    write_video(tmp_path / "long.mp4", 45)
    assert run("import", tmp_path / "long.mp4", "--project", project("frames"))[0] == 0
    numbers = [int(re.search(r"_(\d+)\.jpg$", url)[1]) for url in only_task(studio)["frames"]]
    assert numbers == list(range(45))
    assert len(studio.asked("POST", "/import")) == 3 + 1


def test_both_get_video_and_frames(run, studio, project, video):
    assert run("import", video, "--project", project("both"), "--frames", "every=4")[0] == 0
    assert set(only_task(studio)) == {"video", "fps", "frames", "every", "fingerprint"}


def test_a_preview_config_gets_the_video_alone(run, studio, video):
    number = studio.add_project(
        label_config("video-preview", ["A"], preview_url="http://b/preview.mp4?src=$video")
    )
    assert run("import", video, "--project", number)[0] == 0
    assert set(only_task(studio)) == {"video", "fps", "fingerprint"}


def test_a_reference_is_no_upload(run, studio, project, video):
    url = "https://media.example/{name}"
    assert run("import", video, "--project", project(), "--reference", url)[0] == 0
    assert only_task(studio)["video"] == "https://media.example/n25.mp4" and not studio.uploads


def test_a_config_of_someone_else_gets_its_own_field_names(run, studio, video):
    number = studio.add_project(
        '<View><Video name="v" value="$clip" framerate="$rate"/>'
        '<VideoRectangle name="b" toName="v"/></View>'
    )
    assert run("import", video, "--project", number)[0] == 0
    assert set(only_task(studio)) == {"clip", "rate", "fingerprint"}


def test_a_frame_rate_that_the_config_fixes_wrongly_is_warned_of(run, studio, video):
    number = studio.add_project(
        '<View><Video name="v" value="$video"/><VideoRectangle name="b" toName="v"/></View>'
    )
    status, _, err = run("import", video, "--project", number)
    assert status == 0 and "counts 24 frames a second, the video has 25" in err


def test_a_codec_that_browsers_lack_is_warned_of(run, studio, project, tmp_path):
    write_video(tmp_path / "old.mp4", 4, codec="mpeg4")
    status, _, err = run("import", tmp_path / "old.mp4", "--project", project())
    assert status == 0 and "old.mp4 is mpeg4, which browsers do not play" in err


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("video", ["--frames", "every=2"], "--frames is for a config with <Image valueList>"),
        ("frames", ["--reference", "http://h/x"], "--reference is for a config with <Video>"),
    ],
)
def test_an_option_without_use_is_refused(run, studio, project, video, kind, options, message):
    status, _, err = run("import", video, "--project", project(kind), *options)
    assert status == 2 and message in err and not studio.tasks and not studio.uploads


def test_a_long_video_is_not_cut_whole_unasked(run, studio, project, video, monkeypatch):
    monkeypatch.setattr("backend.imports.MAX_FRAMES_UNASKED", 3)
    status, _, err = run("import", video, "--project", project("frames"))
    assert status == 2 and "every=3 makes 3 images" in err and not studio.uploads


def test_one_reference_for_two_videos_is_refused(run, studio, project, video):
    arguments = ["import", video, video, "--project", project(), "--reference", "http://h/x.mp4"]
    status, _, err = run(*arguments)
    assert status == 2 and "{name}" in err and not studio.tasks


def test_what_is_not_there_or_no_video_is_named(run, studio, project, tmp_path):
    number = project()
    (tmp_path / "text.mp4").write_text("no video")
    for name, message in (("none.mp4", "is not there"), ("text.mp4", "not a video")):
        status, _, err = run("import", tmp_path / name, "--project", number)
        assert status == 2 and message in err
    status, _, err = run("import", tmp_path / "text.mp4", "--project", 404)
    assert status == 2 and "project 404" in err and not studio.tasks


def test_one_bad_video_keeps_none_of_the_others_out_and_a_repeat_adds_what_is_missing(
    run, studio, project, video, tmp_path
):
    number = project("video")
    later = tmp_path / "later.mp4"
    later.write_text("no video yet")
    write_video(tmp_path / "other.mp4", 5)
    files = (video, later, tmp_path / "other.mp4")
    status, out, err = run("import", *files, "--project", number)
    assert status == 1 and len(studio.tasks) == 2
    assert "not imported" in err and "later.mp4" in err and "1 of 3" in err
    write_video(later, 7)
    status, out, err = run("import", *files, "--project", number)
    assert status == 0 and len(studio.tasks) == 3 and out.count("imported before") == 2
    assert run("import", video, "--project", number, "--again")[0] == 0
    assert len(studio.tasks) == 4


def test_other_frames_of_a_video_are_another_task(run, studio, project, video):
    number = project("frames")
    for every, count in (("every=3", 1), ("every=4", 2), ("every=3", 2)):
        assert run("import", video, "--project", number, "--frames", every)[0] == 0
        assert len(studio.tasks) == count
