"""`sam2-label-studio open`: the panel on a video, without any Label Studio."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import urllib.error
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote

from backend.commands.options import add_model_options, port, with_options
from backend.settings import Settings

_DAYS = 7.0
_REMOTE = ("http://", "https://")
_ASK_SECONDS = 120.0
_LOG = "open.log"


def add_open(commands: Any) -> None:
    parser = commands.add_parser(
        "open", help="click, see and propagate masks on a video in the browser",
        description="Opens the panel on a video. Uses the service on the port, or starts one "
        "that runs until Ctrl-C. No Label Studio is needed; results are exported from the page.",
    )
    parser.add_argument("video", help="video file, or its URL")
    parser.add_argument("--port", type=port, default=9090, help="the service's; default 9090")
    parser.add_argument("--new", action="store_true", help="do not go on with earlier work on it")
    parser.add_argument("--no-browser", action="store_true", help="print the address alone")
    add_model_options(parser)
    parser.set_defaults(run=_open)


def _open(options: argparse.Namespace, settings: Settings) -> int:
    settings = with_options(settings, options)
    reference, folder = _reference(options.video)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        with _service(options, settings, folder) as (url, is_ours):
            address = _address(url, reference, settings, is_new=options.new)
            print(address, flush=True)
            if not options.no_browser:
                webbrowser.open(address)
            if is_ours:
                print("the service runs until Ctrl-C", flush=True)
                signal.pause()
    return 0


def _reference(video: str) -> tuple[str, Path | None]:
    """How a session names it, and the folder that the service must be allowed to read."""
    if video.startswith(_REMOTE):
        return video, None
    path = Path(video).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{video}: no such file")
    return str(path), path.parent


@contextlib.contextmanager
def _service(
    options: argparse.Namespace, settings: Settings, folder: Path | None
) -> Iterator[tuple[str, bool]]:
    """The address of the one that runs, or of one that ends with the block; which it is.

    Raises ValueError for a port that something else has, OSError for a service that
    does not start.
    """
    from backend.processes import ProcessError, check_port, running_backend

    url = f"http://127.0.0.1:{options.port}"
    if _is_running(url):
        for name in ("model", "checkpoint", "device"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name}: a service runs on port {options.port} already")
        yield url, False
        return
    check_port("127.0.0.1", options.port)
    roots = [*settings.media_roots, *([folder] if folder else [])]
    # Whom the operator lets in, this one lets in as well.
    variables = settings.access_variables()
    if roots:
        variables["SAM2_MEDIA_ROOTS"] = os.pathsep.join(map(str, roots))
    arguments = [
        f"--{name}={value}"
        for name in ("model", "checkpoint", "device")
        if (value := getattr(options, name)) is not None
    ]
    log = settings.data_folder / _LOG
    print(f"starting the service; its log is {log}", flush=True)
    try:
        with running_backend(arguments, log=log, port=options.port, variables=variables) as url:
            yield url, True
    except ProcessError as error:
        raise OSError(str(error)) from None


def _is_running(url: str) -> bool:
    from backend.processes import get_json

    try:
        health = get_json(f"{url}/health")
    except (urllib.error.HTTPError, http.client.HTTPException, ValueError):
        health = None
    except OSError:
        return False
    if not isinstance(health, dict) or "model_version" not in health:
        raise ValueError(f"{url} is no service of ours: give another --port")
    return True


def _address(url: str, reference: str, settings: Settings, *, is_new: bool) -> str:
    """The panel's, with the session on the video: the last one, or a new one.

    Raises ValueError when the service refuses, with its reason.
    """
    from backend.link_keys import STAND_ALONE, KeyPurpose, make_key

    key = make_key(settings, STAND_ALONE, KeyPurpose.PANEL, days=_DAYS)
    session_id = None
    if not is_new:
        known = _ask(url, key, f"?video={quote(reference, safe='')}")["sessions"]
        session_id = next((s["id"] for s in known if _can_be_opened(url, key, s["id"])), None)
    if session_id is None:
        session_id = _ask(url, key, "", {"video": reference})["id"]
    return f"{url}/panel?file={quote(reference, safe='')}&session={session_id}#key={key}"


def _can_be_opened(url: str, key: str, session_id: str) -> bool:
    """Not where the file is another one by now."""
    try:
        _ask(url, key, f"/{session_id}")
    except ValueError:
        return False
    return True


def _ask(url: str, key: str, path: str, body: object = None) -> Any:
    """The service's answer. Raises ValueError with its reason, and OSError."""
    headers = {"X-SAM2-Key": key, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/api/sessions{path}", data, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ASK_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ValueError(f"{url}: {_reason(error)}") from None


def _reason(error: urllib.error.HTTPError) -> str:
    """What the service said, and what to do about it."""
    try:
        said = json.load(error)
        name, detail = said["error"], said["detail"]
    except (ValueError, KeyError, TypeError):
        return f"it answered {error.code}"
    if name == "key refused":
        return (
            f"{detail}: that service has another data folder; give both the same "
            "SAM2_DATA_FOLDER or SAM2_LINK_SECRET, or give another --port"
        )
    if name == "media refused":
        return f"{detail}: start it with the video's folder in SAM2_MEDIA_ROOTS, or give another --port"
    return str(detail)
