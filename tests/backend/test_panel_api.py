"""The panel's way through the service: tasks, keys, sessions, saving. The real model."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from backend import link_keys
from backend.link_keys import STAND_ALONE, KeyPurpose, make_key
from converters.label_studio.lifespan import region_to_track
from converters.masks import decode_mask
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_server import KEY, Answer, problem, serving_label_studio
from tests.backend.test_sessions_api import CLICK, change, create, propagate, put

LOCAL = "/data/local-files/?d=n25.mp4"
CONFIG = """<View>
  <Labels name="labels" toName="video">
    <Label value="Dog" background="#1A2b3C"/><Label value="Cat" background="teal"/>
    <Label value="Bird"/>
  </Labels>
  <Video name="video" value="$clip" framerate="25"/>
  <VideoRectangle name="box" toName="video"/>
  <Choices name="quality" toName="video"><Choice value="good"/></Choices>
</View>"""
LOGIN = ("annotator", "a password")
CHOICE = {
    "id": "c1", "from_name": "quality", "to_name": "video", "type": "choices",
    "value": {"choices": ["good"]},
}


@pytest.fixture
def studio():
    with serving_label_studio() as server:
        yield server


@pytest.fixture
def project(studio):
    return studio.add_project(CONFIG, title="Clips")


@pytest.fixture
def task(studio, project):
    return studio.add_task(project, {"clip": LOCAL})


@pytest.fixture
def client(make_client, studio):
    return make_client(label_studio_url=studio.url, label_studio_api_key=KEY)


@pytest.fixture
def key_of(settings):
    """A panel's key of a project, as headers."""

    def make(project_id, purpose=KeyPurpose.PANEL):
        return {"X-SAM2-Key": make_key(settings, project_id, purpose)}

    return make


def tasks(client, headers=None, **query):
    text = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    answer = client.get(f"/api/panel/tasks?{text}", headers=headers)
    assert answer.status_code == 200, answer.json
    return [item["id"] for item in answer.json["tasks"]]


# --- the page ----------------------------------------------------------------


def test_the_page_may_be_framed_by_label_studio_alone(make_client, studio):
    client = make_client(
        label_studio_url=studio.url, label_studio_api_key=KEY,
        browser_origins=("https://labels.example.com",),
        basic_auth_user=LOGIN[0], basic_auth_password=LOGIN[1],
    )
    answer = client.get("/panel?video=x&key=k")  # a frame can send no password
    assert answer.status_code == 200 and answer.mimetype == "text/html"
    policy = answer.headers["Content-Security-Policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["frame-ancestors"].split() == [
        "'self'", studio.url, "https://labels.example.com"
    ]
    assert directives["default-src"] == "'none'" and "unsafe" not in policy
    assert "X-Frame-Options" not in answer.headers and "Set-Cookie" not in answer.headers
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert KEY not in answer.text and LOGIN[1] not in answer.text
    assert client.get("/ui").status_code == 401
    again = client.get("/panel", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "name", ["x.js", "..%2Fapp.py", "../app.py", "index.html%00", ".html", "panel_page.py"]
)
def test_the_page_gives_no_other_files(client, name):
    assert client.get(f"/panel/{name}").status_code == 404


# --- finding tasks -----------------------------------------------------------


def test_tasks_are_found_by_their_video_and_described(client, studio, project, task):
    other = studio.add_task(project, {"clip": "/data/upload/1/x.mp4", "name": LOCAL})
    again = studio.add_task(project, {"clip": studio.url + LOCAL})
    studio.add_project("<View><Text name='t' value='$t'/></View>")
    answer = client.get(f"/api/panel/tasks?video={quote(LOCAL, safe='')}")
    first, second = answer.json["tasks"]
    assert first == {
        "id": task, "project_id": project, "project_title": "Clips", "shown": "n25.mp4",
        "annotations": 0, "predictions": 0,
        "url": f"{studio.url}/projects/{project}/data?task={task}",
    }
    assert second["id"] == again
    assert tasks(client, video=quote(LOCAL, safe="")) == [task, again]  # escaped twice
    assert tasks(client, video="/data/upload/1/x.mp4") == [other]
    assert tasks(client, video="/data/upload/1/gone.mp4") == tasks(client, video="") == []
    page = client.get(f"/api/panel/tasks?project={project}&page=1").json
    assert [t["id"] for t in page["tasks"]] == [task, other, again]
    assert (page["total"], page["page"]) == (3, 1)
    assert client.get(f"/api/panel/tasks?project={project}&page=9").json["tasks"] == []


