"""Checkpoints: real HTTP on the loopback interface, real files, real processes; no network."""

import contextlib
import errno
import hashlib
import http.server
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sam2_model.checkpoints import (
    REMOTE_CHECKPOINTS,
    CheckpointDownloadError,
    CheckpointError,
    CheckpointFileError,
    CheckpointMismatchError,
    RemoteCheckpoint,
    cache_folder,
    download_checkpoint,
    fetch_checkpoint,
    fetch_from_hub,
    load_into,
    load_state_dict_file,
    resolve_checkpoint,
)
from sam2_model.checkpoints import download as download_module
from sam2_model.checkpoints import https, hub, resolve, state_dicts

BODY = bytes(range(256)) * 1024  # 256 KiB
OTHER_BODY = BODY[::-1]
PROJECT_ROOT = Path(__file__).resolve().parents[2]


# --- a server that misbehaves to order ---------------------------------------------------------------


class Server(http.server.ThreadingHTTPServer):
    """Answers the n-th GET with the n-th of `answers`, and the last one from then on."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = []
        self.requests = []
        self.released = threading.Event()  # ends answers that hang

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients that hang up are the point here
            super().handle_error(request, client_address)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        position = len(self.server.requests)
        self.server.requests.append(SimpleNamespace(path=self.path, headers=dict(self.headers)))
        self.close_connection = True
        self.server.answers[min(position, len(self.server.answers) - 1)](self)

    def head(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *args):
        pass


def file_answer(body=BODY, *, etag='"v1"', ranges=True, send=None, chunk=None, pause_seconds=0.0, **extra):
    """A file server's answer; `send` bytes of the body, then the connection is closed."""

    def answer(handler):
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same_file = handler.headers.get("If-Range") in (None, etag)
        tags = {"ETag": etag} if etag else {}
        if ranges and asked and same_file:
            start = int(asked[1])
            if start >= len(body):
                return handler.head(416, Content_Length=0, Content_Range=f"bytes */{len(body)}")
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            sent = body[start:]
            handler.head(206, Content_Length=len(sent), Content_Range=content_range, **tags, **extra)
        else:
            sent = body
            handler.head(200, Content_Length=len(sent), **tags, **extra)
        sent = sent[:send]
        step = chunk or len(sent) or 1
        for offset in range(0, len(sent), step):
            handler.wfile.write(sent[offset : offset + step])
            handler.wfile.flush()
            time.sleep(pause_seconds)

    return answer


def status_answer(status, **headers):
    return lambda handler: handler.head(status, Content_Length=0, **headers)


def chunked_answer(body=BODY, *, finish=True):
    def answer(handler):
        handler.head(200, Transfer_Encoding="chunked")
        handler.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        if finish:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


@pytest.fixture
def start_server():
    with contextlib.ExitStack() as stack:

        def start(*answers):
            server = Server()
            server.answers = list(answers)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(server.server_close)
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            stack.callback(server.released.set)
            return server

        yield start


def remote_of(body=BODY, *, sha256=True, size_bytes=None):
    return RemoteCheckpoint(
        name="toy",
        file_name="toy.pt",
        url="https://example.invalid/folder/toy.pt",
        sha256=hashlib.sha256(body).hexdigest() if sha256 else None,
        size_bytes=size_bytes,
        hub_id=None,
    )


def download(server, folder, remote=None, **options):
    options = {"base_url": server.url, "timeout_seconds": 5, "retries": 2, "backoff_seconds": 0.01, **options}
    return download_checkpoint(remote or remote_of(), cache=folder, **options)


