"""`/ui`: a page on which people see the jobs. Plain files; its data comes from /api/jobs."""

from __future__ import annotations

from importlib.resources import files

from flask import Blueprint, Response, abort, request

_CONTENT_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "jobs.js": "text/javascript; charset=utf-8",
    "plot.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""The files there are."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def user_interface() -> Blueprint:
    """The page and its files."""
    routes = Blueprint("ui", __name__, url_prefix="/ui")

    @routes.get("")
    def page() -> Response:
        return _file("index.html")

    @routes.get("/")
    def folder() -> Response:
        # Relative, as the page's own links are: a proxy may put all under a path.
        return Response(status=308, headers={"Location": "../ui"})

    @routes.get("/<name>")
    def part(name: str) -> Response:
        return _file(name)

    return routes


def _file(name: str) -> Response:
    if name not in _CONTENT_TYPES:
        abort(404)
    content = files("backend").joinpath("ui", name).read_bytes()
    answer = Response(content, content_type=_CONTENT_TYPES[name])
    answer.headers["Content-Security-Policy"] = _POLICY
    answer.headers["Cache-Control"] = "no-cache"
    answer.add_etag()
    return answer.make_conditional(request)
