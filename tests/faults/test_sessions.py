"""Interactive sessions of real processes that are stopped, killed, or out of room."""

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.backend.calls import VIDEO, VIDEO_CONFIG
from tests.backend.conftest import FRAME_COUNT
from tests.backend.real_server import STARTING_SECONDS
from tests.faults.test_machine import fill

CLICK = {"points": [{"x": 126, "y": 98}]}
AGAIN = {"points": [{"x": 150, "y": 110}, {"x": 150, "y": 140, "positive": False}]}


@pytest.fixture
def server(make_server, checkpoint):
    return make_server(
        FAULTS_MODEL="real", SAM2_CHECKPOINT=str(checkpoint), SAM2_SAVE_SECONDS="1000"
    )


def send(server, path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{server.url}{path}", data, headers, method=method)
    with urllib.request.urlopen(asked, timeout=STARTING_SECONDS) as answer:
        return json.loads(answer.read() or "null")


def event(server, name, **context):
    body = {
        "tasks": [{"id": 7, "project": 1, "data": {"video": VIDEO}}],
        "label_config": VIDEO_CONFIG,
        "params": {"context": {"event": name, **context}},
    }
    (item,) = send(server, "/predict", body)["results"][0]["result"]
    return item["value"]


def track(server):
    point = {"x": 100 * 110 / 320, "y": 100 * 90 / 240}
    drawn = [{"type": "keypointlabels", "value": point}]
    return event(server, "track", frame=1, result=drawn)["session_id"]


def all_progress(server, session_id):
    """{frame: its picture} and what was said last."""
    frames = {}
    while True:
        told = event(server, "track_progress", session_id=session_id)
        frames |= {frame["frame"]: frame["imageDataURL"] for frame in told["frames"]}
        if told["done"]:
            return frames, told


def propagation(server, session_id):
    told = send(server, f"/api/sessions/{session_id}")["propagation"]
    return told and (told["state"], told["done_frames"], told["total_frames"])


def check_that_the_event_goes_on(server, session_id):
    frames, told = all_progress(server, session_id)
    unbroken, _ = all_progress(server, track(server))
    assert (told["produced"], told["total"], told["error"]) == (FRAME_COUNT, FRAME_COUNT, None)
    assert frames == unbroken and len(frames) == FRAME_COUNT


def test_a_planned_stop_cuts_no_event_short(server):
    server.set("gate", 4)
    server.start()
    session_id = track(server)
    with ThreadPoolExecutor(1) as pool:
        server.wait_at_the_gate()
        ending = pool.submit(server.terminate)
        server.wait_until(lambda: "Handling signal: term" in server.log())
        server.unset("gate")
        assert ending.result() == 0
    server.start()
    state, done, total = propagation(server, session_id)  # what the panel shows, and resumes
    assert (state, total) == ("interrupted", FRAME_COUNT) and 0 < done < FRAME_COUNT
    check_that_the_event_goes_on(server, session_id)


def test_one_that_is_killed_before_its_first_frame_has_begun(server):
    server.set("gate", 0)
    server.start()
    session_id = track(server)
    server.wait_at_the_gate()
    server.kill()
    server.unset("gate")
    server.start()
    assert propagation(server, session_id) == ("interrupted", 0, FRAME_COUNT)
    check_that_the_event_goes_on(server, session_id)


def marked(server):
    opened = {"data": {"video": VIDEO}, "label_config": VIDEO_CONFIG}
    path = f"/api/sessions/{send(server, '/api/sessions', opened, 'POST')['id']}"
    send(server, f"{path}/objects/a/prompts/2", CLICK, "PUT")
    return path


def tracked(server, path, how, asked):
    """Each frame's masks, once it is done."""
    send(server, f"{path}/{how}", asked, "POST")
    server.wait_until(lambda: send(server, path)["propagation"]["state"] == "done")
    return [send(server, f"{path}/frames/{i}/masks")["objects"] for i in range(FRAME_COUNT)]


def corrected(server, path):
    send(server, f"{path}/objects/a/prompts/5", AGAIN, "PUT")
    return tracked(server, path, "propagate", {"direction": "both", "start_frame": 5})


def test_a_killed_session_tracks_on_as_if_nothing_had_been(server):
    """Its memories are those of the first frame: nothing was saved after that."""
    server.set("gate", 1)  # on the way back
    server.start()
    path = marked(server)
    send(server, f"{path}/propagate", {"direction": "both"}, "POST")
    server.wait_at_the_gate()
    server.kill()
    server.unset("gate")
    server.start()
    assert send(server, path)["propagation"]["state"] == "interrupted"
    assert not send(server, path)["memories_lost"]
    resumed = tracked(server, path, "resume", {})
    again = corrected(server, path)
    unbroken = marked(server)
    assert resumed == tracked(server, unbroken, "propagate", {"direction": "both"})
    assert again == corrected(server, unbroken)


def test_what_a_full_disk_refuses_has_not_happened(small_disk, server):
    server.start()
    path, unbroken = marked(server), marked(server)
    send(server, f"{path}/objects/a/prompts/5", AGAIN, "PUT")

    def known():
        frames = [send(server, f"{path}/frames/{i}/masks") for i in range(FRAME_COUNT)]
        return send(server, path), frames

    before = known()
    fill(small_disk)
    for method, change, asked in (
        ("PUT", "objects/a/prompts/3", CLICK),
        ("PUT", "objects/b/prompts/3", CLICK),
        ("PUT", "objects/b", {"labels": ["Dog"]}),
        ("DELETE", "objects/a/prompts/5", {}),
        ("DELETE", "objects/a", {}),
        ("POST", "undo", {}),
        ("POST", "propagate", {}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            send(server, f"{path}/{change}", asked, method)
        with refused.value:
            assert refused.value.code == 507, change
        assert known() == before
    (small_disk / "filler").unlink()
    assert server.terminate() == 0
    server.start()
    before[0]["can_undo"] = False  # steps are not kept
    assert known() == before
    send(server, f"{path}/objects/a/prompts/5", {}, "DELETE")

    server.set("gate", 5)
    send(server, f"{path}/propagate", {}, "POST")
    server.wait_at_the_gate()
    fill(small_disk)
    server.unset("gate")
    server.wait_until(lambda: send(server, path)["propagation"]["state"] != "running")
    assert "make room" in send(server, path)["propagation"]["error"]
    (small_disk / "filler").unlink()
    assert tracked(server, path, "resume", {}) == tracked(server, unbroken, "propagate", {})