def names_in(folder):
    """The folder's files but for the lock, which may stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def leave_partial(folder, server, *, body, etag='"v1"', total_bytes=len(BODY)):
    """What a killed download leaves."""
    (folder / "toy.pt.part").write_bytes(body)
    note = {"url": f"{server.url}/toy.pt", "validator": etag, "total_bytes": total_bytes}
    (folder / "toy.pt.part.json").write_text(json.dumps(note))


# --- the registry ------------------------------------------------------------------------------------


def test_the_eight_published_checkpoints_are_known():
    assert list(REMOTE_CHECKPOINTS) == [
        f"{release}_hiera_{size}"
        for release in ("sam2", "sam2.1")
        for size in ("tiny", "small", "base_plus", "large")
    ]
    chosen = REMOTE_CHECKPOINTS["sam2.1_hiera_base_plus"]
    assert chosen.file_name == "sam2.1_hiera_base_plus.pt"
    assert chosen.url == "https://dl.fbaipublicfiles.com/segment_anything_2/092824/sam2.1_hiera_base_plus.pt"
    assert chosen.hub_id == "facebook/sam2.1-hiera-base-plus"
    old = REMOTE_CHECKPOINTS["sam2_hiera_tiny"]
    assert old.url == "https://dl.fbaipublicfiles.com/segment_anything_2/072824/sam2_hiera_tiny.pt"
    assert old.hub_id == "facebook/sam2-hiera-tiny"
    assert len({remote.sha256 for remote in REMOTE_CHECKPOINTS.values()}) == 8


@pytest.mark.parametrize(
    "field",
    [
        {"file_name": "../toy.pt"},  # would leave the cache folder
        {"sha256": "ABC"},
    ],
)
def test_a_bad_registry_entry_is_refused(field):
    values = {"name": "n", "file_name": "f", "url": "u", "sha256": None, "size_bytes": None, "hub_id": None}
    with pytest.raises(ValueError, match=next(iter(field))):
        RemoteCheckpoint(**{**values, **field})


def test_cache_folder_is_chosen_by_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"
    monkeypatch.setenv("SAM2_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "sam2-label-studio"


# --- downloads that end well -------------------------------------------------------------------------


def test_download_reports_progress_and_leaves_one_whole_file(start_server, tmp_path):
    server = start_server(file_answer(chunk=65536, pause_seconds=0.02))
    folder = tmp_path / "not" / "there" / "yet"
    seen = []

    def progress(done_bytes, total_bytes):
        seen.append((done_bytes, total_bytes))
        assert not (folder / "toy.pt").exists()  # the final name never holds half a file

    path = download(server, folder, progress=progress)
    assert path == folder / "toy.pt" and path.read_bytes() == BODY
    assert seen[0] == (0, len(BODY)) and seen[-1] == (len(BODY), len(BODY)) and len(seen) > 2
    assert seen == sorted(seen)
    assert names_in(folder) == ["toy.pt"]

    assert download(server, folder) == path  # from the cache
    assert len(server.requests) == 1


def test_no_credentials_are_sent_even_across_a_redirect_to_another_host(start_server, tmp_path):
    other = start_server(file_answer())
    elsewhere = f"http://localhost:{other.server_port}/other/name"
    server = start_server(status_answer(302, Location=elsewhere, Set_Cookie="session=secret"))
    assert download(server, tmp_path).read_bytes() == BODY
    for request in (*server.requests, *other.requests):
        assert set(request.headers) == {"Host", "Connection", "User-Agent", "Accept-Encoding"}


def test_a_redirect_does_not_pass_on_what_urllib_adds_for_a_proxy():
    request = urllib.request.Request("https://a.invalid/toy.pt", headers=https.request_headers(None))
    request.add_header("Proxy-authorization", "Basic c2VjcmV0")
    redirects = https._SafeRedirects(allow_loopback_http=False)
    followed = redirects.redirect_request(request, None, 302, "Found", {}, "https://b.invalid/toy.pt")
    assert followed.full_url == "https://b.invalid/toy.pt"
    assert sorted(followed.headers) == ["Accept-encoding", "User-agent"]


def test_a_mirror_on_this_machine_is_not_asked_through_a_proxy(start_server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert download(start_server(file_answer()), tmp_path).read_bytes() == BODY


def test_a_file_of_unannounced_length_is_accepted_by_its_hash(start_server, tmp_path):
    assert download(start_server(chunked_answer()), tmp_path).read_bytes() == BODY


def test_a_file_without_known_hash_is_accepted(start_server, tmp_path):
    path = download(start_server(file_answer()), tmp_path, remote_of(sha256=False))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_server_error_is_tried_again(start_server, tmp_path, status):
    server = start_server(status_answer(status), file_answer())
    assert download(server, tmp_path).read_bytes() == BODY
    assert len(server.requests) == 2


def test_an_official_name_uses_the_same_download(start_server, tmp_path, monkeypatch):
    server = start_server(file_answer())
    monkeypatch.setattr(resolve, "REMOTE_CHECKPOINTS", {"toy": remote_of()})
    assert fetch_checkpoint("toy", cache=tmp_path, base_url=server.url + "/").read_bytes() == BODY
    with pytest.raises(ValueError, match="name='huge': must be one of toy"):
        fetch_checkpoint("huge", cache=tmp_path)


# --- cuts and continuations --------------------------------------------------------------------------


def test_a_cut_connection_is_continued_from_where_it_stopped(start_server, tmp_path):
    server = start_server(file_answer(send=100_000), file_answer())
    assert download(server, tmp_path).read_bytes() == BODY
    again = server.requests[1].headers
    assert (again["Range"], again["If-Range"]) == ("bytes=100000-", '"v1"')


def test_the_next_call_continues_what_the_last_one_left(start_server, tmp_path):
    server = start_server(file_answer(send=100_000), file_answer())
    with pytest.raises(CheckpointDownloadError, match="cut after 100000 of 262144 bytes") as caught:
        download(server, tmp_path, retries=0)
    message = str(caught.value)
    assert f"{server.url}/toy.pt" in message and f"save it as {tmp_path / 'toy.pt'}" in message
    assert f"100000 bytes received are kept in {tmp_path / 'toy.pt.part'}" in message
    seen = []
    assert download(server, tmp_path, progress=lambda *now: seen.append(now)).read_bytes() == BODY
    assert seen[0] == (100_000, len(BODY))
    assert names_in(tmp_path) == ["toy.pt"]


def test_a_callback_that_raises_stops_the_download_and_keeps_the_bytes(start_server, tmp_path):
    server = start_server(file_answer(chunk=50_000, pause_seconds=0.02))

    def stop(done_bytes, total_bytes):
        if done_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(server, tmp_path, progress=stop)
    kept = (tmp_path / "toy.pt.part").stat().st_size
    assert 0 < kept < len(BODY)
    assert download(server, tmp_path).read_bytes() == BODY
    assert server.requests[1].headers["Range"] == f"bytes={kept}-"


def test_a_cut_chunked_transfer_is_not_taken_for_whole(start_server, tmp_path):
    server = start_server(chunked_answer(BODY[:1000], finish=False), chunked_answer())
    assert download(server, tmp_path).read_bytes() == BODY


RESUMES_FROM_ZERO = {
    # the server does not do ranges at all
    "ranges ignored": file_answer(ranges=False),
    # If-Range does its work: 200 and the new file
    "file changed": file_answer(etag='"v2"'),
    # the server sends a part of the new file in spite of If-Range
    "file changed, If-Range ignored": lambda handler: handler.head(
        206, Content_Length=5, Content_Range=f"bytes 100-104/{len(BODY)}", ETag='"v2"'
    ),
    # a part of a file of another size
    "size changed": lambda handler: handler.head(206, Content_Length=5, Content_Range="bytes 100-104/105"),
    # not the range asked for
    "wrong range": lambda handler: handler.head(
        206, Content_Length=5, Content_Range=f"bytes 0-4/{len(BODY)}", ETag='"v1"'
    ),
    # a 206 that does not say which part it is
    "no Content-Range": lambda handler: handler.head(206, Content_Length=5, ETag='"v1"'),
    # nothing after those bytes
    "not satisfiable": status_answer(416),
}


@pytest.mark.parametrize("case", RESUMES_FROM_ZERO)
def test_a_partial_file_that_cannot_be_continued_is_replaced(start_server, tmp_path, case):
    server = start_server(RESUMES_FROM_ZERO[case], file_answer(etag='"v2"'))
    leave_partial(tmp_path, server, body=OTHER_BODY[:100])
    # Without a hash nothing but the HTTP rules can keep the two files apart.
    assert download(server, tmp_path, remote_of(sha256=False), retries=0).read_bytes() == BODY
    assert server.requests[0].headers["Range"] == "bytes=100-"
    assert all("Range" not in request.headers for request in server.requests[1:])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "toy.pt.part.json").unlink(),
        lambda folder: (folder / "toy.pt.part.json").write_text('{"url": '),  # killed while writing it
        lambda folder: (folder / "toy.pt.part.json").write_text("[]"),
        lambda folder: (folder / "toy.pt.part.json").write_text('{"url": "https://other.invalid/toy.pt"}'),
    ],
)
def test_bytes_of_unknown_origin_are_not_continued(start_server, tmp_path, spoil):
    server = start_server(file_answer())
    leave_partial(tmp_path, server, body=OTHER_BODY[:100])
    spoil(tmp_path)
    assert download(server, tmp_path, remote_of(sha256=False)).read_bytes() == BODY
    assert "Range" not in server.requests[0].headers


def test_without_etag_and_hash_nothing_is_continued(start_server, tmp_path):
    server = start_server(file_answer(etag=None))
    leave_partial(tmp_path, server, body=OTHER_BODY[:100], etag=None)
    assert download(server, tmp_path, remote_of(sha256=False)).read_bytes() == BODY


def test_a_download_killed_before_the_rename_needs_no_second_transfer(start_server, tmp_path):
    server = start_server(status_answer(500))
    leave_partial(tmp_path, server, body=BODY)
    assert download(server, tmp_path).read_bytes() == BODY
    assert server.requests == []


def test_a_continued_file_with_a_wrong_hash_is_downloaded_once_more_whole(start_server, tmp_path):
    server = start_server(file_answer())  # same ETag, although the bytes on disk are another file's
    leave_partial(tmp_path, server, body=OTHER_BODY[:100])
    assert download(server, tmp_path).read_bytes() == BODY
    assert ["Range" in request.headers for request in server.requests] == [True, False]


def test_retries_start_anew_after_a_gain_but_not_for_a_server_that_always_cuts(
    start_server, tmp_path, monkeypatch
):
    monkeypatch.setattr(download_module, "_GAIN_THAT_RESETS_RETRIES_BYTES", 50_000)
    steady = start_server(*[file_answer(send=60_000)] * 5)  # five answers for one retry
    assert download(steady, tmp_path / "steady", retries=1).read_bytes() == BODY
    stubborn = start_server(file_answer(send=60_000, ranges=False))
    with pytest.raises(CheckpointDownloadError, match="in 2 tries: cut after 60000 of"):
        download(stubborn, tmp_path / "stubborn", retries=1)
    assert len(stubborn.requests) == 2  # the first gained, the second got no further


# --- downloads that end badly ------------------------------------------------------------------------


def test_a_wrong_hash_removes_the_file_and_names_both_hashes(start_server, tmp_path):
    server = start_server(file_answer(OTHER_BODY))
    with pytest.raises(CheckpointDownloadError) as caught:
        download(server, tmp_path)
    for body in (BODY, OTHER_BODY):
        assert hashlib.sha256(body).hexdigest() in str(caught.value)
    assert names_in(tmp_path) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (status_answer(404), "answered 404"),
        (status_answer(403), "answered 403"),
        (status_answer(204), "answered 204"),
        # 206 to a request without Range
        (lambda handler: handler.head(206, Content_Length=0), "answered 206"),
        (file_answer(Content_Encoding="gzip"), "Content-Encoding gzip"),
        (lambda handler: handler.head(200, Content_Length=5 * 1024**3), "more than the limit of 4294967296"),
        # ways out of http(s), and into http to some other machine
        (status_answer(302, Location="file:///etc/passwd"), "not allowed"),
        (status_answer(302, Location="ftp://127.0.0.1/toy.pt"), "must be https"),
        (status_answer(302, Location="http://192.0.2.1/toy.pt"), "must be https"),
        (status_answer(302, Location="https://user:secret@127.0.0.1/toy.pt"), "no user name"),
        (status_answer(302, Location="/toy.pt"), "infinite loop"),
    ],
)
def test_a_final_answer_is_not_tried_again_and_tells_how_to_go_on_by_hand(
    start_server, tmp_path, answer, reason
):
    server = start_server(answer)
    with pytest.raises(CheckpointDownloadError, match=reason) as caught:
        download(server, tmp_path)
    assert f"{server.url}/toy.pt" in str(caught.value) and str(tmp_path / "toy.pt") in str(caught.value)
    assert names_in(tmp_path) == []
    assert len(server.requests) == 1 or "loop" in reason


def test_a_server_error_that_stays_is_given_up(start_server, tmp_path):
    server = start_server(status_answer(500))
    with pytest.raises(CheckpointDownloadError, match="in 3 tries: the server answered 500"):
        download(server, tmp_path, retries=2)
    assert len(server.requests) == 3


def test_a_page_instead_of_the_file_is_refused_by_its_size_before_it_costs_the_partial_file(
    start_server, tmp_path
):
    server = start_server(file_answer(b"<html>log in first</html>", etag=None, ranges=False))
    leave_partial(tmp_path, server, body=BODY[:100])
    with pytest.raises(CheckpointDownloadError, match="has 25 bytes, the published one 262144"):
        download(server, tmp_path, remote_of(size_bytes=len(BODY)))
    assert (tmp_path / "toy.pt.part").read_bytes() == BODY[:100]


def test_an_endless_body_is_stopped_at_the_limit(start_server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_DOWNLOAD_BYTES", 100_000)
    with pytest.raises(CheckpointDownloadError, match="more than the limit of 100000"):
        download(start_server(chunked_answer()), tmp_path)
    assert names_in(tmp_path) == []


def hang_before_head(handler):
    handler.server.released.wait(10)


def hang_in_body(handler):
    handler.head(200, Content_Length=len(BODY))
    handler.wfile.write(BODY[:1000])
    handler.server.released.wait(10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hang_before_head, "timed out"),
        (hang_in_body, "cut after 1000 bytes: timed out"),
        # each wait is short, so only the speed shows that nothing will come of it
        (file_answer(chunk=1, pause_seconds=0.05), "slower than 1024 bytes/s"),
    ],
)
def test_a_hanging_server_is_given_up(start_server, tmp_path, answer, reason):
    started = time.monotonic()
    with pytest.raises(CheckpointDownloadError, match=reason):
        download(start_server(answer), tmp_path, timeout_seconds=0.3, retries=0)
    assert time.monotonic() - started < 3


def test_no_network_tells_where_to_put_the_file_by_hand_and_then_takes_it(tmp_path):
    closed = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{closed.server_port}"
    closed.server_close()
    options = {"cache": tmp_path, "base_url": url, "retries": 1, "backoff_seconds": 0.01}
    with pytest.raises(CheckpointDownloadError, match="in 2 tries: .*refused") as caught:
        download_checkpoint(remote_of(), **options)
    assert f"bring {url}/toy.pt by other means and save it as {tmp_path / 'toy.pt'}" in str(caught.value)

    (tmp_path / "toy.pt").write_bytes(BODY)
    assert download_checkpoint(remote_of(), **options) == tmp_path / "toy.pt"


@pytest.mark.parametrize(
    ("body", "size_bytes", "difference"),
    [
        (OTHER_BODY, None, "expected sha256 .*, found sha256 "),
        (BODY[:-1], len(BODY), "expected 262144 bytes, found 262143 bytes"),
    ],
)
def test_a_wrong_file_put_by_hand_is_named_and_left_alone(tmp_path, body, size_bytes, difference):
    path = tmp_path / "toy.pt"
    path.write_bytes(body)
    with pytest.raises(CheckpointFileError, match=difference) as caught:
        download_checkpoint(remote_of(size_bytes=size_bytes), cache=tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == body


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.invalid", "must be https"),
        ("http://127.0.0.1.example.invalid", "must be https"),
        ("file:///etc", "must have a host"),
        ("ftp://127.0.0.1", "must be https"),
        ("https://user:secret@example.invalid", "no user name or password"),
    ],
)
def test_an_unsafe_address_is_refused_before_anything_is_touched(tmp_path, url, rule):
    with pytest.raises(ValueError, match=rule):
        download_checkpoint(remote_of(), cache=tmp_path / "cache", base_url=url)
    assert not (tmp_path / "cache").exists()


def test_http_on_loopback_needs_an_explicit_base_url(tmp_path):
    remote = RemoteCheckpoint("toy", "toy.pt", "http://127.0.0.1:9/toy.pt", None, None, None)
    with pytest.raises(ValueError, match="must be https"):
        download_checkpoint(remote, cache=tmp_path)


@pytest.mark.parametrize("option", [{"timeout_seconds": 0}, {"retries": -1}])
def test_a_bad_option_is_refused(tmp_path, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        download_checkpoint(remote_of(), cache=tmp_path, **option)


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointDownloadError, match="file/cache .*SAM2_CACHE"):
        download_checkpoint(remote_of(), cache=tmp_path / "file" / "cache")


# --- full disks --------------------------------------------------------------------------------------


def test_too_little_space_is_seen_before_the_first_byte(start_server, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointDownloadError) as caught:
        download(start_server(file_answer()), tmp_path)
    message = str(caught.value)
    assert f"in {tmp_path} (" in message and "needs 262144 bytes, 1000 are free" in message
    assert "partial file was removed" in message and "SAM2_CACHE" in message
    assert names_in(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 100 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_under_the_download_is_named_and_not_left_full(start_server, tiny_disk):
    server = start_server(chunked_answer())  # no announced length, so nothing can be known beforehand
    with pytest.raises(CheckpointDownloadError, match=os.strerror(errno.ENOSPC)) as caught:
        download(server, tiny_disk)
    assert f"in {tiny_disk} (" in str(caught.value)
    assert re.search(r"needs more than \d{5} bytes, \d{5,6} are free", str(caught.value))
    assert isinstance(caught.value.__cause__, OSError)
    assert names_in(tiny_disk) == []
    assert len(server.requests) == 1  # not a fault of the network: no second try


# --- several processes -------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from sam2_model.checkpoints import CheckpointError, RemoteCheckpoint, download_checkpoint

url, folder, sha256, file_size_limit = sys.argv[1:]
if int(file_size_limit):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_size_limit),) * 2)
remote = RemoteCheckpoint("toy", "toy.pt", "https://example.invalid/toy.pt", sha256, None, None)
try:
    path = download_checkpoint(remote, cache=folder, base_url=url, timeout_seconds=10)
except CheckpointError as error:
    sys.exit(f"{type(error).__name__}: {error}")
assert "torch" not in sys.modules  # bringing a file must not cost the start of torch
sys.stdout.write(str(path.stat().st_size))
"""


