"""Every event of the Enterprise editor, sent to /predict of the real service."""

import threading

import numpy as np
import pytest

from converters import bitmask_png
from tests.backend.conftest import FRAME_COUNT, SIZE

WIDTH, HEIGHT = SIZE
SECONDS = 120
CONFIG = """<View>
  <Labels name="labels" toName="video"><Label value="Dog"/><Label value="Cat"/></Labels>
  <Video name="video" value="$video" framerate="25"/>
  <VideoRectangle name="box" toName="video" smart="true"/>
</View>"""
IMAGE_CONFIG = """<View>
  <Image name="image" value="$image"/>
  <BitmaskLabels name="mask" toName="image" smart="true"><Label value="Dog"/></BitmaskLabels>
</View>"""


def disc(index):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - 110 - 8 * index) ** 2 + (rows - 90 - 4 * index) ** 2 < 40**2


def point(x, y, positive=True, **value):
    place = {"x": 100 * x / WIDTH, "y": 100 * y / HEIGHT, "positive": positive}
    return {"type": "keypointlabels", "value": {**place, **value}}


def box(x, y, width, height, **value):
    place = {
        "x": 100 * x / WIDTH, "y": 100 * y / HEIGHT,
        "width": 100 * width / WIDTH, "height": 100 * height / HEIGHT,
    }
    return {"type": "rectanglelabels", "value": {**place, **value}}


CLICK = point(110, 90)


def ask(client, event, *, status=200, config=CONFIG, data=None, **context):
    data = {"video": "/data/upload/1/ef9e5fd2-n25.mp4"} if data is None else data
    named = {} if event is None else {"event": event}
    body = {
        "tasks": [{"id": 7, "project": 1, "data": data}],
        "label_config": config,
        "params": {"context": {**named, **context}},
    }
    answer = client.post("/predict", json=body)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.json


def value_of(answer, kind):
    (prediction,) = answer["results"]
    (item,) = prediction["result"]
    assert item["type"] == kind and item["origin"] == "manual" and item["id"]
    assert (item["from_name"], item["to_name"]) == ("box", "video")
    return item["value"]


def iou(data_url, truth):
    mask = bitmask_png.decode(data_url, (HEIGHT, WIDTH))
    return (mask & truth).sum() / (mask | truth).sum()


def track(client, **context):
    return value_of(ask(client, "track", **context), "track_started")


def progress(client, session_id):
    return value_of(ask(client, "track_progress", session_id=session_id), "track_progress")


def all_progress(client, session_id):
    frames = []
    while True:
        told = progress(client, session_id)
        assert told["error"] is None
        frames += told["frames"]
        if told["done"]:
            return frames, told


def test_capabilities_need_no_task(client):
    answer = client.post("/predict", json={"params": {"context": {"event": "capabilities"}}})
    assert answer.status_code == 200
    (prediction,) = answer.json["results"]
    (item,) = prediction["result"]
    assert item["type"] == "capabilities"
    assert item["value"]["prompts"] == ["point", "box"]
    assert item["value"]["model_info"] == {"name": "demo", "version": "sam2:demo"}
    tracked = {t["tag"] for t in item["value"]["targets"] if "track" in t.get("features", ())}
    assert tracked == {"VideoRectangle", "VideoVectorLabels"}


@pytest.mark.parametrize("place", [{"frame": 3}, {"time_ms": 80}, {"time_ms": 95.5, "frame": 8}])
def test_a_click_gives_the_mask_of_its_frame(client, place):
    clicked = [point(126, 98)]
    value = value_of(ask(client, "predict", result=clicked, **place), "bitmask")
    assert (value["width"], value["height"]) == SIZE
    assert iou(value["imageDataURL"], disc(2)) > 0.8


LATE = {"video": "/data/local-files/?d=late.mp4"}


@pytest.mark.parametrize(("time_ms", "shown"), [(0, 0), (199, 0), (239, 0), (240, 1), (281, 2)])
def test_times_are_the_videos_own_also_where_its_sound_begins_first(client, time_ms, shown):
    clicked = [point(110 + 8 * shown, 90 + 4 * shown)]
    value = value_of(ask(client, "predict", data=LATE, result=clicked, time_ms=time_ms), "bitmask")
    assert iou(value["imageDataURL"], disc(shown)) > 0.8


