"""Label Studio's API: what is asked, what comes back, what each refusal means."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backend.label_studio_client import (
    LabelStudioClient,
    LabelStudioError,
    LabelStudioFailure,
    TokenKind,
)
from backend.settings import Settings
from tests.backend.label_studio_server import (
    KEY,
    PAGE_SIZE,
    Answer,
    problem,
    refused,
    serving_label_studio,
)

CONFIG = """<View><Labels name="labels" toName="video"><Label value="Car"/></Labels>
<Video name="video" value="$video" framerate="$fps"/><VideoRectangle name="box" toName="video"/>
</View>"""
KEYFRAME = {"frame": 1, "x": 20, "y": 20, "width": 30, "height": 30, "rotation": 0,
            "enabled": True, "time": 0.04}
REGION = {"id": "a", "from_name": "box", "to_name": "video", "type": "videorectangle",
          "value": {"labels": ["Car"], "framesCount": 24, "duration": 0.96, "sequence": [KEYFRAME]}}


@pytest.fixture
def server():
    with serving_label_studio() as server:
        yield server


@pytest.fixture
def client(server):
    return LabelStudioClient(server.url, KEY)


def jwt(number: int = 1, **claims) -> str:
    def part(value) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    claims = {"token_type": "refresh", "exp": 4102444800, "jti": str(number), **claims}
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{'s' * 43}"


def test_neither_the_service_nor_the_command_line_loads_the_sdk():
    code = "import sys, backend.app, backend.cli, backend.label_studio_client as c; "
    code += "c.LabelStudioClient('http://h', 'k'); sys.exit('label_studio_sdk' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_settings_without_a_server_or_key_say_what_to_set():
    with pytest.raises(ValueError, match="LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"):
        LabelStudioClient.from_settings(Settings(label_studio_url="http://ls"))


def test_a_project_its_tasks_and_their_work_are_stored_and_read_back(server, client, tmp_path):
    project_id = client.create_project("P", CONFIG, evaluate_predictions_automatically=True)["id"]
    assert client.project(project_id)["evaluate_predictions_automatically"] is True
    assert client.update_project(project_id, title="Q")["title"] == "Q"
    assert [project["title"] for project in client.projects()] == ["Q"]

    file = tmp_path / "clip one.mp4"
    file.write_bytes(b"video")
    url = client.upload_file(project_id, file)
    assert url.startswith(f"/data/upload/{project_id}/") and url.endswith("-clip_one.mp4")
    (task_id,) = client.import_tasks(project_id, [{"data": {"video": url, "fps": 25.0}}])
    (head,) = client.task_heads(project_id)
    assert head["data"] == {"video": url, "fps": 25.0}

    annotation_id = client.create_annotation(task_id, [REGION])
    assert [item["id"] for item in client.annotations(task_id)] == [annotation_id]
    prediction_id = client.create_prediction(task_id, [REGION], score=0.5, model_version="m")
    (prediction,) = client.predictions(task_id)
    assert (prediction["result"], prediction["score"]) == ([REGION], 0.5)
    assert [task["id"] for task in client.tasks(project_id)] == [task_id]
    client.delete_prediction(prediction_id)
    assert client.predictions(task_id) == []


def test_listing_tasks_and_their_work_never_opens_a_task(server, client):
    """Opening one makes Label Studio ask the model, which may be who is asking here."""
    project_id = server.add_project(CONFIG)
    task_id = server.add_task(project_id, {})
    list(client.task_heads(project_id))
    list(client.tasks(project_id))
    client.newest_draft_or_annotation(task_id)
    assert not [
        call for call in server.calls if call.path == f"/api/tasks/{task_id}/"
    ]
    heads = [call for call in server.calls if call.path == "/api/tasks/"]
    assert all(call.query["review"] == "true" for call in heads)


@pytest.mark.parametrize("count", [0, 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE])
def test_every_page_is_read_to_the_end(server, client, count):
    project_id = server.add_project(CONFIG)
    ids = [server.add_task(project_id, {"n": number}) for number in range(count)]
    assert [task["id"] for task in client.task_heads(project_id)] == ids
    assert [task["id"] for task in client.tasks(project_id)] == ids


def test_several_uploads_come_back_in_the_order_given(server, client, tmp_path):
    project_id = server.add_project(CONFIG)
    files = [tmp_path / f"f{number}.jpg" for number in (3, 1, 2)]
    for file in files:
        file.write_bytes(b"jpeg")
    urls = client.upload_files(project_id, files)
    assert [url.rpartition("-")[2] for url in urls] == ["f3.jpg", "f1.jpg", "f2.jpg"]


def test_the_newest_of_drafts_and_annotations_counts(server, client):
    def work(number, time, **more):
        return {"id": number, "updated_at": f"2026-11-25T07:{time}.5Z", "result": [], **more}

    task_id = server.add_task(
        server.add_project(CONFIG), {},
        annotations=[work(1, "10:00"), work(2, "30:00", was_cancelled=True)],
        drafts=[work(3, "20:00")],
    )
    newest = client.newest_draft_or_annotation(task_id)
    assert (newest.id, newest.is_draft) == (3, True)
    server.tasks[task_id]["annotations"][0]["updated_at"] = "2026-11-25T07:25:00.5Z"
    assert client.newest_draft_or_annotation(task_id).id == 1
    server.tasks[task_id] |= {"annotations": [], "drafts": []}
    assert client.newest_draft_or_annotation(task_id) is None


def test_a_model_and_its_webhook_are_connected(server, client):
    project_id = server.add_project(CONFIG)
    backend = client.connect_backend(project_id, "http://b:9090", "SAM 2")
    assert backend["is_interactive"] is True and "auth_method" not in backend
    assert client.update_backend(backend, is_interactive=False)["is_interactive"] is False
    assert [item["url"] for item in client.ml_backends(project_id)] == ["http://b:9090"]
    hook = client.create_webhook(project_id, "http://b/x", ["ANNOTATION_CREATED"])
    assert hook["actions"] == ["ANNOTATION_CREATED"] and not hook["send_for_all_actions"]
    assert len(client.webhooks(project_id)) == 2
    other = client.connect_backend(project_id, "http://c", "C", basic_auth=("user", "pass"))
    assert (other["auth_method"], other["basic_auth_user"]) == ("BASIC_AUTH", "user")


@pytest.mark.parametrize("is_blocked", [True, False])
def test_whether_an_address_is_blocked_is_told_without_connecting_anything(
    server, client, is_blocked
):
    server.add_project(CONFIG)
    server.blocks_private_addresses = is_blocked
    assert client.blocks_address("http://127.0.0.1:9090") is is_blocked
    assert server.backends == []


def test_an_export_waits_for_its_snapshot_and_removes_it(server, client):
    project_id = server.add_project(CONFIG)
    server.add_task(project_id, {}, predictions=[{"id": 7, "result": [REGION]}])
    server.snapshot_states = ["created", "in_progress", "completed"]
    file, waits = io.BytesIO(), []
    client.export_json(project_id, file, wait=waits.append)
    assert json.loads(file.getvalue())[0]["predictions"] == [7]
    assert len(waits) == 2 and server.snapshots == {}

    server.snapshot_states = ["completed"]
    file = io.BytesIO()
    client.export_json(project_id, file, in_full=True)
    assert json.loads(file.getvalue())[0]["predictions"][0]["result"] == [REGION]


def test_an_export_that_fails_there_is_said_and_removed(server, client):
    server.snapshot_states = ["failed"]
    with pytest.raises(LabelStudioError, match="the export is 'failed'"):
        client.export_json(server.add_project(CONFIG), io.BytesIO())
    assert server.snapshots == {}


# --- refusals -------------------------------------------------------------------

PAGE = Answer(b"<!DOCTYPE html><html>Log in</html>", 200, {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("answer", "failure", "message"),
    [
        (problem(401, "Invalid token."), "TOKEN_REFUSED", "make a new key"),
        (
            problem(401, "Authentication token no longer valid: legacy token authentication has "
                    "been disabled for this organization"),
            "TOKEN_REFUSED", "use a personal access token",
        ),
        (problem(403, "You do not have permission"), "TOKEN_REFUSED", "may not do this"),
        (problem(404, "No Project matches"), "NOT_FOUND", "does not exist"),
        (Answer(b"<html>", 404), "NOT_LABEL_STUDIO", "check LABEL_STUDIO_URL"),
        (refused(label_config=["bad"]), "CONTENT_REFUSED", "(label_config: bad): it must be"),
        (
            refused(non_field_errors=["Can't connect to ML backend, <a href='x'>Learn</a> more"]),
            "CONTENT_REFUSED", "Learn more): start the service",
        ),
        (problem(429, "Request was throttled."), "BUSY", "try again later"),
        (problem(500, "Unknown error"), "BUSY", "Label Studio's log"),
        (Answer(b"<html>Bad Gateway</html>", 502), "BUSY", "answered 502: try again"),
        (PAGE, "NOT_LABEL_STUDIO", "check LABEL_STUDIO_URL"),
        (Answer(b"[1, 2", 200), "NOT_LABEL_STUDIO", "check LABEL_STUDIO_URL"),
    ],
)
def test_every_refusal_says_what_was_asked_and_what_to_do(
    server, client, answer, failure, message
):
    server.special["GET", "/api/projects/5/"] = answer
    with pytest.raises(LabelStudioError) as caught:
        client.project(5)
    error = caught.value
    assert error.failure is LabelStudioFailure[failure]
    assert f"{server.url} was asked for project 5" in error.detail and message in error.detail
    assert error.is_retryable is (failure == "BUSY")
    assert error.http_status == answer.status


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), (None, None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None)],
)
def test_the_wait_that_it_asks_for_is_kept(server, client, header, seconds):
    answer = problem(429, "Request was throttled.")
    answer.headers = {} if header is None else {"Retry-After": header}
    server.special["GET", "/api/projects/5/"] = answer
    with pytest.raises(LabelStudioError) as caught:
        client.project(5)
    assert caught.value.retry_after_seconds == seconds
    assert len(server.calls) == 1  # whoever calls decides whether to try again


def test_a_server_that_is_not_there_is_unreachable():
    with serving_label_studio() as server:
        url = server.url
    with pytest.raises(LabelStudioError, match="is Label Studio running") as caught:
        LabelStudioClient(url, KEY).who_am_i()
    assert caught.value.failure is LabelStudioFailure.UNREACHABLE and caught.value.is_retryable


def test_a_server_that_never_answers_is_given_up(server):
    is_over = threading.Event()

    def hang(call):
        is_over.wait(60)
        return Answer({})

    server.special["GET", "/api/current-user/whoami"] = hang
    with pytest.raises(LabelStudioError, match="took too long") as caught:
        LabelStudioClient(server.url, KEY, timeout_seconds=0.2).who_am_i()
    is_over.set()
    assert caught.value.is_retryable


@pytest.mark.parametrize("body", [{"results": 3}, [], {"results": None}, "text"])
def test_json_of_another_form_is_no_label_studio(server, client, body):
    server.special["GET", "/api/projects/"] = Answer(body)
    with pytest.raises(LabelStudioError) as caught:
        list(client.projects())
    assert caught.value.failure is LabelStudioFailure.NOT_LABEL_STUDIO


def test_the_key_is_in_no_error_even_when_the_server_repeats_it(server, client, caplog):
    server.special["GET", "/api/projects/5/"] = problem(400, f"bad header Token {KEY} in x")
    caplog.set_level("DEBUG")
    with pytest.raises(LabelStudioError) as caught:
        client.project(5)
    assert KEY not in str(caught.value) + repr(caught.value) + caplog.text
    assert "Token *** in x" in caught.value.detail


def test_the_key_does_not_follow_a_redirect(server, client):
    with serving_label_studio() as other:
        answer = Answer(None, 307, {"Location": f"{other.url}/api/projects/5/?key=1"})
        server.special["GET", "/api/projects/5/"] = answer
        with pytest.raises(LabelStudioError, match="it sends on to") as caught:
            client.project(5)
        assert "key=1" not in caught.value.detail and other.calls == []


# --- personal access tokens -------------------------------------------------------


def access_server(server):
    """Gives access tokens for refresh tokens, and takes only these."""
    token = jwt(2, token_type="access")

    def refresh(call):
        if call.json == {"refresh": jwt(1)}:
            return Answer({"access": token})
        return problem(401, "Token is invalid", code="token_not_valid")

    def who(call):
        is_known = call.authorization == f"Bearer {token}"
        return Answer({"email": "a@b"}) if is_known else problem(401, "Invalid token.")

    server.special["POST", "/api/token/refresh/"] = refresh
    server.special["GET", "/api/current-user/whoami"] = who


def test_a_personal_access_token_buys_an_access_token_once(server):
    access_server(server)
    client = LabelStudioClient(server.url, jwt(1))
    assert client.token_kind is TokenKind.PERSONAL_ACCESS
    assert client.who_am_i() == client.who_am_i() == {"email": "a@b"}
    assert len(server.asked("POST", "/api/token/refresh/")) == 1


def test_a_server_below_a_path_is_asked_there_for_access_tokens_too(server):
    server.special["POST", "/studio/api/token/refresh/"] = Answer(
        {"access": jwt(2, token_type="access")}
    )
    server.special["GET", "/studio/api/current-user/whoami"] = Answer({"email": "a@b"})
    assert LabelStudioClient(server.url + "/studio", jwt(1)).who_am_i()["email"] == "a@b"


@pytest.mark.parametrize("key", [jwt(9), jwt(1, exp=1000)])
def test_a_refused_or_expired_personal_access_token_is_said(server, key):
    access_server(server)
    with pytest.raises(LabelStudioError, match="make a new key") as caught:
        LabelStudioClient(server.url, key).who_am_i()
    assert caught.value.failure is LabelStudioFailure.TOKEN_REFUSED
    assert key not in str(caught.value)


def test_a_redirect_does_not_get_the_personal_access_token(server):
    with serving_label_studio() as other:
        server.special["POST", "/api/token/refresh/"] = Answer(
            {}, 307, {"Location": f"{other.url}/api/token/refresh/"}
        )
        with pytest.raises(LabelStudioError, match="it sends on to"):
            LabelStudioClient(server.url, jwt(1)).who_am_i()
        assert other.calls == []


# --- what is not sent ---------------------------------------------------------------


def test_what_label_studio_would_fail_on_is_never_sent(server, client):
    task_id = server.add_task(server.add_project(CONFIG), {})
    broken = {**REGION, "value": {**REGION["value"], "sequence": []}}
    with pytest.raises(ValueError, match=r"result\[0\].value.sequence"):
        client.create_prediction(task_id, [broken], score=0.5, model_version="m")
    with pytest.raises(ValueError, match=r"result\[0\].value.sequence"):
        client.create_annotation(task_id, [broken])
    for score, version in ((None, "m"), ("0.5", "m"), (1.2, "m"), (0.5, None)):
        with pytest.raises(ValueError):
            client.create_prediction(task_id, [REGION], score=score, model_version=version)
    assert server.calls == []