def start_child(server, folder, *, file_size_limit=0):
    sha256 = hashlib.sha256(BODY).hexdigest()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD, server.url, str(folder), sha256, str(file_size_limit)],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    output, errors = child.communicate(timeout=30)
    return child.returncode, output, errors


def test_two_processes_at_once_download_once(start_server, tmp_path):
    server = start_server(file_answer(chunk=16384, pause_seconds=0.1))  # 1.6 s: time for both to start
    children = [start_child(server, tmp_path) for _ in range(2)]
    assert [finish(child) for child in children] == [(0, str(len(BODY)), "")] * 2
    assert len(server.requests) == 1
    assert names_in(tmp_path) == ["toy.pt"]


def test_two_threads_at_once_download_once(start_server, tmp_path):
    server = start_server(file_answer(chunk=65536, pause_seconds=0.1))
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: download(server, tmp_path), range(2)))
    assert paths == [tmp_path / "toy.pt"] * 2
    assert len(server.requests) == 1


def test_a_killed_process_leaves_no_lock_and_its_bytes_are_continued(start_server, tmp_path):
    server = start_server(hang_in_body, file_answer(etag=None))
    child = start_child(server, tmp_path)
    partial = tmp_path / "toy.pt.part"
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert finish(child)[0] == -signal.SIGKILL
    server.released.set()
    assert download(server, tmp_path).read_bytes() == BODY
    assert server.requests[1].headers["Range"] == "bytes=1000-"