def test_an_event_without_a_name_is_predict(client):
    value = value_of(ask(client, None, frame=1, result=[CLICK]), "bitmask")
    assert iou(value["imageDataURL"], disc(0)) > 0.8


def test_no_prompts_give_an_empty_result(client):
    assert ask(client, "predict", frame=1, result=[])["results"][0]["result"] == []


def test_a_box_and_points_are_taken_together(client):
    drawn = [box(70, 50, 81, 81), point(110, 90), point(20, 20, False)]
    value = value_of(ask(client, "predict", frame=1, result=drawn), "bitmask")
    assert iou(value["imageDataURL"], disc(0)) > 0.8 and "objects" not in value


def test_two_boxes_are_two_objects(client):
    drawn = [box(70, 50, 81, 81), box(200, 150, 60, 60), point(230, 180)]
    value = value_of(ask(client, "predict", frame=1, result=drawn), "bitmask")
    assert [item["id"] for item in value["objects"]] == ["object", "object 2"]
    assert iou(value["objects"][0]["imageDataURL"], disc(0)) > 0.8


def test_an_image_task_is_answered_too(client):
    answer = ask(
        client, "predict", config=IMAGE_CONFIG, result=[CLICK],
        data={"image": "/data/local-files/?d=sub/f0.jpg"},
    )
    (item,) = answer["results"][0]["result"]
    assert (item["type"], item["from_name"], item["to_name"]) == ("bitmask", "mask", "image")
    assert iou(item["value"]["imageDataURL"], disc(0)) > 0.8


def test_prewarm_encodes_frames_ahead_and_a_newer_one_takes_its_place(client):
    told = value_of(ask(client, "prewarm", frame=1, window=7, direction="both"), "prewarm_ack")
    assert told["status"] == "ok" and told["frame_count"] == FRAME_COUNT
    assert sorted(told["cached"] + told["pending"]) == list(range(8))
    told = value_of(ask(client, "prewarm", frame=8, window=2, direction="backward"), "prewarm_ack")
    wanted, waiting = {5, 6, 7}, threading.Event()
    while not wanted <= set(told["cached"]):
        assert sorted(told["cached"] + told["pending"]) == [5, 6, 7]
        assert not waiting.wait(0.02)
        told = value_of(
            ask(client, "prewarm", frame=8, window=2, direction="backward"), "prewarm_ack"
        )
    assert told["pending"] == []


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"frame": 0}, "frame 0 must be"),
        ({"frame": 9}, "frame 9 must be"),
        ({"frame": "1"}, "frame '1' must be"),
        ({"time_ms": -1}, "time_ms -1 must be"),
        ({"window": -1, "frame": 1}, "window -1 must be"),
        ({"direction": "up", "frame": 1}, "direction 'up' must be"),
    ],
)
def test_a_bad_prewarm_is_answered_with_the_error(client, context, message):
    told = value_of(ask(client, "prewarm", **context), "prewarm_ack")
    assert told["status"] == "error" and message in told["error"]


def test_tracking_gives_every_frame_once(client):
    started = track(client, frame=1, result=[CLICK], direction="forward")
    assert started["total_frames"] == FRAME_COUNT
    assert (started["fps"], started["duration_ms"]) == (25.0, 320)
    frames, told = all_progress(client, started["session_id"])
    assert (told["produced"], told["total"]) == (FRAME_COUNT, FRAME_COUNT)
    assert [frame["frame"] for frame in frames] == list(range(FRAME_COUNT))
    assert [frame["time_ms"] for frame in frames] == [40.0 * i for i in range(FRAME_COUNT)]
    for frame in frames:
        assert iou(frame["imageDataURL"], disc(frame["frame"])) > 0.8
    again = progress(client, started["session_id"])
    assert again["frames"] == [] and again["done"]


def test_tracking_tells_when_a_late_videos_frames_are_shown(client):
    started = track(
        client, data=LATE, time_ms=0, result=[CLICK], direction="forward", max_duration_ms=80
    )
    assert (started["total_frames"], started["duration_ms"]) == (3, 520)
    frames, _ = all_progress(client, started["session_id"])
    assert [frame["time_ms"] for frame in frames] == [200.0, 240.0, 280.0]