@pytest.mark.parametrize(
    "name", ['a "quoted" one.mp4', "it's.mp4", "ein Bär 🐻.mp4", "100%25 a+b.mp4", "a&b=c#d.mp4", "\\x.mp4"]
)
def test_a_video_is_found_whatever_its_name(client, studio, project, name):
    number = studio.add_task(project, {"clip": f"/data/upload/1/{name}"})
    assert tasks(client, video=f"/data/upload/1/{name}") == [number]


def test_a_cloud_video_is_found_by_the_address_that_the_editor_is_given(client, studio, project):
    number = studio.add_task(project, {"clip": "s3://bucket/n25.mp4"})
    path = f"/tasks/{number}/resolve/?fileuri=czM6Ly9idWNrZXQvbjI1Lm1wNA=="
    assert tasks(client, video=path) == tasks(client, video=studio.url + path) == [number]
    assert tasks(client, video=path.replace("bjI1", "bjI2")) == []


def test_what_cannot_be_looked_for_is_refused(client, project):
    for query, status in (
        ("", 400), ("?page=1", 400), (f"?project={project}&page=0", 400), ("?project=-1", 400),
        ("?project=999&page=1", 404), (f"?video={'x' * 2**20}", 400),
    ):
        answer = client.get(f"/api/panel/tasks{query}")
        assert answer.status_code == status, answer.json
        assert {"error", "detail"} <= set(answer.json) and len(answer.json["detail"]) < 400
    assert client.get("/api/panel/tasks/999999").status_code == 404
    assert client.get(f"/api/panel/tasks/{2**70}").status_code == 400


def test_a_task_tells_its_labels_and_when_it_has_changed(client, studio, project, task):
    path = f"/api/panel/tasks/{task}"
    first = client.get(path).json
    assert [label["value"] for label in first["labels"]] == ["Dog", "Cat", "Bird"]
    assert [label["color"] for label in first["labels"][:2]] == ["#1a2b3c", "#008080"]
    assert first["can_save"] == ["annotation", "draft", "prediction"]
    assert client.get(path).json["version"] == first["version"]
    studio.tasks[task]["drafts"].append({"id": 1, "result": [], "updated_at": "a"})
    second = client.get(path).json["version"]
    studio.tasks[task]["drafts"][0]["updated_at"] = "b"
    assert len({first["version"], second, client.get(path).json["version"]}) == 3


def test_no_model_is_asked_for_what_is_looked_up(client, studio, project, task):
    tasks(client, video=LOCAL)
    client.get(f"/api/panel/tasks/{task}")
    create(client, task_id=task)
    assert studio.asked("GET", "/api/tasks/")
    for call in studio.asked("GET"):
        assert not call.path == f"/api/tasks/{task}/", "this has Label Studio ask its model"
        if call.path == "/api/tasks/":
            assert call.query["review"] == "true"


def test_without_a_label_studio_it_says_so(make_client):
    client = make_client(label_studio_url=None, label_studio_api_key=None)
    answer = client.get("/api/panel/tasks?video=x")
    assert answer.status_code == 422 and "LABEL_STUDIO_URL" in answer.json["detail"]


# --- keys --------------------------------------------------------------------


@pytest.fixture
def closed(make_client, studio):
    return make_client(
        label_studio_url=studio.url, label_studio_api_key=KEY,
        basic_auth_user=LOGIN[0], basic_auth_password=LOGIN[1],
    )


