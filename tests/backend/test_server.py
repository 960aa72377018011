"""A real gunicorn in a process of its own."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend import server
from backend.cli import main
from backend.server import Server, sole_use
from backend.settings import Settings
from tests.backend.conftest import payload
from tests.backend.real_server import RealServer, ask, wait_until_ready

CLICKS_CALL = "predict_interactive_image_valuelist_keypoints_pos_neg_two_frames"


def command_of(kind, port):
    if kind == "our command":
        return ["-m", "backend.cli", "serve", "--port", str(port)]
    options = ["--worker-class", "gthread", "--threads", "12", "--no-control-socket"]
    return ["-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *options, "backend.wsgi:app"]


@pytest.mark.parametrize("kind", ["our command", "wsgi"])
def test_a_server_of_its_own_answers_health_while_it_tracks(kind, checkpoint, media_root, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "SAM2_CHECKPOINT": str(checkpoint),
        "SAM2_MEDIA_CACHE": str(tmp_path / "cache"),
        "SAM2_DATA_FOLDER": str(tmp_path / "service"),
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media_root),
    }
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command_of(kind, port)],
            env=environment, stdout=log, stderr=subprocess.STDOUT,
        )
        try:
            wait_until_ready(url, process)
            with ThreadPoolExecutor(1) as pool:
                tracking = pool.submit(ask, f"{url}/predict", payload(CLICKS_CALL))
                times = []
                while not tracking.done():
                    begin = time.perf_counter()
                    assert ask(f"{url}/health")["model"] == "ready"
                    times.append(time.perf_counter() - begin)
                    time.sleep(0.05)
                assert len(tracking.result()["results"][0]["result"]) == 6
            assert times and max(times) < 0.9  # Label Studio waits for a second
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(20)
    assert status == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_threads_that_predictions_could_use_up_are_refused():
    with pytest.raises(ValueError, match="threads=8 must be above max_waiting_requests=8"):
        Server(Settings(), host="127.0.0.1", port=9090, threads=8)


def test_two_servers_do_not_share_a_folder_of_jobs(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_LAST_ONE_SECONDS", 0.0)
    with sole_use(tmp_path / "service"):
        other = Server(Settings(data_folder=tmp_path / "service"), host="127.0.0.1", port=0)
        with pytest.raises(ValueError, match="in use by another server.*SAM2_DATA_FOLDER"):
            other.run()
        with sole_use(tmp_path / "elsewhere"):
            pass
    with sole_use(tmp_path / "service"):
        pass


def test_a_place_that_cannot_be_listened_on_is_said_at_once(tmp_path):
    settings = Settings(data_folder=tmp_path / "service")
    with pytest.raises(OSError, match="port 9090 of 192.0.2.1 .* is --host an address of this"):
        Server(settings, host="192.0.2.1", port=9090).run()


@pytest.mark.parametrize("command", [["serve"], ["open", "clip.mp4"], ["worker"]])
@pytest.mark.parametrize("port", ["99999", "65536", "-1", "9090.5", "x", ""])
def test_a_port_that_is_none_is_refused(capsys, command, port):
    with pytest.raises(SystemExit) as ended:
        main([*command, f"--port={port}"])
    assert ended.value.code == 2
    assert f"--port: {port!r} must be a whole number from 1 to 65535" in capsys.readouterr().err


@pytest.fixture
def small_server(checkpoint, tmp_path):
    """With few threads, so that few connections could hold them all."""
    environment = {
        "SAM2_CHECKPOINT": str(checkpoint), "SAM2_DATA_FOLDER": str(tmp_path / "service"),
        "SAM2_MEDIA_CACHE": str(tmp_path / "cache"), "SAM2_REQUEST_SECONDS": "2",
    }  # fmt: skip
    server = RealServer(tmp_path, environment)
    server.command = (*RealServer.command, "--threads", "9")
    server.start()
    yield server
    server.kill()


def connected(server):
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 10)


def test_connections_that_say_nothing_keep_nobody_waiting(small_server):
    with contextlib.ExitStack() as idle:
        for _ in range(60):
            idle.enter_context(connected(small_server))
        assert ask(f"{small_server.url}/health")["status"] == "UP"


def test_more_connections_than_there_are_descriptors_for_keep_nobody_waiting(
    checkpoint, tmp_path
):
    server = RealServer(tmp_path, {
        "SAM2_CHECKPOINT": str(checkpoint), "SAM2_DATA_FOLDER": str(tmp_path / "service"),
        "SAM2_MEDIA_CACHE": str(tmp_path / "cache"),
    })  # fmt: skip
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (330, limits[1]))
    try:
        server.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    try:
        with contextlib.ExitStack() as idle:
            for _ in range(120):
                idle.enter_context(connected(server))
            # Those that say nothing are closed after some seconds, and make room.
            assert ask(f"{server.url}/health")["status"] == "UP"
        assert "Too many open files" not in (tmp_path / "log").read_text()
    finally:
        server.kill()


def goes_on(item):
    """Sends one more byte; whether the server still waits for others."""
    try:
        item.sendall(b" ")
        item.settimeout(0.01)
        item.recv(100)
    except TimeoutError:
        return True
    except OSError:
        pass
    return False


def test_a_request_that_does_not_come_in_time_is_given_up(small_server):
    heads = [b"GET /health HTTP/1.1\r\nHost: a\r\nX: ", b"POST /setup HTTP/1.1\r\nHost: a\r\n"
             b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"]  # fmt: skip
    with contextlib.ExitStack() as slow:
        sockets = [slow.enter_context(connected(small_server)) for _ in range(18)]
        for number, item in enumerate(sockets):
            item.sendall(heads[number % 2])
        end = time.monotonic() + 60
        while sockets and time.monotonic() < end:
            time.sleep(0.2)
            sockets = [item for item in sockets if goes_on(item)]
        assert not sockets
        assert ask(f"{small_server.url}/health")["status"] == "UP"
    assert "Traceback" not in (small_server.folder / "log").read_text()


def test_a_body_in_pieces_is_waited_for(small_server):
    body = b'{"hostname": "' + b"a" * 200_000 + b'"}'
    with connected(small_server) as item:
        item.sendall(
            b"POST /setup HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        for start in range(0, len(body), 50_000):
            item.sendall(body[start : start + 50_000])
            time.sleep(0.1)
        assert item.recv(100).startswith(b"HTTP/1.1 200")


def test_no_peer_says_where_the_service_is_mounted(small_server):
    with connected(small_server) as item:
        item.sendall(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\nSCRIPT_NAME: /health\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert item.recv(100).startswith(b"HTTP/1.1 200")
