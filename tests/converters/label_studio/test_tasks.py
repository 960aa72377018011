import json

import pytest
from label_studio_sdk.label_interface import LabelInterface

from converters.label_studio.config import ImageControlKind, parse_label_config
from converters.label_studio.export import ExportOptions, export_task, load_export
from converters.label_studio.tasks import to_tasks
from converters.types import Track
from tests.converters.cases import DATA, annotated_video, constant_rate_info, moving_track
from tests.converters.label_studio.test_results import FRAMES_XML


def config(name):
    return (DATA / f"configs/config_{name}.xml").read_text()


INFO = constant_rate_info(10)
TRACKS = (
    moving_track(INFO, [0, 1, 2, 6, 7], object_id="a", labels=("Car",)),
    moving_track(INFO, [4], object_id=3, labels=("Dog",)),
)
CLIP = annotated_video(info=INFO, tracks=TRACKS)
FRAMES = [f"https://example.com/f{i}.jpg" for i in range(10)]
BOTH = {"video": "clip.mp4", "frames": FRAMES}


def tasks_of(*videos, xml, media=BOTH, **options):
    found = list(to_tasks(videos, label_config=xml, media_urls=lambda _: media, **options))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def types(task):
    return [region["type"] for region in task["predictions"][0]["result"]]


ONE_OBJECT = annotated_video(info=INFO, tracks=TRACKS[:1])


@pytest.mark.parametrize(
    ("name", "video", "expected"),
    [
        ("video_rectangle", CLIP, ["videorectangle"] * 2),
        ("c_image_valuelist_brush", CLIP, ["brushlabels"] * 6),
        ("c2_image_valuelist_bitmask", CLIP, ["bitmasklabels"] * 6),
        # Boxes on the video, masks on its frames.
        ("e_video_plus_image", CLIP, ["videorectangle"] * 2 + ["brushlabels"] * 6),
        ("d1_videovector", ONE_OBJECT, ["videovector"]),
        ("d2_videovectorlabels", ONE_OBJECT, ["videovectorlabels"]),
    ],
)
def test_predictions_that_the_sdk_accepts_and_that_come_back_whole(name, video, expected):
    xml = config(name)
    (task,) = tasks_of(video, xml=xml)

    assert task["data"] == BOTH and types(task) == expected
    prediction = task["predictions"][0]
    assert 0 < prediction["score"] < 1 and prediction["model_version"] == "sam2-label-studio"
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []
    options = ExportOptions(label_config=parse_label_config(xml), sources=("predictions",))
    items = export_task(task, options)
    assert len(items) == (2 if name == "e_video_plus_image" else 1)
    for item in items:
        assert item.stale == {} and item.dropped == ()
        for track, back in zip(video.tracks, item.video.tracks, strict=True):
            assert (str(back.object_id), back.labels) == (str(track.object_id), track.labels)
            assert back.masks == track.masks


def test_a_written_file_can_be_loaded(tmp_path):
    path = tmp_path / "tasks.json"
    xml = config("video_rectangle")
    path.write_text(json.dumps(tasks_of(CLIP, CLIP, xml=xml)))
    videos = list(load_export(path, label_config=xml, sources=("predictions",)))
    assert [v.name for v in videos] == ["0-clip", "1-clip"]
    assert all(v.tracks[0].masks == TRACKS[0].masks for v in videos)


@pytest.mark.parametrize(
    ("name", "media", "data"),
    [
        # One URL fills the video's field, several fill the frames'.
        ("video_rectangle", "a.mp4", {"video": "a.mp4"}),
        ("c_image_valuelist_brush", FRAMES, {"frames": FRAMES}),
        ("c_image_valuelist_brush", tuple(FRAMES), {"frames": FRAMES}),
        ("e_video_plus_image", "a.mp4", {"video": "a.mp4"}),
        ("e_video_plus_image", FRAMES, {"frames": FRAMES}),
        # A frame rate that the config takes from the task is the video's.
        ("frames_fps_from_task", "a.mp4", {"video": "a.mp4", "fps": 25.0}),
        ("frames_fps_from_task", {"video": "a.mp4", "fps": 50}, {"video": "a.mp4", "fps": 50}),
        # More than the config asks for is kept.
        ("video_rectangle", {"video": "a.mp4", "note": 1}, {"video": "a.mp4", "note": 1}),
    ],
)
def test_the_tasks_data(name, media, data):
    (task,) = tasks_of(ONE_OBJECT, xml=config(name), media=media)
    assert task["data"] == data


def test_the_frame_rate_of_the_task_counts():
    xml = config("frames_fps_from_task")
    (task,) = tasks_of(ONE_OBJECT, xml=xml, media={"video": "a.mp4", "fps": 50})
    assert task["predictions"][0]["result"][0]["value"]["framesCount"] == 20
    # Below 1 the editor would take it for seconds a frame.
    slow = constant_rate_info(10, fps=0.5)
    video = annotated_video(info=slow, tracks=[moving_track(slow, range(10))])
    (task,) = tasks_of(video, xml=xml, media="a.mp4")
    assert task["data"] == {"video": "a.mp4"}


def test_one_picture():
    info = constant_rate_info(1)
    video = annotated_video(info=info, tracks=[moving_track(info, [0])])
    xml = FRAMES_XML.replace('valueList="$frames"', 'value="$image"')
    (task,) = tasks_of(video, xml=xml, media="cat.png")
    assert task["data"] == {"image": "cat.png"} and types(task) == ["brushlabels"]