def test_a_key_stands_for_the_password_where_the_panel_works_and_nowhere_else(
    closed, studio, project, task, key_of
):
    headers = key_of(project)
    assert closed.get(f"/api/panel/tasks/{task}").status_code == 401
    assert tasks(closed, headers, video=LOCAL) == [task]
    answer = closed.post("/api/sessions", json={"task_id": task}, headers=headers)
    assert answer.status_code == 201
    session = answer.headers["Location"]
    assert closed.get(f"{session}/frames/0.jpg", headers=headers).status_code == 200
    assert closed.get(f"{session}/frames/0.jpg").status_code == 401
    for path in ("/api/jobs", "/versions", "/metrics", "/ui", "/api/nothing", "/api/panel"):
        assert closed.get(path, headers=headers).status_code == 401, path
    assert closed.post("/predict", json={}, headers=headers).status_code == 401
    assert closed.get(f"{session}?key={headers['X-SAM2-Key']}").status_code == 401


def test_a_key_opens_the_tasks_and_sessions_of_its_project_alone(
    client, studio, project, task, key_of, media_root
):
    other = studio.add_project(CONFIG)
    foreign = studio.add_task(other, {"clip": LOCAL})
    mine, theirs = key_of(project), key_of(other)
    assert tasks(client, mine, video=LOCAL) == [task]
    assert tasks(client, theirs, video=LOCAL) == [foreign]
    for query in (f"?project={other}", f"?video=x&project={other}", f"/{task}?project={other}"):
        assert client.get(f"/api/panel/tasks{query}", headers=mine).status_code == 403
    assert client.get(f"/api/panel/tasks/{foreign}", headers=mine).status_code == 404
    for body, status in (
        ({"task_id": foreign}, 404),
        ({"task_id": foreign, "project_id": other}, 403),
        ({"video": LOCAL}, 403),
        ({"data": {"clip": LOCAL}, "label_config": CONFIG}, 403),
    ):
        answer = client.post("/api/sessions", json=body, headers=mine)
        assert answer.status_code == status, (body, answer.json)

    session = client.post("/api/sessions", json={"task_id": foreign}, headers=theirs).json["id"]
    path = f"/api/sessions/{session}"
    known = client.get(path, headers=theirs)
    missing = client.get("/api/sessions/" + "0" * 32, headers=mine)
    assert known.status_code == 200 and missing.status_code == 404
    sessions = client.application.extensions["sam2"].sessions
    for is_open in (True, False):
        for method, part in (
            ("GET", ""), ("DELETE", ""), ("GET", "/frames/0.jpg"), ("GET", "/frames/0/masks"),
            ("PUT", "/objects/a"), ("PUT", "/objects/a/prompts/0"), ("POST", "/propagate"),
            ("POST", "/save"), ("GET", "/regions"), ("GET", "/tracks.json"), ("GET", "/events"),
            ("GET", "/export?format=coco"), ("POST", "/undo"), ("GET", "/objects/a/masks/0"),
        ):
            body = CLICK if "prompts" in part else {"as": "draft"} if part == "/save" else {}
            answer = client.open(path + part, method=method, json=body, headers=mine)
            assert answer.status_code == 404, (method, part)
            # As for one that there is not: an id that is guessed tells nothing.
            assert answer.json["detail"].replace(session, "") == (
                missing.json["detail"].replace("0" * 32, "")
            )
        if is_open:
            assert sessions.close(session)  # then it would have to be opened for those who may
    assert sessions.open_count == 0
    listed = client.get(f"/api/sessions?task_id={foreign}", headers=theirs).json["sessions"]
    assert [item["id"] for item in listed] == [session]
    assert client.get(f"/api/sessions?task_id={foreign}", headers=mine).json["sessions"] == []
    assert client.get(path, headers=theirs).status_code == 200


def test_whoever_has_a_key_alone_says_what_of_the_task_was_seen(client, project, task, key_of):
    mine = key_of(project)
    session = client.post("/api/sessions", json={"task_id": task}, headers=mine).json["id"]
    for body in ({"as": "annotation"}, {"as": "annotation", "version": None, "overwrite": True}):
        answer = client.post(f"/api/sessions/{session}/save", json=body, headers=mine)
        assert answer.status_code == 400 and "version" in answer.json["detail"]