@pytest.mark.parametrize(
    ("context", "frames"),
    [
        ({"direction": "backward"}, [3, 2, 1, 0]),
        ({"direction": "both", "max_frames": 1}, [3, 4, 2]),
        ({"max_frames": 2}, [3, 4, 5]),
        ({"max_duration_ms": 80}, [3, 4, 5]),
        ({"max_duration_ms": 40, "max_frames": 3}, [3, 4]),
    ],
)
def test_tracking_goes_the_way_and_as_far_as_asked(client, context, frames):
    started = track(client, frame=4, result=[point(134, 102)], **context)
    assert started["total_frames"] == len(frames)
    found, _ = all_progress(client, started["session_id"])
    assert [frame["frame"] for frame in found] == frames


def test_several_objects_are_tracked_in_one_session(client):
    drawn = [
        point(110, 90, keypointlabels=["Dog"]),
        {**point(126, 98, frame=3), "meta": {"track": "other"}},
    ]
    started = track(client, frame=1, result=drawn)
    frames, _ = all_progress(client, started["session_id"])
    both = [frame for frame in frames if frame["frame"] >= 2]
    assert all({o["id"] for o in frame["objects"]} == {"Dog", "other"} for frame in both)
    assert all("objects" not in frame for frame in frames if frame["frame"] < 2)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"direction": "sideways"}, "direction 'sideways' must be one of"),
        ({"direction": 3}, "direction 3 must be one of"),
        ({"max_frames": 0}, "max_frames 0 must be a whole number >= 1"),
        ({"max_frames": 10.5}, "max_frames 10.5 must be"),
        ({"max_duration_ms": -1}, "max_duration_ms -1 must be"),
        ({"frame": 10**12}, "frame 1000000000000 must be"),
        ({"result": []}, "there is nothing to track"),
        (
            {"result": [{"type": "keypointlabels", "value": {"x": "a", "y": 1}}]},
            "result[0].value.x 'a' must be",
        ),
        ({"result": [{"type": "brushlabels", "value": {}}]}, "result[0].type 'brushlabels'"),
        ({"result": ["x"]}, "result[0] 'x' must be a JSON object"),
        ({"result": [box(0, 0, 0, 0)]}, "must have x_min < x_max"),
        ({"result": [CLICK] * 501}, "must be a list of at most 500 items"),
        ({"result": [CLICK] * 201}, "must be a list of at most 200 points"),
    ],
)
def test_what_cannot_be_tracked_is_said_and_leaves_nothing_behind(client, context, message):
    asked = {"frame": 1, "result": [CLICK], **context}
    told = value_of(ask(client, "track", **asked), "track_error")
    assert told["done"] is True and message in told["error"]
    assert client.application.extensions["sam2"].sessions.open_count == 0


@pytest.mark.parametrize(
    ("event", "context", "message"),
    [
        ("dance", {}, "event 'dance' must be one of"),
        ("predict", {"frame": 1, "result": [point(200000, 1)]}, "result[0].value.x"),
        ("predict", {"frame": -3, "result": [CLICK]}, "frame -3 must be"),
        ("predict", {"frame": True, "result": [CLICK]}, "frame True must be"),
        ("predict", {"frame": 1, "result": {"a": 1}}, "must be a list"),
        ("predict", {"frame": 1, "result": [point(1, 1, "yes")]}, "positive 'yes' must be"),
        ("track_progress", {"session_id": 5}, "session_id 5 must be a text"),
        ("track_cancel", {}, "session_id None must be a text"),
        (5, {}, "event 5 must be a text"),
    ],
)
def test_other_bad_events_are_refused_by_name(client, event, context, message):
    answer = ask(client, event, status=400, **context)
    assert message in answer["detail"]


def test_two_sessions_at_once_each_get_their_own_masks(client):
    one = track(client, frame=1, result=[CLICK])
    two = track(client, frame=8, result=[box(126, 78, 81, 81)], direction="backward")
    assert one["session_id"] != two["session_id"]
    first, second = (all_progress(client, s["session_id"])[0] for s in (one, two))
    assert [f["frame"] for f in first] == list(range(8))
    assert [f["frame"] for f in second] == list(range(7, -1, -1))
    for frame in (*first, *second):
        assert iou(frame["imageDataURL"], disc(frame["frame"])) > 0.8