@pytest.mark.skipif(os.name != "posix", reason="resource limits are POSIX")
def test_a_file_size_limit_reads_like_a_full_disk(start_server, tmp_path):
    child = start_child(start_server(file_answer()), tmp_path, file_size_limit=100_000)
    status, output, errors = finish(child)
    assert status == 1 and errors.startswith("CheckpointDownloadError: no room for toy"), errors
    assert f"in {tmp_path} (" in errors and "needs 262144 bytes" in errors
    assert names_in(tmp_path) == []


# --- the hub -----------------------------------------------------------------------------------------


@pytest.fixture
def hub_remote(monkeypatch):
    """An official hub repository with a small file."""
    remote = RemoteCheckpoint(
        "toy", "toy.pt", "https://example.invalid/toy.pt", hashlib.sha256(BODY).hexdigest(), None, "org/toy"
    )
    monkeypatch.setattr(hub, "REMOTE_CHECKPOINTS", {"toy": remote})
    return remote


def hub_answer(body):
    return file_answer(body, etag='"0123456789"', X_Repo_Commit="c" * 40)


def test_a_hub_id_goes_through_huggingface_hub_without_credentials(
    start_server, tmp_path, hub_remote, monkeypatch, capfd
):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(Handler, "do_HEAD", Handler.do_GET, raising=False)
    server = start_server(hub_answer(BODY))
    path = fetch_from_hub("org/toy", cache=tmp_path, endpoint=server.url)
    assert path.read_bytes() == BODY and path.is_relative_to(tmp_path / "hub")
    assert server.requests[-1].path == "/org/toy/resolve/main/toy.pt"
    assert not any("authorization" in map(str.lower, request.headers) for request in server.requests)
    assert capfd.readouterr().err == ""  # no progress bar