def test_a_stand_alone_key_is_for_videos_without_a_task(
    make_client, studio, project, task, key_of, media_root
):
    client = make_client(
        label_studio_url=studio.url, label_studio_api_key=KEY, media_roots=(media_root,)
    )
    alone, mine = key_of(STAND_ALONE), key_of(project)
    video = str(media_root / "n25.mp4")
    session = client.post("/api/sessions", json={"video": video}, headers=alone).json["id"]
    assert client.get(f"/api/sessions/{session}", headers=mine).status_code == 404
    answer = client.post("/api/sessions", json={"task_id": task}, headers=alone)
    assert answer.status_code == 403 and "without a task" in answer.json["detail"]
    assert client.get(f"/api/panel/tasks/{task}", headers=alone).status_code == 403
    path = f"/api/sessions?video={quote(video, safe='')}"
    (found,) = client.get(path, headers=alone).json["sessions"]
    assert (found["id"], found["task_id"]) == (session, None)
    assert client.get(path, headers=mine).json["sessions"] == []
    of_task = create(client, task_id=task)
    assert client.get(of_task, headers=alone).status_code == 404


@pytest.mark.parametrize("where", ["/api/sessions?task_id=1", "/api/panel/tasks?video=x"])
def test_a_key_that_is_not_good_is_refused_also_where_none_is_needed(
    client, settings, project, key_of, monkeypatch, where, caplog
):
    good = key_of(project)["X-SAM2-Key"]
    preview = key_of(project, KeyPurpose.PREVIEW)["X-SAM2-Key"]
    number, made, expires, signature = good.split(".")
    wrong = [
        preview, "", "x", good + "x", f"{project + 1}.{made}.{expires}.{signature}",
        f"{number}.{made}.{int(expires) + 1}.{signature}", f"{number}.{expires}.{signature}",
        f"{number}.{int(made) + 1}.{expires}.{signature}", f"{number}.{made}.{expires}.{signature[::-1]}",
    ]
    for key in wrong:
        answer = client.get(where, headers={"X-SAM2-Key": key})
        assert (answer.status_code, answer.json["error"]) == (403, "key refused")
    now = link_keys.time.time()
    monkeypatch.setattr(link_keys.time, "time", lambda: now + 366 * 86400)
    answer = client.get(where, headers={"X-SAM2-Key": good})
    assert answer.status_code == 403
    assert f"project connect {project}" in answer.json["detail"]
    for key in (good, preview):
        assert key.rpartition(".")[2] not in caplog.text + answer.text


def test_a_key_has_a_share_of_requests(make_client, studio, project, key_of):
    client = make_client(
        label_studio_url=studio.url, label_studio_api_key=KEY, key_requests_per_second=0.001
    )
    first, other = key_of(project), key_of(studio.add_project(CONFIG))
    statuses = []
    while 429 not in statuses and len(statuses) < 50:
        answer = client.get("/api/sessions?task_id=1", headers=first)
        statuses.append(answer.status_code)
    assert statuses[0] == 200 and int(answer.headers["Retry-After"]) >= 1
    assert client.get("/api/sessions?task_id=1", headers=other).status_code == 200
    assert client.get("/api/sessions?task_id=1").status_code == 200


# --- saving ------------------------------------------------------------------


@pytest.fixture
def session(client, task):
    path = create(client, task_id=task)
    change(client, "PUT", f"{path}/objects/a", {"labels": ["Dog"]})
    put(client, path)
    return path


def save(client, session, status=200, **body):
    return change(client, "POST", f"{session}/save", {"as": "annotation", **body}, status)


def masks_of(result, media_root):
    (region,) = [part for part in result if part["type"] == "videorectangle"]
    with open_frame_source(media_root / "n25.mp4") as source:
        return region_to_track(region, source.info, 25).masks


def test_what_is_saved_holds_the_masks_that_are_shown(
    client, studio, project, task, session, media_root
):
    _, frames = propagate(client, session)
    shown = {f["frame_index"]: f["objects"]["a"]["mask"]["counts"] for f in frames}
    version = client.get(f"/api/panel/tasks/{task}").json["version"]
    answer = save(client, session, version=version)
    (annotation,) = studio.tasks[task]["annotations"]
    assert answer["id"] == annotation["id"] and answer["left_out"] == []
    assert answer["url"] == f"{studio.url}/projects/{project}/data?task={task}"
    found = masks_of(annotation["result"], media_root)
    assert {index: mask.counts for index, mask in found.items()} == shown
    assert len(shown) == FRAME_COUNT
    assert answer["version"] == client.get(f"/api/panel/tasks/{task}").json["version"]
    state = client.get(session).json
    saved = state["saved"]
    assert (saved["as"], saved["id"]) == ("annotation", annotation["id"])
    assert (saved["revision"], saved["serial"]) == (state["revision"], state["serial"])