def without(xml, *kinds):
    lines = [line for line in xml.splitlines() if not any(f"<{kind} " in line for kind in kinds)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("left_out", "options", "expected"),
    [
        ((), {}, "brushlabels"),
        (("BrushLabels",), {}, "bitmasklabels"),
        (("BrushLabels", "BitmaskLabels"), {}, "vectorlabels"),
        (("BrushLabels", "BitmaskLabels", "VectorLabels"), {}, "polygonlabels"),
        (("BrushLabels", "BitmaskLabels", "VectorLabels", "PolygonLabels"), {}, "rectanglelabels"),
        ((), {"image_control": "poly"}, "polygonlabels"),
        ((), {"image_control": "rect"}, "rectanglelabels"),
    ],
)
def test_the_control_on_images(left_out, options, expected):
    xml = without(FRAMES_XML, *left_out)
    (task,) = tasks_of(CLIP, xml=xml, media=FRAMES, **options)
    assert types(task) == [expected] * 6
    prediction = task["predictions"][0]
    assert LabelInterface(xml).validate_prediction(prediction, return_errors=True) == []


def test_a_control_that_has_the_labels_is_taken():
    xml = FRAMES_XML.replace(
        '<BrushLabels name="brush" toName="img"><Label value="Car"/><Label value="Dog"/>',
        '<BrushLabels name="brush" toName="img"><Label value="Car"/>',
    )
    (task,) = tasks_of(CLIP, xml=xml, media=FRAMES)
    assert types(task) == ["brushlabels"] * 5 + ["bitmasklabels"]


def test_a_track_that_the_editor_never_shows_is_left_out_and_logged(caplog):
    xml = config("video_rectangle").replace('"25"', '"5"')
    video = annotated_video(info=INFO, tracks=[moving_track(INFO, [1, 2], object_id="brief")])
    (task,) = tasks_of(video, xml=xml, media="a.mp4")
    assert types(task) == []
    assert "object brief is left out: at 5 frames a second" in caplog.text


def test_key_frames_can_all_be_written():
    xml = config("video_rectangle")
    still = Track("s", ("Car",), {i: TRACKS[0].masks[0] for i in range(10)})
    video = annotated_video(info=INFO, tracks=[still])
    counts = []
    for keyframes in ("thin", "all"):
        (task,) = tasks_of(video, xml=xml, media="a.mp4", keyframes=keyframes)
        counts.append(len(task["predictions"][0]["result"][0]["value"]["sequence"]))
    assert counts == [2, 10]


def test_videos_are_taken_one_at_a_time_and_errors_come_with_their_name():
    def videos():
        yield CLIP
        yield annotated_video("second", info=INFO, tracks=[Track("t", ("Cat",), {})])

    tasks = to_tasks(videos(), label_config=config("video_rectangle"), media_urls=lambda v: "a.mp4")
    assert next(tasks)["data"] == {"video": "a.mp4"}
    with pytest.raises(ValueError, match="video 'second': label 'Cat' is not in the label config"):
        next(tasks)


def test_an_unlabelled_track_goes_on_a_video_but_not_on_images():
    video = annotated_video(info=INFO, tracks=[Track("t", (), TRACKS[0].masks)])
    (task,) = tasks_of(video, xml=config("video_rectangle"), media="a.mp4")
    assert "labels" not in task["predictions"][0]["result"][0]["value"]
    with pytest.raises(ValueError, match="object 't' has no label"):
        tasks_of(video, xml=FRAMES_XML, media=FRAMES)


def test_a_video_without_objects_is_a_task_with_an_empty_prediction():
    video = annotated_video(info=INFO, tracks=())
    (task,) = tasks_of(video, xml=config("video_rectangle"), media="a.mp4")
    assert task["predictions"] == [{"model_version": "sam2-label-studio", "result": []}]


TWICE = annotated_video(info=INFO, tracks=[Track(1, ("Car",), {}), Track("1", ("Car",), {})])
TWO_VIDEOS = (
    '<View><Video name="a" value="$a"/><Video name="b" value="$b"/>'
    '<VideoRectangle name="r" toName="a"/></View>'
)


@pytest.mark.parametrize(
    ("xml", "media", "options", "video", "message"),
    [
        (config("video_rectangle"), FRAMES, {}, CLIP, "must have one <Image> with a valueList"),
        (config("c_image_valuelist_brush"), "a.mp4", {}, CLIP, "must have one <Video>"),
        (TWO_VIDEOS, "a.mp4", {}, CLIP, "must have one <Video>"),
        (config("video_rectangle"), {"x": 1}, {}, CLIP, r"data has \['x'\], which fills no"),
        (FRAMES_XML, FRAMES[:9], {}, CLIP, "gets 9 images, must get one for each of .* 10 frames"),
        (config("video_rectangle"), "a.mp4", {}, TWICE, r"object ids \['1'\] must be different"),
        (config("video_rectangle"), "a.mp4", {"keyframes": "few"}, CLIP, "keyframes='few'"),
        (config("video_rectangle"), "a.mp4", {"min_iou": 2}, CLIP, "min_iou=2"),
    ],
)
def test_what_makes_no_task_is_refused(xml, media, options, video, message):
    with pytest.raises(ValueError, match=f"video 'clip': .*{message}"):
        tasks_of(video, xml=xml, media=media, **options)


def test_options_are_checked_before_the_first_video():
    with pytest.raises(ValueError, match="no labels control on <Image> named 'gone'"):
        to_tasks([], label_config=FRAMES_XML, media_urls=str, image_control="gone")


def test_two_runs_give_the_same_bytes():
    runs = [json.dumps(tasks_of(CLIP, xml=config("e_video_plus_image"))) for _ in range(2)]
    assert runs[0] == runs[1]
    assert ImageControlKind.BRUSH.result_type in runs[0]