def test_an_official_hub_file_with_another_hash_is_refused(start_server, tmp_path, hub_remote, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(Handler, "do_HEAD", Handler.do_GET, raising=False)
    server = start_server(hub_answer(OTHER_BODY))
    with pytest.raises(CheckpointFileError, match="not the published toy: expected sha256"):
        fetch_from_hub("org/toy", cache=tmp_path, endpoint=server.url)
    path = fetch_from_hub("org/other", filename="toy.pt", cache=tmp_path, endpoint=server.url)
    assert path.read_bytes() == OTHER_BODY  # nothing is known of it


def test_a_hub_file_that_is_not_there_is_named(start_server, tmp_path, hub_remote, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(Handler, "do_HEAD", Handler.do_GET, raising=False)
    server = start_server(status_answer(404, X_Error_Code="EntryNotFound"))
    with pytest.raises(CheckpointDownloadError, match="toy.pt of org/toy from the hub: .*use the name 'toy'"):
        fetch_from_hub("org/toy", cache=tmp_path, endpoint=server.url)


def test_without_huggingface_hub_the_error_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointDownloadError, match=r"pip install sam2-label-studio\[hub\]"):
        fetch_from_hub("facebook/sam2.1-hiera-tiny")


@pytest.mark.parametrize(
    ("filename", "rule"),
    [(None, "name the file too, as org/other:FILE"), ("../../x.pt", "inside the repository")],
)
def test_a_hub_file_must_be_named_and_inside_the_repository(filename, rule):
    with pytest.raises(ValueError, match=rule):
        fetch_from_hub("org/other", filename=filename)


# --- what a name means -------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Records the fetches that `resolve_checkpoint` decides on, in a folder of its own."""
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "fetch_checkpoint", lambda name, **_: made.append(name))
    monkeypatch.setattr(
        resolve, "fetch_from_hub", lambda hub_id, *, filename, cache: made.append((hub_id, filename))
    )
    return made


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("sam2.1_hiera_large", "sam2.1_hiera_large"),
        ("facebook/sam2.1-hiera-large", ("facebook/sam2.1-hiera-large", None)),
        ("someone/fine-tuned:weights/last.pt", ("someone/fine-tuned", "weights/last.pt")),
    ],
)
def test_names_and_hub_ids_are_fetched(calls, text, call):
    resolve_checkpoint(text)
    assert calls == [call]


