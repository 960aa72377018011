"""The Authorization header that Label Studio takes (PROTOCOL section 9).

A legacy token is sent as it is. A personal access token is refused there; it
buys an access token that is good for some minutes. A fresh Label Studio takes
no legacy tokens, though it sends one to /setup.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Iterator, Protocol

import jwt

from backend.errors import HostDown, MediaRefused, MediaUnreachable
from backend.http_client import Access, Origin, post_json

_ACCESS_TOKEN_SECONDS = 300.0
_MARGIN_SECONDS = 60.0  # so that none runs out on the way
_MAX_HOSTNAMES = 16
_TOKEN = re.compile(r"[!-~]{1,4096}")
_CONFIGURED = "LABEL_STUDIO_API_KEY"
_SENT = "the token that it sent to /setup"
_MAKE_ONE = (
    "make a personal access token in Label Studio (Account & Settings) and set "
    f"{_CONFIGURED} to it"
)


class LabelStudioAuthorization:
    """Tokens for one Label Studio, the most trusted first. Thread safe.

    The configured key comes before a token that /setup sent; those are kept in
    memory only. All go to `url` and nowhere else.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self._url = url
        self._origin = Origin.of(url)
        self._configured = _credential(url, api_key, _CONFIGURED) if api_key else None
        self._lock = threading.Lock()
        self._sent: dict[str, tuple[str, _Credential]] = {}

    def offer(self, hostname: object, token: object) -> None:
        """Keep the token that Label Studio's /setup call brought, for want of a better.

        `hostname` is what Label Studio calls itself. A token of another host name
        than `url`'s counts only when no key is configured. What is no token is ignored.
        """
        if not isinstance(hostname, str) or not isinstance(token, str):
            return
        if not _TOKEN.fullmatch(token):
            return
        with self._lock:
            known = self._sent.pop(hostname, None)
            if known is None or known[0] != token:
                known = (token, _credential(self._url, token, _SENT))
            self._sent[hostname] = known  # the newest last
            if len(self._sent) > _MAX_HOSTNAMES:
                del self._sent[next(iter(self._sent))]

    def header(self) -> str:
        """The header's value that comes first.

        Raises MediaUnreachable when there is none, or Label Studio refuses it.
        """
        for header in self.headers():
            return header
        raise MediaUnreachable(f"there is no token for Label Studio at {self._url}: {_MAKE_ONE}")

    __call__ = header

    def headers(self) -> Iterator[str]:
        """The headers to try; take the next when Label Studio answers 401 to the last.

        Raises MediaUnreachable when all there are have been refused, naming each
        and what to do; HostDown when Label Studio cannot be asked.
        """
        refusals = []
        for credential in self._credentials():
            try:
                yield from credential.headers()
                refusals.append(credential.refusal)
            except _TokenRefused as error:
                refusals.append(str(error))
        if refusals:
            raise MediaUnreachable("; ".join(refusals))

    def _credentials(self) -> Iterator[_Credential]:
        if self._configured is not None:
            yield self._configured
        with self._lock:
            sent = {name: credential for name, (_, credential) in self._sent.items()}
        own = [credential for name, credential in sent.items() if self._is_own(name)]
        if own:
            yield own[-1]
        elif sent and self._configured is None:
            yield list(sent.values())[-1]

    def _is_own(self, hostname: str) -> bool:
        try:
            return Origin.of(hostname) == self._origin
        except MediaRefused:
            return False


class _TokenRefused(Exception):
    """Label Studio takes no such token; says which kind, and what to do."""


class _Credential(Protocol):
    refusal: str

    def headers(self) -> Iterator[str]: ...


def _credential(url: str, token: str, source: str) -> _Credential:
    is_json_web_token = "." in token  # a legacy token is hexadecimal
    kind = _PersonalAccessToken if is_json_web_token else _LegacyToken
    return kind(url, token, source)


class _LegacyToken:
    def __init__(self, _url: str, token: str, source: str) -> None:
        self._token = token
        self.refusal = (
            f"Label Studio refused {source}, a legacy token; it is wrong, or legacy tokens "
            f"are off, as in every fresh Label Studio: {_MAKE_ONE}"
        )

    def headers(self) -> Iterator[str]:
        yield f"Token {self._token}"


class _PersonalAccessToken:
    """Buys access tokens, and another one early when the one it has is refused."""

    def __init__(self, url: str, token: str, source: str) -> None:
        self._url = f"{url}/api/token/refresh"
        self._token = token
        self._source = source
        self.refusal = (
            f"Label Studio refused the access token that it gave for {source}, a personal "
            "access token: are they switched on for the organization?"
        )
        self._lock = threading.Lock()
        self._access_token = ""
        self._good_until = 0.0

    def headers(self) -> Iterator[str]:
        access_token, is_new = self._current(refused=None)
        yield f"Bearer {access_token}"
        if not is_new:
            access_token, _ = self._current(refused=access_token)
            yield f"Bearer {access_token}"

    def _current(self, *, refused: str | None) -> tuple[str, bool]:
        """(access token, whether it was bought just now)."""
        with self._lock:
            is_new = time.monotonic() >= self._good_until or self._access_token == refused
            if is_new:
                self._good_until = 0.0
                self._access_token = self._bought()
                self._good_until = time.monotonic() + _good_seconds(self._access_token)
            return self._access_token, is_new

    def _bought(self) -> str:
        status, answer = post_json(
            self._url, {"refresh": self._token}, access=Access(home=Origin.of(self._url))
        )
        token = answer.get("access") if isinstance(answer, dict) else None
        if status == 200 and isinstance(token, str) and _TOKEN.fullmatch(token):
            return token
        if status >= 500:
            raise HostDown(f"{self._url} answered {status}")
        raise _TokenRefused(
            f"{self._url} answered {status}: {self._source} is no valid personal access token; "
            f"it has run out, was revoked, or is cut short: {_MAKE_ONE}"
        )


def _good_seconds(access_token: str) -> float:
    """How long an access token is used; by its own claims, not by this machine's clock."""
    try:
        claims = jwt.decode(access_token, options={"verify_signature": False})
        seconds = float(claims["exp"]) - float(claims["iat"])
    except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
        seconds = _ACCESS_TOKEN_SECONDS
    return seconds - min(_MARGIN_SECONDS, seconds / 5)
