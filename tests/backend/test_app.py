"""The service, asked as Label Studio asks it: captured payloads, the real predictor."""

import dataclasses
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backend.app import create_app
from backend.errors import MediaTooLarge
from backend.jobs.types import JobState
from backend.logs import RedactingFormatter
from backend.model import load_model
from backend.settings import Settings
from converters import bitmask_png, brush_rle
from converters.label_studio.lifespan import region_to_track
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT, payload
from tests.backend.http_server import Reply

VERSION = "sam2:demo"
VIDEO_CALL = "predict_interactive_videorectangle"
CLICKS_CALL = "predict_interactive_image_valuelist_keypoints_pos_neg_two_frames"
BITMASK_CALL = "predict_interactive_image_bitmask_keypoint"


def predict(client, body):
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.json["results"]


def wait_until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


CAPTURED = sorted(path.stem for path in Path(__file__).with_name("data").glob("*.json"))


@pytest.mark.parametrize("name", CAPTURED)
def test_every_captured_request_is_answered(make_client, quick, name):
    body, kind = payload(name), name.split("_")[0]
    answer = make_client(load=quick.load).post(f"/{kind}", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    if kind == "predict":
        assert len(answer.json["results"]) == len(body["tasks"])
        # Label Studio throws a whole batch away for these.
        assert "null" not in answer.get_data(as_text=True)


# --- connecting --------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/health"])
def test_health_tells_the_models_state(client, path):
    wait_until(lambda: client.get(path).json["model"] != "loading")
    assert client.get(path).json == {
        "status": "UP", "model_class": "SAM2Video", "model_version": VERSION, "model": "ready",
    }


def test_setup_answers_the_model_version_alone(client, label_studio):
    body = payload("setup") | {"hostname": label_studio.url}
    assert client.post("/setup", json=body).json == {"model_version": VERSION}


def test_the_token_of_setup_fetches_media_where_no_key_is_set(make_client, label_studio):
    client = make_client(label_studio_api_key=None)
    refused = client.post("/predict", json=payload(VIDEO_CALL))
    assert refused.status_code == 502 and "LABEL_STUDIO_API_KEY" in refused.json["detail"]
    client.post("/setup", json=payload("setup") | {"access_token": "secret-key"})
    predict(client, payload(VIDEO_CALL))
    assert label_studio.tokens() == [None, "Token secret-key"]


def test_a_cloud_video_is_resolved_with_its_task(client, label_studio):
    body = changed(VIDEO_CALL, set_video("s3://bucket/n25.mp4"))
    task_id = body["tasks"][0]["id"]
    path = f"/tasks/{task_id}/presign/?fileuri=czM6Ly9idWNrZXQvbjI1Lm1wNA=="
    upload = {"Location": "/data/upload/1/ef9e5fd2-n25.mp4"}
    label_studio.replies[path] = Reply(status=303, headers=upload)
    assert predict(client, body)[0]["result"]


def test_a_video_stays_in_the_cache_while_it_is_tracked(
    make_client, label_studio, model, media_root
):
    size = (media_root / "n25.mp4").stat().st_size
    label_studio.replies["/data/upload/other.mp4"] = Reply(
        b"x" * size, headers={"Content-Type": "video/mp4"}
    )
    refusals = []

    def track(*args, **options):
        try:
            media.video_file("/data/upload/other.mp4")
        except MediaTooLarge as error:
            refusals.append(error.detail)
        yield from model.track(*args, **options)

    client = make_client(track=track, max_download_bytes=size, media_cache_bytes=size)
    media = client.application.extensions["sam2"].media
    assert predict(client, payload(VIDEO_CALL))[0]["result"]
    assert refusals and "in use now" in refusals[0]


def test_setup_warns_of_what_will_not_work(client):
    answer = client.post("/setup", json=payload("setup") | {"schema": "<View/>"}).json
    assert answer["model_version"] == VERSION
    hostname, schema = answer["warnings"]
    assert "http://localhost:8080" in hostname and "LABEL_STUDIO_URL" in hostname
    assert "cannot be served" in schema


def test_versions_lists_the_one_there_is(client):
    assert client.get("/versions").json == {"versions": [VERSION]}


def test_a_submitted_annotation_is_tracked_in_the_background(client):
    answer = client.post("/webhook", json=payload("webhook_annotation_created")).json
    assert answer["status"] == "queued"
    again = client.post("/webhook", json=payload("webhook_annotation_created")).json
    jobs = client.application.extensions["sam2"].jobs
    assert again["job"] == answer["job"] or jobs.get(answer["job"]).state.has_ended


def test_everything_but_predict_answers_while_the_model_loads(make_client, model):
    may_finish = threading.Event()

    def slow(_):
        may_finish.wait(30)
        return model

    client = make_client(load=slow, answer_seconds=0.1)
    begin = time.perf_counter()
    assert client.get("/health").json["model"] == "loading"
    assert client.post("/setup", json=payload("setup")).status_code == 200
    ghost = payload("predict_interactive_ghost_after_submit_empty_context")
    assert predict(client, ghost)[0]["result"] == []
    assert time.perf_counter() - begin < 1
    answer = client.post("/predict", json=payload(VIDEO_CALL))
    assert answer.status_code == 503 and "loading" in answer.json["detail"]
    may_finish.set()
    wait_until(lambda: client.get("/health").json["model"] == "ready")


def test_a_model_that_cannot_be_loaded_is_said(make_client, tmp_path):
    client = make_client(load=load_model, checkpoint=str(tmp_path / "none.safetensors"))
    wait_until(lambda: client.get("/health").json["model"] == "failed")
    health = client.get("/health")
    assert health.status_code == 200 and "none.safetensors" in health.json["detail"]
    answer = client.post("/predict", json=payload(VIDEO_CALL))
    assert answer.status_code == 503 and "none.safetensors" in answer.json["detail"]


# --- the video ---------------------------------------------------------------


def test_a_drawn_box_comes_back_with_masks_on_every_frame(client, media_root):
    (prediction,) = predict(client, payload(VIDEO_CALL))
    assert prediction["model_version"] == VERSION
    assert 0 < prediction["score"] <= 1
    (region,) = prediction["result"]
    drawn = payload(VIDEO_CALL)["params"]["context"]["result"][0]
    for name in ("id", "from_name", "to_name", "type"):
        assert region[name] == drawn[name]
    assert region["value"]["labels"] == ["Dog"]
    first = region["value"]["sequence"][0]
    assert {name: first[name] for name in ("frame", "x", "y", "width", "height")} == {
        "frame": 1, "x": 20.15625, "y": 20, "width": 30, "height": 30,
    }
    with open_frame_source(media_root / "n25.mp4") as source:
        track = region_to_track(region, source.info, 25)
    assert list(track.masks) == list(range(FRAME_COUNT))


def test_a_region_without_new_prompts_comes_back_as_it_was(make_client, model):
    runs = []

    def counted(*arguments, **options):
        runs.append(1)
        yield from model.track(*arguments, **options)

    client = make_client(track=counted)
    (first,) = predict(client, payload(VIDEO_CALL))
    again = payload(VIDEO_CALL)
    again["params"]["context"]["result"] = first["result"]
    (second,) = predict(client, again)
    assert second["result"] == first["result"] and second["score"] > 0
    assert len(runs) == 1
    moved = first["result"][0]["value"]["sequence"][-1]
    moved.update(x=moved["x"] + 3, enabled=True)
    moved.pop("mask", None)
    (third,) = predict(client, again)
    assert third["result"][0]["value"] != second["result"][0]["value"]
    assert len(runs) == 2


def test_a_regions_text_comes_back_with_it(client, label_studio, media_root):
    body = payload("predict_interactive_video_textarea_perregion")
    (prediction,) = predict(client, body)
    assert [(r["id"], r["type"]) for r in prediction["result"]] == [
        ("2QSM3DtCny", "videorectangle"), ("2QSM3DtCny", "textarea"),
    ]
    assert prediction["result"][1] == body["params"]["context"]["result"][1]


def test_a_lone_text_area_tracks_the_drafts_boxes(client):
    body = payload("predict_interactive_video_textarea_perregion")
    text = body["params"]["context"]["result"][1] | {"id": "global"}
    body["params"]["context"]["result"] = [text]
    (prediction,) = predict(client, body)
    assert [r["id"] for r in prediction["result"]] == ["2QSM3DtCny"]


def test_ghost_calls_are_answered_without_media_or_model(make_client, label_studio):
    client = make_client(load=lambda _: 1 / 0)
    ghost = payload("predict_interactive_ghost_after_submit_empty_context")
    assert predict(client, ghost) == [{"result": [], "model_version": VERSION, "score": 0.0}]
    assert label_studio.asked == []


# --- batches -----------------------------------------------------------------


def test_a_batch_has_an_item_a_task_and_nothing_where_nothing_is_asked(client):
    body = payload("predict_batch")
    box = body["tasks"][0]["annotations"][0]["result"][0]["value"]["sequence"][0]
    box.update(x=20, y=20, width=30, height=30)
    results = predict(client, body)
    assert len(results) == len(body["tasks"]) > 1
    assert results[0]["result"][0]["id"] == "x"
    assert results[0]["model_version"] == VERSION
    assert results[1:] == [[]] * (len(results) - 1)


def test_a_task_that_fails_does_not_take_the_batch_with_it(client, caplog):
    good = payload("predict_batch")["tasks"][0]
    gone = json.loads(json.dumps(good)) | {"data": {"video": "/data/upload/1/gone.mp4"}}
    results = predict(client, payload("predict_batch") | {"tasks": [gone, good]})
    assert results[0] == [] and results[1]["result"]
    assert "gone.mp4" in caplog.text


def test_tasks_that_time_does_not_suffice_for_are_finished_later(make_client, model):
    may_go_on = threading.Event()

    def held(*arguments, **options):
        may_go_on.wait(60)
        yield from model.track(*arguments, **options)

    client = make_client(track=held, answer_seconds=0.5)
    task = payload("predict_batch")["tasks"][0]
    body = payload("predict_batch") | {"tasks": [task | {"id": n} for n in (1, 2, 3)]}
    assert predict(client, body) == [[], [], []]
    jobs = client.application.extensions["sam2"].jobs
    waiting = jobs.store.list()
    assert {job.task_id for job in waiting} == {1, 2, 3}
    may_go_on.set()
    wait_until(lambda: all(job.state is JobState.DONE for job in jobs.store.list()), 120)
    wait_until(lambda: all(predict(client, body)))  # not while they may be being posted
    results = predict(client, body)
    assert [region["id"] for result in results for region in result["result"]] == ["x"] * 3
    assert len(jobs.store.list()) == 3


def test_opening_a_task_does_not_wait_for_its_tracks(make_client, model):
    may_go_on = threading.Event()

    def held(*arguments, **options):
        may_go_on.wait(60)
        yield from model.track(*arguments, **options)

    client = make_client(track=held, answer_seconds=600, open_seconds=0.2)
    body = payload("predict_batch")
    body["tasks"] = body["tasks"][:1]
    assert predict(client, body) == [[]]
    may_go_on.set()
    store = client.application.extensions["sam2"].store
    wait_until(lambda: store.list()[0].state is JobState.DONE, 120)
    wait_until(lambda: predict(client, body)[0])  # not while it may be being posted
    (result,) = predict(client, body)
    assert [region["id"] for region in result["result"]] == ["x"]


def test_opening_a_task_says_nothing(client, label_studio):
    assert predict(client, payload("predict_on_task_open")) == [[]]
    assert label_studio.asked == []


# --- frames as images --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "decode"),
    [
        (CLICKS_CALL, "brushlabels", lambda v: brush_rle.decode(v["rle"], (240, 320))),
        (
            BITMASK_CALL, "bitmasklabels",
            lambda v: bitmask_png.decode(v["imageDataURL"], (240, 320)),
        ),
    ],
)
def test_clicks_on_a_frame_give_masks_on_all_frames(client, name, kind, decode):
    (prediction,) = predict(client, payload(name))
    regions = prediction["result"]
    assert [region["item_index"] for region in regions] == list(range(len(regions)))
    assert len(regions) == 6
    assert {region["type"] for region in regions} == {kind}
    assert len({region["id"] for region in regions}) == 6
    for region in regions:
        assert region["value"][kind] == ["Car"]
        assert decode(region["value"]).any()


