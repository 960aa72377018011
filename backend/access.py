"""Who may ask the service, and what a browser may do with its answers."""

from __future__ import annotations

import hmac
import logging

from flask import Flask, Response, request

from backend.errors import Forbidden, Unauthorized
from backend.settings import Settings

logger = logging.getLogger(__name__)

_OPEN_PATHS = ("/", "/health")
"""Answered to everyone: Label Studio and containers look here whether it is alive."""
_KEYED_PATHS = ("/preview.mp4",)
"""With a key in the URL instead: no page can make a `<video>` send a password."""
_READING = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")
_API = "/api/"

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer that does not say otherwise itself."""


def guard(app: Flask, settings: Settings) -> None:
    """Check each request before its view, and add the headers to each answer."""

    def check() -> None:
        _check_password(settings)
        _check_site()

    app.before_request(check)
    app.after_request(_with_headers)


def _check_password(settings: Settings) -> None:
    """Raises Unauthorized for one who does not know it, where there is one."""
    if settings.basic_auth_user is None or settings.basic_auth_password is None:
        return
    if request.path in _OPEN_PATHS and request.method in ("GET", "HEAD"):
        return
    if request.path in _KEYED_PATHS and request.method in _READING:
        return
    given = request.authorization
    is_basic = given is not None and given.type == "basic"
    user = (given.username if is_basic else None) or ""
    password = (given.password if is_basic else None) or ""
    # Both are compared, whatever the first gives: the time tells nothing.
    is_user = hmac.compare_digest(user.encode(), settings.basic_auth_user.encode())
    is_password = hmac.compare_digest(password.encode(), settings.basic_auth_password.encode())
    if not (is_user and is_password):
        raise Unauthorized(
            "user and password are needed: those of SAM2_BASIC_AUTH_USER and "
            "SAM2_BASIC_AUTH_PASSWORD"
        )


def _check_site() -> None:
    """Raises Forbidden for what another site lets a person's browser send.

    A browser adds the password it knows to whatever a page sends, but no page
    of another site can add a header or send JSON without being allowed to.
    """
    if request.method in _READING:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITES:
        raise Forbidden(f"a request of another site (Sec-Fetch-Site: {site!r:.40}) is not taken")
    if request.path.startswith(_API) and not (
        request.mimetype == "application/json" or "X-Requested-With" in request.headers
    ):
        raise Forbidden(
            "a request that changes something must be JSON (Content-Type: application/json) "
            "or have the header X-Requested-With"
        )


def _with_headers(answer: Response) -> Response:
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    if answer.status_code == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="sam2-label-studio", charset="UTF-8"'
    return answer