@pytest.mark.parametrize("name", ["sam2.1_hiera_large", "demo", "weights/tuned.pt"])
def test_an_existing_file_wins_over_any_other_meaning(calls, tmp_path, name):
    (tmp_path / "weights").mkdir()
    (tmp_path / name).write_bytes(b"")
    assert resolve_checkpoint(name) == Path(name)
    assert calls == []


@pytest.mark.parametrize(
    "missing", ["weights/tuned.pt", "./org/name", "../name", "tuned.safetensors", Path("org/name")]
)
def test_a_missing_path_is_not_taken_for_a_hub_id(calls, missing):
    with pytest.raises(CheckpointFileError, match="no such checkpoint file") as caught:
        resolve_checkpoint(missing)
    assert str(Path(missing).absolute()) in str(caught.value)
    assert calls == []


def test_a_folder_is_not_a_checkpoint(calls, tmp_path):
    (tmp_path / "org" / "name").mkdir(parents=True)
    with pytest.raises(CheckpointFileError, match="is a folder"):
        resolve_checkpoint("org/name")


def test_an_unknown_name_lists_the_known_ones(calls):
    with pytest.raises(ValueError, match="checkpoint='sam3'.*demo, sam2_hiera_tiny, .*sam2.1_hiera_large"):
        resolve_checkpoint("sam3")


