"""`open`: a service of its own in a process of its own, or the one that runs; the real model."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

import pytest

from backend.link_keys import STAND_ALONE, KeyPurpose, check_key
from backend.processes import free_port, running_backend
from tests.backend.http_server import Reply, serving_site

PANEL = re.compile(r"^http://127\.0\.0\.1:\d+/panel\?\S+$", re.MULTILINE)


def asked_of(address):
    """The video, the session's id and the key."""
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    return query["file"][0], query["session"][0], parts.fragment.removeprefix("key=")


def state_of(address):
    _, session, key = asked_of(address)
    parts = urlsplit(address)
    url = f"{parts.scheme}://{parts.netloc}/api/sessions/{session}"
    request = urllib.request.Request(url, headers={"X-SAM2-Key": key})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_it_starts_a_service_that_ends_with_it(media_root, settings):
    video = media_root / "n25.mp4"
    command = [
        sys.executable, "-m", "backend.cli", "open", str(video), "--port", str(free_port()),
        "--no-browser",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        said = ""
        while "until Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, f"it has ended: {said}"
            said += line
        (address,) = PANEL.findall(said)
        file, _, key = asked_of(address)
        assert file == str(video.resolve())
        assert check_key(settings, key, KeyPurpose.PANEL).project_id == STAND_ALONE
        assert state_of(address)["video"]["frame_count"] == 8
        log = (settings.data_folder / "open.log").read_text()
        assert key.rpartition(".")[2] not in log
        # As Ctrl-C, but also where the tests run in the background of a shell.
        process.terminate()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
    with pytest.raises(OSError):
        state_of(address)


def test_it_uses_the_service_that_runs_and_goes_on_with_earlier_work(
    run, media_root, settings, tmp_path, monkeypatch
):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    port, video = free_port(), media_root / "n25.mp4"
    variables = {
        "SAM2_MEDIA_ROOTS": str(media_root), "SAM2_BASIC_AUTH_USER": "u",
        "SAM2_BASIC_AUTH_PASSWORD": "p",
    }
    with running_backend(log=tmp_path / "log", port=port, variables=variables):
        for arguments in ((), (), ("--new",)):
            status, out, err = run("open", video, "--port", port, *arguments)
            assert status == 0, err
            assert PANEL.findall(out) == [opened[-1]] and "Ctrl-C" not in out
        sessions = [asked_of(address)[1] for address in opened]
        assert sessions[0] == sessions[1] != sessions[2]
        assert state_of(opened[2])["objects"] == []

        outside = tmp_path / "outside.mp4"
        outside.write_bytes(video.read_bytes())
        status, _, err = run("open", outside, "--port", port)
        assert status == 2 and "SAM2_MEDIA_ROOTS" in err
        status, _, err = run("open", video, "--port", port, "--model", "demo")
        assert status == 2 and "--model: a service runs on port" in err
        monkeypatch.setenv("SAM2_DATA_FOLDER", str(tmp_path / "other"))
        status, _, err = run("open", video, "--port", port)
        assert status == 2 and "another data folder" in err
    assert len(opened) == 3


def test_a_port_that_something_else_has_and_a_video_that_is_none_are_told(run, media_root):
    with serving_site() as site:
        site.otherwise = lambda asked: Reply(b"{}")
        status, _, err = run("open", media_root / "n25.mp4", "--port", site.port)
        assert status == 2 and "no service of ours" in err
    assert run("open", media_root / "nothing.mp4")[0] == 2
    assert run("open", media_root)[0] == 2


def test_a_port_that_another_program_has_is_said(run, media_root):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(0.01)
        threading.Thread(target=hang_up, args=(taken,), daemon=True).start()
        port = taken.getsockname()[1]
        status, _, said = run("open", media_root / "n25.mp4", "--port", port, "--no-browser")
    # As it hangs up before or after it was asked.
    told = (f"port {port} of 127.0.0.1 cannot be listened on", f":{port} is no service of ours")
    assert status == 2 and any(text in said for text in told), said


def hang_up(listening):
    """Answers nobody."""
    while True:
        try:
            listening.accept()[0].close()
        except TimeoutError:
            continue
        except OSError:
            return


def test_whom_the_operator_lets_in_the_started_service_lets_in_alone(media_root, monkeypatch):
    monkeypatch.setenv("SAM2_API_TOKENS", "a-token-of-the-operator")
    monkeypatch.setenv("SAM2_LINK_SECRET", "s" * 32)
    port = free_port()
    command = [
        sys.executable, "-m", "backend.cli", "open", str(media_root / "n25.mp4"), "--port",
        str(port), "--no-browser",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        said = ""
        while "until Ctrl-C" not in said:
            line = process.stdout.readline()
            assert line, f"it has ended: {said}"
            said += line
        try:
            (address,) = PANEL.findall(said)
            assert state_of(address)["video"]["frame_count"] == 8
            url = f"http://127.0.0.1:{port}/api/jobs"
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url, timeout=60)
            token = {"Authorization": "Bearer a-token-of-the-operator"}
            with urllib.request.urlopen(urllib.request.Request(url, headers=token)) as answer:
                assert json.load(answer)["jobs"] == []
        finally:
            process.terminate()
            process.wait(60)