def test_a_single_image_is_answered_as_a_video_of_one_frame(client):
    body = payload(CLICKS_CALL)
    body["label_config"] = body["label_config"].replace('valueList="$frames"', 'value="$image"')
    body["tasks"][0]["data"] = {"image": "/data/local-files/?d=sub/f0.jpg"}
    results = body["params"]["context"]["result"]
    body["params"]["context"]["result"] = [r for r in results if r.pop("item_index") == 0]
    (prediction,) = predict(client, body)
    assert [region["item_index"] for region in prediction["result"]] == [0]


def test_no_more_regions_are_answered_than_the_editor_bears(make_client):
    (prediction,) = predict(make_client(max_brush_regions=2), payload(CLICKS_CALL))
    # The clicks are on these two.
    assert [region["item_index"] for region in prediction["result"]] == [0, 2]


# --- many at once ------------------------------------------------------------


def test_answers_of_requests_at_the_same_time_are_not_mixed(make_client):
    client = make_client()
    alone = {name: predict(client, payload(name)) for name in (VIDEO_CALL, CLICKS_CALL)}
    names = [VIDEO_CALL, CLICKS_CALL, VIDEO_CALL, CLICKS_CALL]
    app = client.application
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: predict(app.test_client(), payload(name)), names))
    assert answers == [alone[name] for name in names]