def test_demo_is_the_packaged_file(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(resolve, "__file__", str(tmp_path / "package" / "checkpoints" / "resolve.py"))
    with pytest.raises(CheckpointFileError, match="package/demo.safetensors: the demo model is missing"):
        resolve_checkpoint("demo")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "demo.safetensors").write_bytes(b"")
    assert resolve_checkpoint("demo") == tmp_path / "package" / "demo.safetensors"


# --- files to tensors --------------------------------------------------------------------------------


def toy_module():
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def toy_state():
    torch.manual_seed(0)
    shapes = toy_module().state_dict()
    return {key: torch.rand(tensor.shape).to(tensor.dtype) for key, tensor in shapes.items()}


def legacy_save(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("published.pt", lambda state, path: torch.save({"model": state}, path)),
        ("training.pth", lambda state, path: torch.save({"epoch": 3, "model": state, "lr": 0.1}, path)),
        ("bare.pt", torch.save),
        ("legacy.pt", legacy_save),  # the format before PyTorch 1.6
        ("plain.safetensors", save_file),
        ("misnamed.pt", save_file),  # the content decides
    ],
)
def test_every_format_gives_the_same_tensors_in_order(tmp_path, name, save):
    state = toy_state()
    save(state, tmp_path / name)
    loaded = load_state_dict_file(tmp_path / name)
    assert sorted(loaded) == sorted(state)
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    if save is not save_file:
        assert list(loaded) == list(state)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def truncated_checkpoint(path):
    torch.save({"model": toy_state()}, path)
    path.write_bytes(path.read_bytes()[:-200])


def text(content):
    return lambda path: path.write_text(content)


def content(data):
    return lambda path: path.write_bytes(data)


def saved(value):
    return lambda path: torch.save(value, path)


