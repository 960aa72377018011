"""Who may ask the service, and what a browser may do with its answers."""

from __future__ import annotations

import functools
import hmac
import ipaddress
import logging
from typing import Sequence
from urllib.parse import urlsplit

from flask import Flask, Response, g, request

from backend.errors import Forbidden, NotJson, Unauthorized
from backend.link_keys import KeyPurpose, LinkKey, check_key
from backend.rate_limits import RateLimits
from backend.settings import Settings

logger = logging.getLogger(__name__)

_OPEN_PATHS = ("/", "/health")
"""Answered to everyone: Label Studio and containers look here whether it is alive."""
_KEYED_PATHS = ("/preview.mp4",)
"""With a key in the URL instead: no page can make a `<video>` send a password."""
_TOKEN_SCHEMES = ("bearer", "token")
"""The standard's, and what Label Studio's own API calls it."""
_PANEL_PAGE = "panel_page"
"""The blueprint of plain files, which hold nothing that is secret."""
_KEYED_BLUEPRINTS = ("sessions", "panel_api")
"""Whose routes a panel's key opens, and limits to its project."""
_KEY_HEADER = "X-SAM2-Key"
_COSTS = {
    "sessions.create": 20, "sessions.save": 20, "sessions.export": 20,
    "panel_api.tasks": 10, "panel_api.task": 10,
}  # fmt: skip
"""What counts as more than one request of a key."""
_READING = ("GET", "HEAD", "OPTIONS")
_OWN_SITES = ("same-origin", "none")
_LABEL_STUDIO_PATHS = ("/predict", "/setup", "/webhook")
_NOT_PUBLIC_ENDINGS = (
    ".localhost", ".local", ".internal", ".svc", ".home.arpa", ".test", ".lan", ".localdomain",
)
"""Of names that nobody can have on the internet: clusters', home networks' and reserved ones."""

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
    limits = RateLimits(settings.key_requests_per_second)

    def check() -> None:
        g.sam2_key = _checked_key(settings)
        if g.sam2_key is None:
            _check_credentials(settings)
        else:
            limits.take(g.sam2_key, _COSTS.get(request.endpoint or "", 1))
        _check_site(settings)

    app.before_request(check)
    app.after_request(functools.partial(_with_headers, _challenges(settings)))


def project_of_key() -> int | None:
    """The project whose panel's key the request has, `link_keys.STAND_ALONE` for none;
    None: it has no key and may reach all."""
    key: LinkKey | None = g.sam2_key
    return None if key is None else key.project_id


def _checked_key(settings: Settings) -> LinkKey | None:
    """Raises KeyRefused for one that is not good, also where none is needed: what it
    limits would be reached without it."""
    text = request.headers.get(_KEY_HEADER)
    if text is None or request.blueprint not in _KEYED_BLUEPRINTS:
        return None
    return check_key(settings, text, KeyPurpose.PANEL)


def _check_credentials(settings: Settings) -> None:
    """Raises Unauthorized for one who has none, where the settings ask for some, and
    Forbidden for a name that may be a stranger's where they do not."""
    if request.path in _OPEN_PATHS and request.method in ("GET", "HEAD"):
        return
    if request.path in _KEYED_PATHS and request.method in _READING:
        return
    if request.blueprint == _PANEL_PAGE:
        return
    has_password = settings.basic_auth_password is not None
    if not has_password and not settings.api_tokens:
        _check_host(settings)
        return
    if (has_password and _has_password(settings)) or _has_token(settings.api_tokens):
        return
    ways = []
    if has_password:
        ways.append(
            "user and password, those of SAM2_BASIC_AUTH_USER and SAM2_BASIC_AUTH_PASSWORD"
        )
    if settings.api_tokens:
        ways.append("a token of SAM2_API_TOKENS, as Authorization: Bearer")
    raise Unauthorized(f"needed: {', or '.join(ways)}")