def test_one_request_too_many_is_told_to_come_later(make_client, model):
    entered, may_go_on = threading.Event(), threading.Event()

    def held(*arguments, **options):
        entered.set()
        may_go_on.wait(30)
        yield from model.track(*arguments, **options)

    client = make_client(track=held, max_waiting_requests=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(predict, client.application.test_client(), payload(VIDEO_CALL))
        assert entered.wait(10)
        answer = client.post("/predict", json=payload(VIDEO_CALL))
        assert client.get("/health").json["model"] == "ready"
        ghost = payload("predict_interactive_ghost_after_submit_empty_context")
        assert predict(client, ghost)[0]["result"] == []
        may_go_on.set()
        assert first.result()[0]["result"]
    assert answer.status_code == 429 and "too many" in answer.json["detail"]
    assert int(answer.headers["Retry-After"]) > 0


# --- errors ------------------------------------------------------------------


def changed(name, change):
    body = payload(name)
    change(body)
    return body


def set_context(**fields):
    def change(body):
        body["params"]["context"]["result"][0].update(fields)

    return change


def set_video(reference):
    def change(body):
        body["tasks"][0]["data"]["video"] = reference

    return change


def set_box(**fields):
    def change(body):
        body["params"]["context"]["result"][0]["value"]["sequence"][0].update(fields)

    return change


def set_config(text):
    def change(body):
        body["label_config"] = text

    return change


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (set_box(x="left"), 400, "x 'left', must be a finite number"),
        (set_box(x=200), 400, "must have an area inside the picture"),
        (set_context(from_name="other"), 400, "no VideoRectangle named 'other'"),
        (set_context(to_name="other"), 400, "no <Video> named 'other'"),
        (set_config("<View>"), 400, "not well-formed"),
        (set_config("<View/>"), 422, "cannot be served"),
        (lambda body: body["tasks"][0].pop("data"), 400, "data must be an object"),
        (lambda body: body["tasks"][0]["data"].clear(), 400, "no field 'video'"),
        (set_video("/data/upload/1/gone.mp4"), 404, "gone.mp4"),
        (set_video("/data/upload/1/forbidden.mp4"), 502, "LABEL_STUDIO_API_KEY"),
        (set_video("/etc/passwd"), 403, "SAM2_MEDIA_ROOTS"),
        (set_video("s3://bucket/a.mp4"), 404, "source storage"),
        (set_video("ftp://host/a.mp4"), 403, "ftp:"),
        (set_video("http://10.0.0.1/a.mp4"), 403, "private"),
        (set_video("/data/local-files/?d=sub/notes.mp4"), 422, "notes.mp4"),
        (set_video(["a"]), 422, "must be a path or a URL"),
    ],
)
def test_an_error_names_the_value_and_the_rule(
    client, label_studio, media_root, change, status, message
):
    (media_root / "sub" / "notes.mp4").write_text("no video")
    label_studio.replies["/data/upload/1/forbidden.mp4"] = Reply(status=401)
    answer = client.post("/predict", json=changed(VIDEO_CALL, change))
    assert (answer.status_code, answer.is_json) == (status, True), answer.get_data(as_text=True)
    assert message in answer.json["detail"]
    assert answer.json["error"]


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"max_frames": 3}, 413, f"has {FRAME_COUNT} frames, may have 3"),
        ({"max_download_bytes": 100}, 413, "at most 100"),
        ({"max_request_bytes": 100}, 413, "exceeds"),
    ],
)
def test_limits_are_told(make_client, changes, status, message):
    answer = make_client(**changes).post("/predict", json=payload(VIDEO_CALL))
    assert answer.status_code == status
    assert message in answer.json["detail"]


