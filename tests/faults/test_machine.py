"""The machine itself fails: no room on the disk, a clock that is set, no device memory."""

import errno

import pytest

from tests.backend.calls import box, call, keyframe, saved, task
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_site import status
from tests.backend.real_server import ask, refusal
from tests.faults.conftest import prompt

DAY_SECONDS = 86400


def fill(folder):
    """Until not a byte more can be written there."""
    with open(folder / "filler", "wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


def test_a_full_disk_stops_work_until_there_is_room_and_loses_none(small_disk, server, studio):
    server.set("gate")
    server.start()
    ask(f"{server.url}/webhook", saved(prompt(), task_id=1))
    server.wait_at_the_gate()
    fill(small_disk)
    server.unset("gate")  # the job ends, and nothing of that can be kept
    server.wait_until(lambda: "its end cannot be kept" in server.log())
    large = saved(prompt(), task_id=2, data={"video": "x" * 100_000})
    code, body, headers = refusal(f"{server.url}/webhook", large)
    assert code == 507 and body["error"] == "storage full" and int(headers["Retry-After"]) > 0
    assert "make room" in body["detail"] and ask(f"{server.url}/health")["status"] == "UP"
    (small_disk / "filler").unlink()
    server.wait_until_posted()
    ask(f"{server.url}/webhook", saved(prompt(), task_id=3))
    server.wait_until_posted(2)
    assert [prediction["task"] for prediction in studio.predictions] == [1, 3]


def test_a_disk_that_is_full_at_the_start_is_said(small_disk, server):
    fill(small_disk)
    server.start(until_ready=False)
    assert server.process.wait(240) != 0
    assert "sam2-label-studio: " in server.log() and "Traceback" not in server.log()


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_jumps_loses_and_repeats_nothing(server, studio, days):
    server.start()
    ask(f"{server.url}/webhook", saved(prompt(), task_id=1))
    server.wait_until_posted(1)
    studio.failures = [status(500), status(500), status(500)]
    server.set("gate")
    ask(f"{server.url}/webhook", saved(prompt("b"), task_id=2))
    server.wait_at_the_gate()
    server.set("clock", days * DAY_SECONDS)
    server.unset("gate")
    server.wait_until(lambda: studio.attempts >= 3)
    server.set("clock", 0)
    server.wait_until_posted(2)
    server.set("clock", days * DAY_SECONDS)
    ask(f"{server.url}/webhook", saved(prompt(), task_id=1))  # the same as at first
    ask(f"{server.url}/webhook", saved(prompt("c"), task_id=3))
    server.wait_until_posted(3)
    assert [prediction["task"] for prediction in studio.predictions] == [1, 2, 3]


def test_what_waits_does_so_no_longer_for_a_clock_that_was_ahead(server, studio):
    """A prediction was put off by the wrong clock; the machine starts again with the right one."""
    server.set("clock", 400 * DAY_SECONDS)
    studio.failures = [status(429, Retry_After="600")]
    server.start()
    ask(f"{server.url}/webhook", saved(prompt()))
    server.wait_until(lambda: server.rows("SELECT error IS NULL FROM posts") == [(0,)])
    server.kill()
    server.unset("clock")
    server.start()
    server.wait_until_posted()
    assert len(studio.predictions) == 1


def test_too_little_device_memory_fails_that_job_alone(make_server, checkpoint, studio):
    """Two of three objects fit: they are tracked in pieces. None fits: it is said why."""
    server = make_server(FAULTS_MODEL="real", SAM2_CHECKPOINT=str(checkpoint))
    boxes = [
        box(name, keyframe(1, x=20 + 5 * number, y=25, width=30, height=30))
        for number, name in enumerate("abc")
    ]
    server.set("memory", 2)
    server.start()
    regions = ask(f"{server.url}/predict", call(task(1), *boxes))["results"][0]["result"]
    assert {region["id"] for region in regions} == set("abc")
    assert "out of memory: cached features are dropped" in server.log()
    assert "2 objects at a time from now on" in server.log()
    server.set("memory", 0)
    code, body, headers = refusal(f"{server.url}/predict", call(task(2), boxes[0]))
    assert (code, body["error"]) == (503, "device out of memory")
    assert "use a smaller model" in body["detail"] and "Retry-After" in headers
    job_id = ask(f"{server.url}/webhook", saved(boxes[1], task_id=3))["job"]
    server.wait_until(lambda: ask(f"{server.url}/api/jobs/{job_id}")["error"])
    shown = ask(f"{server.url}/api/jobs/{job_id}")
    assert shown["state"] == "queued" and "too little memory" in shown["error"]
    server.set("memory", 1000)
    regions = ask(f"{server.url}/predict", call(task(4), boxes[2]))["results"][0]["result"]
    assert [item["frame"] for item in regions[0]["value"]["sequence"]][-1] == FRAME_COUNT
    ask(f"{server.url}/webhook", saved(boxes[1], task_id=3))  # asked again, it need not wait
    server.wait_until(lambda: [p["task"] for p in studio.predictions] == [3])
