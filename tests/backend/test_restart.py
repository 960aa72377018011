"""A real server, killed at the worst moments: what was asked is done, and posted once."""

import threading

import pytest

from tests.backend.calls import box, keyframe, saved, wait_until
from tests.backend.conftest import FRAME_COUNT
from tests.backend.http_server import Reply
from tests.backend.label_studio_site import KEY, status
from tests.backend.real_server import STARTING_SECONDS, RealServer, ask


@pytest.fixture
def server(tmp_path, checkpoint, studio, media_root):
    started = RealServer(
        tmp_path,
        {
            "SAM2_CHECKPOINT": str(checkpoint),
            "SAM2_DEVICE": "cpu",
            "SAM2_SAVE_SECONDS": "0.05",
            "SAM2_MEDIA_CACHE": str(tmp_path / "cache"),
            "SAM2_DATA_FOLDER": str(tmp_path / "service"),
            "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media_root),
            "LABEL_STUDIO_URL": studio.url,
            "LABEL_STUDIO_API_KEY": KEY,
        },
    )
    try:
        yield started
    finally:
        if started.process is not None:
            started.kill()


BODY = saved(box("a", keyframe(1, x=25, y=25, width=30, height=30)))


def test_a_killed_server_finishes_what_was_asked_and_posts_it_once(server, studio):
    released = threading.Event()

    def stored_but_never_answered(asked, body):
        studio.store(body)
        released.wait(STARTING_SECONDS)
        return Reply(status=500)

    studio.failures = [status(500), stored_but_never_answered]
    try:
        server.start()
        job_id = ask(f"{server.url}/webhook", BODY)["job"]
        wait_until(lambda: server.rows("SELECT done FROM jobs")[0][0] > 0, STARTING_SECONDS)
        server.kill()  # in the midst of tracking
        assert server.rows("SELECT state FROM jobs") == [("running",)]

        server.start()
        wait_until(lambda: studio.attempts == 1, STARTING_SECONDS)
        wait_until(lambda: server.rows("SELECT state, error FROM posts WHERE error IS NOT NULL"))
        server.kill()  # while the refused prediction waits
        assert server.rows("SELECT id, state, attempts FROM jobs") == [(job_id, "done", 2)]
        assert not studio.predictions
        assert "goes on after" in (server.folder / "log").read_text()
        assert not list((server.folder / "service" / "unfinished").rglob("*-0*"))

        server.start(until_ready=False)
        assert studio.arrived.acquire(timeout=STARTING_SECONDS)
        server.kill()  # before it learns that it has arrived
    finally:
        released.set()

    server.start(until_ready=False)
    wait_until(lambda: server.rows("SELECT state FROM posts") == [("posted",)], STARTING_SECONDS)
    assert studio.attempts == 2
    (prediction,) = studio.predictions
    (region,) = prediction["result"]
    frames = {item["frame"] for item in region["value"]["sequence"]}
    assert prediction["task"] == 1 and min(frames) == 1 and max(frames) == FRAME_COUNT
    assert server.terminate() == 0


def test_a_stopped_server_puts_its_jobs_back(server, studio):
    server.start()
    ask(f"{server.url}/webhook", BODY)
    wait_until(lambda: server.rows("SELECT done FROM jobs")[0][0] > 0, STARTING_SECONDS)
    assert server.terminate() == 0
    ((state, attempts),) = server.rows("SELECT state, attempts FROM jobs")
    assert (state, attempts) in [("queued", 0), ("done", 1)]  # just finished is as good
    server.start(until_ready=False)
    assert studio.arrived.acquire(timeout=STARTING_SECONDS)
