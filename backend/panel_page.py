"""`/panel`: the page that people click on, also inside Label Studio's labeling screen.

Plain files; what they show comes from `/api/sessions` and `/api/panel`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import PurePosixPath

from flask import Blueprint, Response, abort, request

from backend.settings import Settings

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)


def panel_page(settings: Settings) -> Blueprint:
    """The page and its files. Pages of Label Studio may have it in a frame, no others."""
    routes = Blueprint("panel_page", __name__, url_prefix="/panel")
    policy = " ".join([_POLICY, *settings.label_studio_origins])

    @routes.get("")
    def page() -> Response:
        return _file("index.html")

    @routes.get("/")
    def folder() -> Response:
        # Relative, as the page's own links are: a proxy may put all under a path.
        query = request.query_string.decode("latin-1")
        location = "../panel" + (f"?{query}" if query else "")
        return Response(status=308, headers={"Location": location})

    @routes.get("/<name>")
    def part(name: str) -> Response:
        return _file(name)

    def _file(name: str) -> Response:
        kind = _CONTENT_TYPES.get(PurePosixPath(name).suffix)
        found = [file for file in files("backend").joinpath("panel").iterdir() if file.name == name]
        if kind is None or not found:
            abort(404)
        (file,) = found
        answer = Response(file.read_bytes(), content_type=kind)
        answer.headers["Content-Security-Policy"] = policy
        answer.headers["Cache-Control"] = "no-cache"
        answer.add_etag()
        return answer.make_conditional(request)

    return routes