def test_too_many_objects_are_refused(make_client):
    body = payload(VIDEO_CALL)
    (region,) = body["params"]["context"]["result"]
    body["params"]["context"]["result"].append(region | {"id": "another"})
    answer = make_client(max_objects=1).post("/predict", json=body)
    assert answer.status_code == 413 and "2 objects" in answer.json["detail"]


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "\xff", '{"tasks": []}', "null", "[]", '{"tasks": 3}']
)
def test_a_body_that_is_no_request_is_a_bad_one(client, text):
    answer = client.post(
        "/predict", data=text.encode("latin-1"), content_type="application/json"
    )
    assert answer.status_code == 400
    assert set(answer.json) == {"error", "detail", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("get", "/nothing", 404), ("get", "/predict", 405)]
)
def test_http_errors_are_json_too(client, method, path, status):
    answer = getattr(client, method)(path)
    assert answer.status_code == status and answer.json["error"]


def leaves(value, path=()):
    """The path of every value inside, containers too."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from leaves(item, (*path, key))


@pytest.mark.parametrize("name", [VIDEO_CALL, CLICKS_CALL])
def test_no_odd_value_anywhere_is_a_server_error(make_client, name):
    def finds_nothing(*_, **__):
        yield from ()

    client = make_client(track=finds_nothing)
    assert client.post("/predict", json=payload(name)).status_code == 200
    parts = ("context", "data")
    for path in [p for p in leaves(payload(name)) if any(part in p for part in parts)]:
        for odd in (None, [], {}, "x", -1, 1e308, [["x"]]):
            body = payload(name)
            inner = body
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = odd
            answer = client.post("/predict", json=body)
            assert answer.status_code < 500 or answer.status_code == 503, (path, odd, answer.json)


def test_a_bug_is_a_500_with_a_traceback_in_the_log_alone(make_client, caplog):
    def broken(*_, **__):
        raise KeyError("internal detail")

    answer = make_client(track=broken).post("/predict", json=payload(VIDEO_CALL))
    assert answer.status_code == 500
    assert answer.json["detail"] == "KeyError; the server's log has the traceback"
    assert "internal detail" in caplog.text
    # The next one is not kept waiting by a lock that was never given back.
    answer = make_client(track=broken).post("/predict", json=payload(VIDEO_CALL))
    assert answer.status_code == 500


def test_no_token_is_logged_or_answered(client, caplog, label_studio):
    caplog.set_level(logging.DEBUG)
    setup = payload("setup") | {"access_token": "token-of-setup"}
    webhook = payload("webhook_annotation_created")
    webhook["project"]["token"] = "token-of-project"
    signed = changed(VIDEO_CALL, set_video("/data/upload/gone.mp4?signature=signed-key"))
    answers = [
        client.post("/setup", json=setup),
        client.post("/webhook", json=webhook),
        client.post("/predict", json=payload(VIDEO_CALL)),
        client.post("/predict", json=signed),
        client.post("/predict", json=changed(VIDEO_CALL, set_video("/data/upload/forbidden"))),
    ]
    assert label_studio.tokens()[0] == "Token secret-key"
    told = caplog.text + "".join(answer.get_data(as_text=True) for answer in answers)
    for secret in ("token-of-setup", "token-of-project", "signed-key", "secret-key"):
        assert secret not in told


def test_the_log_formatter_hides_secrets_in_tracebacks_too():
    formatter = RedactingFormatter(["secret-key"])
    try:
        raise ValueError("secret-key is bad")
    except ValueError as error:
        kind = type(error), error, error.__traceback__
    record = logging.LogRecord("x", logging.ERROR, "", 1, "key %s", ("secret-key",), kind)
    text = formatter.format(record)
    assert "secret-key" not in text and "ValueError: *** is bad" in text


def test_settings_default_to_the_environments(monkeypatch, model, tmp_path):
    monkeypatch.setenv("SAM2_DATA_FOLDER", str(tmp_path / "service"))
    monkeypatch.setenv("SAM2_MODEL", "sam2.1_hiera_tiny")
    app = create_app(load=lambda _: model)
    assert app.test_client().get("/versions").json == {"versions": ["sam2:sam2.1_hiera_tiny"]}


def test_settings_are_not_shared_between_apps(settings, model):
    other = dataclasses.replace(
        settings, model="other", data_folder=settings.data_folder / "other"
    )
    apps = [create_app(item, load=lambda _: model) for item in (settings, other)]
    versions = [app.test_client().get("/versions").json["versions"] for app in apps]
    assert versions == [["sam2:demo"], ["sam2:other"]]
    assert isinstance(settings, Settings)