@pytest.mark.parametrize("way", ["annotation", "draft", "prediction"])
def test_saving_again_changes_what_was_saved_and_keeps_what_else_it_has(
    make_client, client, studio, task, session, way
):
    first = save(client, session, **{"as": way})
    (item,) = studio.tasks[task][f"{way}s"]
    if way != "prediction":
        item["result"].append(CHOICE)
        relation = {"type": "relation", "from_id": "a", "to_id": "a", "direction": "right"}
        item["result"].append(relation)
    change(client, "PUT", f"{session}/objects/b", {"labels": ["Cat"]})
    put(client, session, "b", frame=2)
    client.application.extensions["sam2"].stop()
    client = make_client(label_studio_url=studio.url, label_studio_api_key=KEY)
    assert client.get(session).json["saved"]["id"] == first["id"]
    second = save(client, session, **{"as": way})
    (item,) = studio.tasks[task][f"{way}s"]
    assert second["id"] == first["id"] == item["id"]
    regions = [part["id"] for part in item["result"] if part["type"] == "videorectangle"]
    assert regions == ["a", "b"]
    if way == "prediction":
        assert 0 < item["score"] <= 1 and item["model_version"].startswith("sam2")
        return
    assert CHOICE in item["result"] and relation in item["result"]
    change(client, "DELETE", f"{session}/objects/a")
    save(client, session, **{"as": way})
    kinds = [part["type"] for part in studio.tasks[task][f"{way}s"][0]["result"]]
    assert sorted(kinds) == ["choices", "videorectangle"]  # no relation to what is gone


def test_an_answer_that_was_lost_doubles_nothing(client, studio, task, session):
    path = f"/api/tasks/{task}/annotations/"

    def stored_but_unanswered(call):
        del studio.special["POST", path]
        studio.answer(call)
        return problem(504, "gateway timeout")

    studio.special["POST", path] = stored_but_unanswered
    error = save(client, session, 502)
    assert error["error"] == "Label Studio did not take it"
    assert client.get(session).json["saved"] is None
    (annotation,) = studio.tasks[task]["annotations"]
    assert save(client, session)["id"] == annotation["id"]
    assert len(studio.tasks[task]["annotations"]) == 1


def test_two_who_save_at_once_make_one(client, studio, task, session):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: save(client.application.test_client(), session), range(2)))
    assert len({item["id"] for item in found}) == len(studio.tasks[task]["annotations"]) == 1


def test_an_annotation_that_the_session_began_with_is_changed(client, studio, task, session):
    save(client, session)
    later = create(client, task_id=task)
    assert [item["id"] for item in client.get(later).json["objects"]] == ["a"]
    save(client, later)
    assert len(studio.tasks[task]["annotations"]) == 1
    studio.tasks[task]["annotations"].clear()  # somebody has deleted it
    assert save(client, later)["id"] == studio.tasks[task]["annotations"][0]["id"]


def test_a_task_that_has_changed_is_not_overwritten_unasked(client, studio, task, session):
    version = client.get(f"/api/panel/tasks/{task}").json["version"]
    studio.tasks[task]["drafts"].append({"id": 5, "result": [], "updated_at": "later"})
    error = save(client, session, 409, version=version)
    assert error["error"] == "task changed" and "overwrite" in error["detail"]
    assert studio.tasks[task]["annotations"] == []
    save(client, session, version=version, overwrite=True)
    save(client, session)  # and without a version nobody asks