def test_a_cancelled_session_ends(client):
    started = track(client, frame=1, result=[CLICK])
    session_id = started["session_id"]
    told = value_of(ask(client, "track_cancel", session_id=session_id), "track_cancel_ack")
    assert told == {"status": "cancelled"}
    _, told = all_progress(client, session_id)
    assert told["produced"] <= FRAME_COUNT
    told = value_of(ask(client, "track_cancel", session_id="none"), "track_cancel_ack")
    assert told == {"status": "not_found"}


def test_progress_of_an_unknown_session_is_an_error_and_done(client):
    told = progress(client, "f" * 32)
    assert told["done"] is True and told["frames"] == [] and "there is none" in told["error"]


def test_too_many_sessions_are_told_as_busy_with_real_numbers(make_client):
    client = make_client(max_sessions=1)
    sessions = client.application.extensions["sam2"].sessions
    started = track(client, frame=1, result=[CLICK])
    with sessions.using(started["session_id"]):
        told = value_of(ask(client, "track", frame=1, result=[CLICK]), "track_busy")
        assert told["resident_sessions"] == told["max_sessions"] == 1
        assert told["active_or_queued"] in (0, 1)
        assert "1 sessions are open and busy" in told["error"]
    all_progress(client, started["session_id"])
    track(client, frame=1, result=[CLICK])


def test_release_frees_the_frames_and_what_is_tracked_goes_on(client):
    sessions = client.application.extensions["sam2"].sessions
    ask(client, "predict", frame=1, result=[CLICK])
    assert sessions.open_count == 1
    started = track(client, frame=1, result=[CLICK])
    assert value_of(ask(client, "release"), "release_ack") == {"status": "released"}
    assert value_of(ask(client, "release"), "release_ack") == {"status": "released"}
    assert sessions.open_count == 1
    frames, _ = all_progress(client, started["session_id"])
    assert len(frames) == FRAME_COUNT


def test_tracking_survives_a_restart(make_client):
    first = make_client()
    started = track(first, frame=1, result=[CLICK])
    progress(first, started["session_id"])
    first.application.extensions["sam2"].stop()
    frames, told = all_progress(make_client(), started["session_id"])
    assert sorted(frame["frame"] for frame in frames) == list(range(FRAME_COUNT))
    assert told["produced"] == FRAME_COUNT


def test_an_object_that_leaks_is_given_up_when_the_settings_say_so(make_client):
    client = make_client(load=None, stop_area_share=0.01)
    # The model that all tests share was loaded without the rule.
    from backend.model import load_model

    service = client.application.extensions["sam2"]
    client = make_client(load=lambda _: load_model(service.settings), stop_area_share=0.01)
    started = track(client, frame=1, result=[CLICK])
    frames, told = all_progress(client, started["session_id"])
    assert len(frames) == told["produced"] == 1 < told["total"]


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({**point(1000, 90), "id": "bad"}, "x 312.5 must be a number from 0 to 100"),
        ({**box(70, 50, 0, 0), "id": "bad"}, "must have x_min < x_max"),
        ({**box(10, 10, 20, 20, frame=99), "id": "bad"}, "frame 99"),
        ({"type": "brushlabels", "value": {}, "id": "bad"}, "must be 'keypointlabels'"),
        ({"type": "keypointlabels", "id": "bad"}, "must be a JSON object"),
    ],
)
def test_a_bad_prompt_leaves_the_others_their_mask(client, caplog, bad, rule):
    alone = value_of(ask(client, "predict", frame=1, result=[CLICK]), "bitmask")
    value = value_of(ask(client, "predict", frame=1, result=[bad, CLICK]), "bitmask")
    said = value.pop("left_out")
    assert value == alone and rule in said["regions"][0]
    assert said["regions"][0].startswith("region 'bad': ") and sum(said["counts"].values()) == 1
    assert "region 'bad'" in caplog.text
    started = track(client, result=[bad, CLICK])
    assert started["left_out"] == said
    assert rule in ask(client, "predict", status=400, frame=1, result=[bad])["detail"]


def test_a_point_on_a_bad_box_prompts_no_other_object(client):
    drawn = [box(70, 50, 81, 81), {**box(400, 20, 50, 50), "id": "bad"}, point(300, 200)]
    value = value_of(ask(client, "predict", frame=1, result=drawn), "bitmask")
    assert len(value.pop("left_out")["regions"]) == 2
    assert value == value_of(ask(client, "predict", frame=1, result=drawn[:1]), "bitmask")