def _has_password(settings: Settings) -> bool:
    given = request.authorization
    is_basic = given is not None and given.type == "basic"
    user = (given.username if is_basic else None) or ""
    password = (given.password if is_basic else None) or ""
    # Both are compared, whatever the first gives: the time tells nothing.
    is_user = hmac.compare_digest(user.encode(), settings.basic_auth_user.encode())
    is_password = hmac.compare_digest(password.encode(), settings.basic_auth_password.encode())
    return is_user and is_password


def _has_token(tokens: Sequence[str]) -> bool:
    given = request.authorization
    is_token = given is not None and given.type in _TOKEN_SCHEMES
    token = ((given.token if is_token else None) or "").encode()
    # All are compared, for the same reason.
    return any([hmac.compare_digest(token, known.encode()) for known in tokens])


def _check_host(settings: Settings) -> None:
    """Raises Forbidden for a name that another's DNS may have pointed here.

    A page of that name is of the same origin for a browser, which then lets it
    read all that is answered without a password (DNS rebinding). A stranger
    can own neither an address, nor a name without a dot, nor one of a local network.
    """
    name = _host_name(request.host)
    if not _may_be_a_strangers(name) or name in settings.host_names:
        return
    raise Forbidden(
        f"asked as {name!r:.80}, which this service is not known as: without a password or tokens "
        "it answers to addresses and local names alone; put the name into SAM2_ALLOWED_HOSTS "
        "where it is this service's"
    )


def _host_name(host: str) -> str:
    """"Example.com.:8080" -> "example.com"; "[::1]:80" -> "::1"."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return host


def _may_be_a_strangers(name: str) -> bool:
    if "." not in name or name.endswith(_NOT_PUBLIC_ENDINGS):
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return True
    return False


def _check_site(settings: Settings) -> None:
    """Raises Forbidden for what another site lets a person's browser send.

    A browser adds the password it knows to whatever a page sends. But it names
    the page's site with what it sends for it (over plain HTTP by `Origin`
    alone), and no page of another site can add a header or send JSON without
    being allowed to.

    Raises NotJson where Label Studio sends JSON.
    """
    if request.method in _READING:
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITES:
        raise Forbidden(f"a request of another site (Sec-Fetch-Site: {site!r:.40}) is not taken")
    origin = request.headers.get("Origin")
    # No other site's page has a key, nor can it add the header.
    if origin is not None and g.sam2_key is None and not _is_own(origin, settings):
        raise Forbidden(
            f"a request of another site (Origin: {origin!r:.80}) is not taken; put the name into "
            "SAM2_ALLOWED_HOSTS where it is this service's behind a proxy"
        )
    is_json = request.mimetype == "application/json"
    if request.path in _LABEL_STUDIO_PATHS and not is_json:
        raise NotJson(
            f"Content-Type {request.mimetype!r:.80}: {request.path} takes application/json alone"
        )
    if not is_json and "X-Requested-With" not in request.headers:
        raise Forbidden(
            "a request that changes something must be JSON (Content-Type: application/json) "
            "or have the header X-Requested-With"
        )


def _is_own(origin: str, settings: Settings) -> bool:
    """Whether a page of this origin is one of ours: under the name and port that this request
    was sent to, or under a name that the settings give the service."""
    try:
        parts = urlsplit(origin.lower())
        name = (parts.hostname or "").rstrip(".")
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not name:
        return False  # "null", of a page in a sandbox or a file
    return parts.netloc == request.host.lower() or name in settings.allowed_hosts


def _challenges(settings: Settings) -> list[str]:
    """How one may say who one is; a browser asks its user for a password by the first."""
    realm = 'realm="sam2-label-studio"'
    basic = [f'Basic {realm}, charset="UTF-8"'] if settings.basic_auth_password else []
    return [*basic, *([f"Bearer {realm}"] if settings.api_tokens else [])]


def _with_headers(challenges: Sequence[str], answer: Response) -> Response:
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    if request.blueprint == _PANEL_PAGE:
        del answer.headers["X-Frame-Options"]  # its policy names who may; this header cannot
    if answer.status_code == 401:
        answer.headers.setlist("WWW-Authenticate", challenges)
    return answer