def test_nothing_is_lost_when_label_studio_is_not_there(client, studio, task, session):
    before = client.get(session).json
    path = f"/api/tasks/{task}/annotations/"
    for answer, part in (
        (problem(401, "Invalid token."), "LABEL_STUDIO_API_KEY"),
        (problem(500, "boom"), "try again later"),
        (problem(404, "No Task matches the given query."), "does not exist"),
        (Answer(b"<html>", 200, {"Content-Type": "text/html"}), "LABEL_STUDIO_URL"),
    ):
        for method in ("GET", "POST"):
            studio.special[method, path] = answer
            error = save(client, session, 502)
            assert part in error["detail"] and KEY not in error["detail"]
            del studio.special[method, path]
    assert client.get(session).json == before
    save(client, session)


def test_a_session_without_masks_or_without_a_task_is_not_saved(client, studio, task, media_root):
    empty = create(client, task_id=task)
    assert save(client, empty, 409)["error"] == "nothing to save"
    change(client, "PUT", f"{empty}/objects/a", {"labels": ["Dog"]})
    assert save(client, empty, 409)["error"] == "nothing to save"
    alone = create(client, data={"clip": LOCAL}, label_config=CONFIG)
    put(client, alone)
    assert "export it" in save(client, alone, 422)["detail"]
    assert studio.asked("POST") == studio.asked("PATCH") == []


def test_a_session_that_is_deleted_while_it_is_saved_stays_so(client, studio, task, session):
    path = f"/api/tasks/{task}/annotations/"

    def slow(call):
        del studio.special["POST", path]
        change(client.application.test_client(), "DELETE", session, status=204)
        return studio.answer(call)

    studio.special["POST", path] = slow
    saved = save(client, session)  # Label Studio has it, that is not undone
    assert [item["id"] for item in studio.tasks[task]["annotations"]] == [saved["id"]]
    assert client.get(session).status_code == 404
    assert client.get(f"/api/sessions?task_id={task}").json["sessions"] == []


def test_a_label_config_that_has_changed_is_told(client, studio, project, task, session):
    studio.projects[project]["label_config"] = CONFIG.replace('"Dog"', '"Wolf"')
    error = save(client, session, 409)
    assert "label config" in error["detail"] and "Dog" in error["detail"]
    assert studio.tasks[task]["annotations"] == []


@pytest.mark.parametrize(
    "body", [{}, {"as": "x"}, {"as": ["draft"]}, {"as": "draft", "version": 1},
             {"as": "draft", "overwrite": 1}, {"as": "draft", "more": 1}]
)
def test_an_order_that_is_none_is_refused(client, session, body):
    assert change(client, "POST", f"{session}/save", body, 400)["error"] == "bad request"


# --- export ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coco", "youtube_vis", "sav", "davis", "tracks"])
def test_a_session_is_exported_without_any_label_studio(
    make_client, media_root, tmp_path, name
):
    from converters.formats import open_source

    client = make_client(
        media_roots=(media_root,), label_studio_url=None, label_studio_api_key=None
    )
    session = create(client, video=str(media_root / "n25.mp4"))
    empty = client.get(f"{session}/export?format={name}")
    assert empty.status_code == 409 and "no object has a mask" in empty.json["detail"]
    put(client, session)  # an object without a label
    _, frames = propagate(client, session)
    answer = client.get(f"{session}/export?format={name}")
    assert answer.status_code == 200, answer.text
    assert "attachment" in answer.headers["Content-Disposition"]
    assert json.loads(answer.headers["X-SAM2-Report"]) == []
    path = tmp_path / "out.json"
    if answer.mimetype == "application/zip":
        path = tmp_path / "out"
        zipfile.ZipFile(io.BytesIO(answer.data)).extractall(path)
        (path,) = path.iterdir()
    else:
        path.write_bytes(answer.data)
    (video,) = open_source(path)
    (track,) = video.tracks
    for frame in frames:
        mask = frame["objects"]["a"]["mask"]
        found = decode_mask(track.masks[frame["frame_index"]])
        assert found.sum() and decode_mask(type(track.masks[0])(*mask["size"], mask["counts"])).tolist() == found.tolist()


def test_an_unknown_format_is_refused(client, session):
    for query in ("", "?format=", "?format=yolo", "?format=../x"):
        answer = client.get(f"{session}/export{query}")
        assert answer.status_code == 400 and "must be one of" in answer.json["detail"]