WRONG_FILES = {
    "missing.pt": (lambda path: None, "cannot be read: No such file"),
    "folder.pt": (Path.mkdir, "cannot be read: Is a directory"),
    "empty.pt": (text(""), "the file is empty"),
    "page.pt": (text("\n<!DOCTYPE html><html>"), "a web page"),
    "page.safetensors": (text("<html>"), "a web page"),
    "pointer.pt": (text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "text.pt": (text("hello, this is text"), "neither a PyTorch nor a safetensors"),
    "truncated.pt": (truncated_checkpoint, "damaged or not a PyTorch"),
    "zip.pt": (content(b"PK\x03\x04" + bytes(100)), "damaged or not a PyTorch"),
    "legacy.pt": (content(state_dicts._LEGACY_TORCH_MAGIC + b"x"), "is (damaged|refused)"),
    "truncated.safetensors": (content(b"\xff" + bytes(7) + b'{"a":'), "damaged or not a safetensors"),
    "noise.safetensors": (content(bytes(100)), "damaged or not a safetensors"),
    "code.pt": (saved({"model": Evil()}), r"is refused: .*(posix|nt)\.mkdir.* safetensors"),
    "module.pt": (saved(toy_module()), r"is refused: .*Sequential"),
    "list.pt": (saved([torch.zeros(1)]), "it holds a list"),
    "nothing.pt": (saved({"model": {}}), "it holds an empty dict"),
    "number.pt": (saved({"model": {"a": 1}}), "under 'a' it holds a value of type int"),
    "keys.pt": (saved({7: torch.zeros(1)}), "under 7 it holds a value of type Tensor"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_that_is_not_a_checkpoint_is_named_with_the_reason(tmp_path, monkeypatch, name):
    make, reason = WRONG_FILES[name]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(CheckpointFileError, match=reason) as caught:
        load_state_dict_file(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert isinstance(caught.value, CheckpointError)
    assert not (tmp_path / "pwned").exists()


# --- tensors into a module ---------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_are_copied_and_cast_to_the_module(tmp_path, stored):
    state = toy_state()
    path = tmp_path / "toy.pt"
    cast = {key: value.to(stored) if value.is_floating_point() else value for key, value in state.items()}
    torch.save({"model": cast}, path)
    module = toy_module()
    storage = module[0].weight.data_ptr()
    load_into(module, path, model_name="toy")
    assert module[0].weight.dtype == torch.float32 and module[0].weight.data_ptr() == storage
    assert torch.equal(module[0].weight, cast["0.weight"].to(torch.float32))
    assert torch.equal(module[1].num_batches_tracked, state["1.num_batches_tracked"])


def test_a_checkpoint_of_another_model_is_described_and_changes_nothing(tmp_path):
    state = toy_state()
    del state["0.bias"], state["1.bias"]
    state["extra"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(2, 5)
    path = tmp_path / "toy.pt"
    torch.save({"model": state}, path)
    module = toy_module()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(CheckpointMismatchError) as caught:
        load_into(module, path, model_name="sam2.1_hiera_tiny")
    assert str(caught.value) == (
        f"{path} is not a checkpoint of model 'sam2.1_hiera_tiny': 2 missing key(s), first '0.bias'; "
        "1 unexpected key(s), first 'extra'; "
        "1 mis-shaped key(s), first '0.weight': (2, 5) in the file, (2, 3) in the model"
    )
    assert isinstance(caught.value, ValueError)
    assert caught.value.missing == ("0.bias", "1.bias")
    assert caught.value.misshaped == (("0.weight", (2, 5), (2, 3)),)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


def test_quantised_integers_are_not_taken_for_weights(tmp_path):
    state = toy_state()
    state["0.weight"] = torch.ones(2, 3, dtype=torch.int8)
    torch.save(state, tmp_path / "toy.pt")
    with pytest.raises(CheckpointFileError, match="'0.weight' is torch.int8 in the file, torch.float32"):
        load_into(toy_module(), tmp_path / "toy.pt", model_name="toy")


def test_a_module_without_storage_is_refused(tmp_path):
    with torch.device("meta"):
        module = toy_module()
    with pytest.raises(ValueError, match="module: .*meta"):
        load_into(module, tmp_path / "toy.pt", model_name="toy")


def test_a_download_loads_and_nothing_is_printed(start_server, tmp_path, capfd, caplog):
    torch.save({"model": toy_state()}, tmp_path / "source.pt")
    body = (tmp_path / "source.pt").read_bytes()
    server = start_server(file_answer(body, send=500), file_answer(body))
    module = toy_module()
    with caplog.at_level(logging.INFO, logger="sam2_model.checkpoints"):
        load_into(module, download(server, tmp_path / "cache", remote_of(body)), model_name="toy")
    assert torch.equal(module[0].weight, toy_state()["0.weight"])
    assert capfd.readouterr() == ("", "")
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0].startswith("downloading toy from") and "try 1 of 2" in messages[1]
    assert messages[-1].startswith("loaded ")
