"""Previews as browsers ask for them: the real model's masks, over a real video."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, quote, unquote, urlsplit

import av
import numpy as np
import pytest
from flask.testing import FlaskClient

from backend.link_keys import KeyPurpose, make_key
from backend.preview import FramePainter
from backend.preview_renders import Render
from backend.service import TrackWork
from converters.label_studio.lifespan import region_to_track
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT, payload
from tests.backend.http_server import Reply
from tests.backend.test_app import VIDEO_CALL, predict

VIDEO = "/data/upload/1/ef9e5fd2-n25.mp4"
LONG_ENOUGH = 60


CONFIG = '<View><Video name="v" value="$video"/><VideoRectangle name="b" toName="v"/></View>'


@pytest.fixture(autouse=True)
def videos(label_studio):
    """Those that tasks of project 7 have; a test may add more."""
    known = {VIDEO}

    def found(item):
        if item["filter"].endswith(":id"):
            return [{"id": item["value"], "data": {"video": name}} for name in known]
        return [{"id": 1, "data": {"video": item["value"]}}] if item["value"] in known else []

    def answer(asked):
        parts = urlsplit(asked.path)
        if parts.path == "/api/projects/7/":
            body = {"id": 7, "label_config": CONFIG}
        elif parts.path == "/api/tasks/":
            items = json.loads(unquote(parse_qs(parts.query)["query"][0]))["filters"]["items"]
            tasks = [task for item in items for task in found(item)]
            body = {"tasks": tasks, "total": len(tasks)}
        else:
            return Reply(status=404)
        return Reply(json.dumps(body).encode(), headers={"Content-Type": "application/json"})

    label_studio.otherwise = answer
    return known


class Viewer(FlaskClient):
    """Reads every answer to its end, as a server does."""

    def open(self, *args, **options):
        return super().open(*args, buffered=True, **options)


@pytest.fixture
def make_viewer(make_client):
    made = []

    def make(**changes):
        app = make_client(**changes).application
        app.test_client_class = Viewer
        made.append(app.extensions["sam2_previews"])
        made[-1].patience_seconds = LONG_ENOUGH
        return app.test_client()

    yield make
    for previews in made:
        previews.stop()


@pytest.fixture
def client(make_viewer):
    return make_viewer()


@pytest.fixture
def key(settings):
    return make_key(settings, 7, KeyPurpose.PREVIEW)


def tracked(client, body):
    """Predict, and wait until the track is kept: the answer comes a little earlier."""
    results = predict(client, body)
    service = client.application.extensions["sam2"]
    for job in service.store.list():
        if (handle := service.jobs.handle(job.id)) is not None:
            handle.wait(LONG_ENOUGH)
    return results


def link(key, source=VIDEO):
    return f"/preview.mp4?key={key}&src={source}"


def version_of(client, url):
    """The URL of the version that is shown now."""
    answer = client.get(url)
    assert answer.status_code == 302, answer.get_data(as_text=True)
    assert answer.headers["Cache-Control"] == "no-store"
    return "/preview.mp4" + answer.headers["Location"]


def content(client, url, path):
    answer = client.get(version_of(client, url))
    assert (answer.status_code, answer.mimetype) == (200, "video/mp4")
    path.write_bytes(answer.data)
    return path


def pictures_of(path):
    with open_frame_source(path) as source:
        return source.info, [pixels.astype(float) for _, pixels in source.frames()]


def difference(first, second):
    return np.abs(first - second).mean()


# --- what is shown -----------------------------------------------------------


def test_before_a_track_a_placeholder_as_long_as_the_video_and_after_it_the_masks(
    client, key, media_root, tmp_path
):
    info, plain = pictures_of(media_root / "n25.mp4")
    shown, dimmed = pictures_of(content(client, link(key), tmp_path / "a.mp4"))
    assert (shown.width, shown.height) == (info.width, info.height)
    assert shown.duration_seconds == pytest.approx(info.duration_seconds, abs=1e-3)
    assert dimmed[0].mean() < 0.7 * plain[0].mean()

    region = tracked(client, payload(VIDEO_CALL))[0]["result"][0]
    shown, drawn = pictures_of(content(client, link(key), tmp_path / "b.mp4"))
    assert (shown.width, shown.height) == (info.width, info.height)
    np.testing.assert_allclose(shown.frame_times_seconds, info.frame_times_seconds, atol=1e-5)
    assert shown.duration_seconds == pytest.approx(info.duration_seconds, abs=1e-4)

    track = region_to_track(region, info, 25)
    painter = FramePainter([track], info, (info.width, info.height))
    assert len(track.masks) >= FRAME_COUNT - 1
    for index in range(FRAME_COUNT):
        expected = np.asarray(painter.paint(plain[index].astype(np.uint8), index), float)
        assert difference(drawn[index], expected) < 6
        if index in track.masks:
            assert difference(drawn[index], expected) < difference(drawn[index], plain[index])


def test_the_finished_video_is_h264_that_plays_while_it_loads(client, key, tmp_path):
    tracked(client, payload(VIDEO_CALL))
    path = content(client, link(key), tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_while_it_is_drawn_there_is_something_to_look_at(
    client, key, media_root, tmp_path, monkeypatch
):
    tracked(client, payload(VIDEO_CALL))
    previews = client.application.extensions["sam2_previews"]
    previews.patience_seconds = 0.05
    begun, may_go_on = threading.Event(), threading.Event()
    draw = Render._draw

    def slowly(self, grown, source, tracks):
        begun.set()
        assert may_go_on.wait(LONG_ENOUGH)
        draw(self, grown, source, tracks)

    monkeypatch.setattr(Render, "_draw", slowly)
    early = version_of(client, link(key))
    assert begun.wait(LONG_ENOUGH)
    looked = version_of(client, link(key))
    may_go_on.set()
    previews.patience_seconds = LONG_ENOUGH
    finished = version_of(client, link(key))
    assert finished not in (early, looked)
    info, _ = pictures_of(media_root / "n25.mp4")
    for number, url in enumerate((early, looked)):  # they are as they were
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(client.get(url).data)
        shown, _ = pictures_of(path)
        assert shown.duration_seconds == pytest.approx(info.duration_seconds, abs=1e-3)


def test_before_the_first_track_is_complete_there_is_what_there_is_of_it(
    client, key, monkeypatch, media_root, tmp_path
):
    may_be_kept = threading.Event()
    save = TrackWork._save

    def late(self, result_key):
        assert may_be_kept.wait(LONG_ENOUGH)
        save(self, result_key)

    monkeypatch.setattr(TrackWork, "_save", late)
    region = predict(client, payload(VIDEO_CALL))[0]["result"][0]
    assert client.application.extensions["sam2"].store.newest_result_of_media(VIDEO) is None
    _, drawn = pictures_of(content(client, link(key), tmp_path / "a.mp4"))
    may_be_kept.set()
    info, plain = pictures_of(media_root / "n25.mp4")
    painter = FramePainter([region_to_track(region, info, 25)], info, (info.width, info.height))
    expected = np.asarray(painter.paint(plain[3].astype(np.uint8), 3), float)
    assert difference(drawn[3], expected) < 6


def test_many_viewers_render_once(client, key, monkeypatch):
    tracked(client, payload(VIDEO_CALL))
    drawn = []
    draw = Render._draw

    def counted(self, *arguments):
        drawn.append(self.name)
        draw(self, *arguments)

    monkeypatch.setattr(Render, "_draw", counted)
    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(lambda _: version_of(client, link(key)), range(4)))
    assert len(urls) == len(drawn) == 1
    assert version_of(client, link(key)) in urls
    assert len(drawn) == 1


def test_a_version_stays_as_it_is_when_there_is_a_newer_track(client, key, settings):
    tracked(client, payload(VIDEO_CALL))
    first = version_of(client, link(key))
    before = client.get(first)
    body = payload(VIDEO_CALL)
    region = body["params"]["context"]["result"][0]
    region["value"]["sequence"][0]["width"] += 5
    tracked(client, body)
    assert version_of(client, link(key)) != first
    again = client.get(first)
    assert again.data == before.data and again.headers["ETag"] == before.headers["ETag"]


def test_masks_of_another_video_are_not_drawn(client, key, media_root, tmp_path, caplog):
    tracked(client, payload(VIDEO_CALL))
    store = client.application.extensions["sam2"].store
    result = store.newest_result_of_media(VIDEO)
    regions = json.loads(json.dumps(result.regions))
    for keyframe in regions[0]["value"]["sequence"]:
        for mask in (keyframe.get("mask"), *keyframe.get("masks", {}).values()):
            if mask is not None:
                mask["size"] = [1, 1]
    store.save_result(
        dataclasses.replace(result, key="other", regions=tuple(regions)),
        request_key="other", media_stamp="", max_bytes=10**9,
    )
    info, plain = pictures_of(media_root / "n25.mp4")
    shown, dimmed = pictures_of(content(client, link(key), tmp_path / "a.mp4"))
    assert shown.duration_seconds == pytest.approx(info.duration_seconds, abs=1e-3)
    assert dimmed[0].mean() < 0.7 * plain[0].mean()
    assert "cannot be drawn" in caplog.text


@pytest.mark.parametrize(
    "source",
    ["/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/latest", "/data/upload/1/gone.mp4",
     "/data/local-files/?d=../secret.mp4", "", "s3://bucket/x.mp4", "%00"],
)
def test_a_video_that_cannot_be_had_is_still_a_video(client, key, source, tmp_path):
    shown, _ = pictures_of(content(client, link(key, quote(source, safe="%")), tmp_path / "a.mp4"))
    assert (shown.width, shown.height) == (640, 360)


# --- the URL -----------------------------------------------------------------


def test_a_source_is_understood_as_the_editor_fills_it_in_or_escaped(
    client, key, label_studio
):
    tracked(client, payload(VIDEO_CALL))
    first = version_of(client, link(key)).partition("&src=")[0]
    for url in (
        link(key, quote(VIDEO, safe="")),
        link(key, label_studio.url + VIDEO),
        link(key, quote(label_studio.url + VIDEO, safe="")),
        f"/preview.mp4?src={VIDEO}&key={key}",
        f"/preview.mp4?src={quote(VIDEO, safe='')}&key={key}",
    ):
        assert version_of(client, url).partition("&src=")[0] == first


def test_a_source_with_parameters_of_its_own_keeps_them(
    client, key, label_studio, media_root, videos
):
    video = (media_root / "n25.mp4").read_bytes()
    videos.add("/static/v.mp4?a=1&key=2")
    label_studio.replies["/static/v.mp4?a=1&key=2"] = Reply(
        video, headers={"Content-Type": "video/mp4"}
    )
    version_of(client, link(key, "/static/v.mp4?a=1&key=2"))
    assert "/static/v.mp4?a=1&key=2" in [asked.path for asked in label_studio.asked]


def test_a_cloud_video_is_found_by_the_address_that_the_editor_is_given(
    client, key, label_studio, videos
):
    videos.add("s3://bucket/n25.mp4")
    body = payload(VIDEO_CALL)
    task = body["tasks"][0]
    task["data"] = {name: "s3://bucket/n25.mp4" if value == VIDEO else value
                    for name, value in task["data"].items()}
    address = f"/tasks/{task['id']}/presign/?fileuri=czM6Ly9idWNrZXQvbjI1Lm1wNA=="
    label_studio.replies[address] = Reply(status=303, headers={"Location": VIDEO})
    tracked(client, body)
    version = version_of(client, link(key, address)).partition("&src=")[0]
    previews = client.application.extensions["sam2_previews"]
    assert previews._newest_track(["s3://bucket/n25.mp4"]) is not None
    assert version != version_of(client, link(key)).partition("&src=")[0]


# --- HTTP --------------------------------------------------------------------


@pytest.fixture
def version(client, key):
    return version_of(client, link(key))


def test_ranges_are_answered_as_players_need_them(client, version):
    whole = client.get(version)
    size, etag = len(whole.data), whole.headers["ETag"]
    assert whole.headers["Accept-Ranges"] == "bytes"
    for text, begin, end in (
        ("bytes=0-", 0, size), ("bytes=0-9", 0, 10), ("bytes=10-", 10, size),
        ("bytes=-5", size - 5, size), (f"bytes={size - 1}-{size + 99}", size - 1, size),
    ):
        part = client.get(version, headers={"Range": text})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{size}"
        assert part.data == whole.data[begin:end] and part.headers["ETag"] == etag
    beyond = client.get(version, headers={"Range": f"bytes={size}-"})
    assert beyond.status_code == 416
    same = client.get(version, headers={"Range": "bytes=3-4", "If-Range": etag})
    assert same.status_code == 206
    other = client.get(version, headers={"Range": "bytes=3-4", "If-Range": '"other"'})
    assert other.status_code == 200 and other.data == whole.data
    assert client.get(version, headers={"If-None-Match": etag}).status_code == 304


def test_an_endless_range_of_a_large_file_is_answered_in_parts(client, version, monkeypatch):
    size = len(client.get(version).data)
    monkeypatch.setattr("backend.preview_api._PART_BYTES", 1000)
    part = client.get(version, headers={"Range": "bytes=500-"})
    assert part.status_code == 206
    assert part.headers["Content-Range"] == f"bytes 500-1499/{size}"
    assert len(part.data) == 1000


def test_head_tells_the_size_and_sends_nothing(client, version):
    size = len(client.get(version).data)
    head = client.head(version)
    assert head.status_code == 200 and head.data == b""
    assert head.headers["Content-Length"] == str(size)
    assert client.head(version.replace("version=", "version=0")).status_code == 302


def test_a_version_opens_with_a_key_of_its_project_alone(client, settings, key, version):
    """Its name is no secret: it stands in logs and addresses."""
    other = make_key(settings, 8, KeyPurpose.PREVIEW)
    answer = client.get(version.replace(key, other))
    assert answer.status_code == 302 and answer.data == b""
    same = make_key(settings, 7, KeyPurpose.PREVIEW, days=1)
    assert client.get(version.replace(key, same)).status_code == 200


def test_whole_files_are_given_back_their_places(client, version):
    for _ in range(5):
        assert client.get(version).status_code == 200


def test_label_studios_pages_may_read_it_and_no_others(make_viewer, key, label_studio):
    client = make_viewer(browser_origins=("https://labels.example.com",))
    for origin in (label_studio.url, "https://labels.example.com"):
        answer = client.get(link(key), headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Content-Range" in answer.headers["Access-Control-Expose-Headers"]
        assert "Origin" in answer.headers["Vary"]
        asked = client.options("/preview.mp4", headers={
            "Origin": origin, "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "range"})
        assert asked.status_code == 200
        assert "Range" in asked.headers["Access-Control-Allow-Headers"]
    other = client.get(link(key), headers={"Origin": "https://evil.example.com"})
    assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize("wrong", ["", "x", "7.9999999999." + "A" * 43, "{key}x", "8{rest}"])
def test_without_a_key_of_ours_nothing_is_fetched(client, key, label_studio, wrong):
    wrong = wrong.format(key=key, rest=key[1:])
    for url in (link(wrong), link(wrong) + "&version=0" * 32, "/preview.mp4", link(wrong, "")):
        answer = client.get(url)
        assert answer.status_code == 403
        assert set(answer.json) == {"error", "detail", "request_id"} and key not in answer.json["detail"]
    assert label_studio.asked == []


def test_a_key_shows_the_videos_of_its_project_alone(
    client, key, label_studio, videos, settings, tmp_path
):
    videos.clear()
    shown, _ = pictures_of(content(client, link(key), tmp_path / "a.mp4"))
    assert (shown.width, shown.height) == (640, 360)
    other = make_key(settings, 8, KeyPurpose.PREVIEW)
    videos.add(VIDEO)
    shown, _ = pictures_of(content(client, link(other), tmp_path / "b.mp4"))
    assert (shown.width, shown.height) == (640, 360)
    assert VIDEO not in [asked.path for asked in label_studio.asked]
    shown, _ = pictures_of(content(client, link(key), tmp_path / "c.mp4"))
    assert (shown.width, shown.height) == (320, 240)
    videos.clear()  # what was found is not looked for again
    assert version_of(client, link(key)).endswith(VIDEO)


def test_a_key_stands_for_the_services_password(make_viewer, key, label_studio):
    client = make_viewer(basic_auth_user="u", basic_auth_password="p")
    assert client.get("/versions").status_code == 401
    assert client.get(link(key)).status_code == 302
    assert client.options("/preview.mp4").status_code == 200
    assert client.get(link("x")).status_code == 403


def test_a_version_needs_a_key_too(client, version, key):
    assert client.get(version.replace(key, "")).status_code == 403


def test_a_version_that_is_not_kept_leads_to_the_newest(client, version, settings):
    for path in (settings.data_folder / "previews").glob("*.mp4"):
        path.unlink()
    assert client.get(version_of(client, version)).status_code == 200


def test_previews_are_kept_within_their_limit(make_viewer, key, settings):
    client = make_viewer(preview_cache_bytes=1)
    first = version_of(client, link(key))
    assert client.get(first).status_code == 200  # the newest one always is
    version_of(client, link(key, "/gone.mp4"))
    assert len(list((settings.data_folder / "previews").iterdir())) == 1
