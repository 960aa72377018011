"""`GET /preview.mp4?key=...&src=...`: masks on the video itself, for a second `<Video>`.

Answers a redirect to the version to show now (`&version=...`), which never
changes: a player asks for parts of it for as long as it is open, and must not
be given parts of another file when there is a newer track meanwhile.
"""

from __future__ import annotations

import hmac
import logging
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Sequence
from urllib.parse import quote, unquote, unquote_plus

from flask import Blueprint, Flask, Response, request
from werkzeug.datastructures import Range
from werkzeug.utils import send_file

from backend.errors import NotReady, ServiceError
from backend.link_keys import KeyPurpose, LinkKey, bound_to_project, check_key
from backend.preview_videos import PreviewVideos

if TYPE_CHECKING:
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

_PART_BYTES = 2 * 2**20
"""At most, of one answer to a player, which asks on. While it is paused it would hold
a thread otherwise."""
_WHOLE_FILES_AT_ONCE = 2
_KEPT_SECONDS = 24 * 3600
_OURS = r"(?:key|version)=[^&]*"
_QUERY = re.compile(rf"((?:{_OURS}&)*)src=(.*?)((?:&{_OURS})*)", re.DOTALL)
_PARAMETER = re.compile(r"(key|version)=([^&]*)")
_HEADERS = {
    "Vary": "Origin",
    "Access-Control-Expose-Headers": "Accept-Ranges, Content-Length, Content-Range, ETag",
    "Access-Control-Allow-Headers": "Range, If-Range",
    "Access-Control-Allow-Methods": "GET, HEAD",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


def add_preview(app: Flask, service: TrackingService) -> None:
    """The route; `app.extensions["sam2_previews"]` draws what it shows."""
    view = _PreviewView(service)
    app.extensions["sam2_previews"] = view.previews
    routes = Blueprint("preview", __name__)
    routes.add_url_rule("/preview.mp4", "video", view.video, methods=["GET"])
    routes.after_request(view.allow_label_studio)
    app.register_blueprint(routes)


class _PreviewView:
    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._settings = service.settings
        self._origins = service.settings.label_studio_origins
        self._whole_files = threading.BoundedSemaphore(_WHOLE_FILES_AT_ONCE)
        self.previews = PreviewVideos(service)

    def video(self) -> Response:
        """Raises KeyRefused before anything is looked for."""
        query = _Query.of(request.query_string.decode("latin-1"))
        key = check_key(self._settings, query.key, KeyPurpose.PREVIEW)
        name, _, proof = query.version.partition(".")
        if hmac.compare_digest(proof.encode(), self._proof(key, name).encode()):
            if (path := self.previews.find(name)) is not None:
                return self._part(path)
        path = self.previews.newest(self._of_project(query.readings, key.project_id))
        version = f"{path.stem}.{self._proof(key, path.stem)}"
        # Relative: a proxy in front of the service may have moved it.
        location = f"?key={quote(query.key)}&version={version}&src={query.source}"
        return Response(status=302, headers={"Location": location, "Cache-Control": "no-store"})

    def _proof(self, key: LinkKey, name: str) -> str:
        """One project's key opens no version that another's was given."""
        return bound_to_project(self._settings, key.project_id, ascii(name))

    def _of_project(self, readings: Sequence[str], project_id: int) -> list[str]:
        """Those that a task of the project has. Without a Label Studio that could be
        asked, all: whatever the service may fetch."""
        if not self._service.can_post:
            return list(readings)
        try:
            return [text for text in readings if self._service.tasks.has_video(text, project_id)]
        except ServiceError as error:
            logger.warning("no preview: %s", error.detail)
            return []

    def _part(self, path: Path) -> Response:
        environ = dict(request.environ)
        if (part := _short(request.range)) is not None:
            environ["HTTP_RANGE"] = part
        answer = send_file(
            path, environ, mimetype="video/mp4", etag=path.stem, max_age=_KEPT_SECONDS
        )
        answer.cache_control.public, answer.cache_control.private = None, True
        answer.cache_control.immutable = True
        if answer.status_code == 200 and request.method == "GET":
            if not self._whole_files.acquire(blocking=False):
                answer.close()
                raise NotReady("too many whole previews are being sent; ask for ranges")
            answer.direct_passthrough = False  # it would leave out what is called on close
            answer.call_on_close(self._whole_files.release)
        return answer

    def allow_label_studio(self, answer: Response) -> Response:
        """Let Label Studio's pages use the answer, as CORS has it."""
        answer.headers.update(_HEADERS)
        origin = request.headers.get("Origin")
        if origin in self._origins:
            answer.headers["Access-Control-Allow-Origin"] = origin
        return answer


@dataclass(frozen=True)
class _Query:
    """The URL's parameters, where `src` is what the editor filled in: escaped or not."""

    key: str
    version: str
    source: str
    """As it came."""

    @classmethod
    def of(cls, text: str) -> _Query:
        found = _QUERY.fullmatch(text)
        before, source, after = found.groups() if found is not None else (text, "", "")
        # A source with & in it: what follows it is its own, when ours came before.
        if "key=" in before:
            source, after = source + after, ""
        parameters = dict(_PARAMETER.findall(before + after))
        return cls(
            unquote(parameters.get("key", "")), parameters.get("version", ""), source
        )

    @property
    def readings(self) -> list[str]:
        """What video `source` may mean, the likeliest first."""
        decoded = (unquote(self.source), self.source, unquote_plus(self.source))
        return list(dict.fromkeys(text for text in decoded if text))


def _short(wanted: Range | None) -> str | None:
    """The beginning of a single range that is longer than one answer; None for others."""
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1:
        return None
    begin, end = wanted.ranges[0]
    if begin < 0 or (end is not None and end - begin <= _PART_BYTES):
        return None
    return f"bytes={begin}-{begin + _PART_BYTES - 1}"
