"""The Authorization header that Label Studio takes (PROTOCOL section 9).

A legacy token is sent as it is. A personal access token is refused there; it
buys an access token that is good for 300 seconds.
"""

from __future__ import annotations

import threading
import time

from backend.errors import MediaUnreachable
from backend.http_client import Access, Origin, post_json

_ACCESS_TOKEN_SECONDS = 240.0  # of 300, so that none runs out on the way


class LabelStudioAuthorization:
    """Called, it gives the header's value. Thread safe."""

    def __init__(self, url: str, api_key: str) -> None:
        self._url = url
        self._key = api_key
        self._lock = threading.Lock()
        self._access_token = ""
        self._good_until = 0.0

    def __call__(self) -> str:
        """Raises MediaUnreachable when Label Studio takes no such key."""
        if self._key.count(".") != 2:  # not a JSON web token
            return f"Token {self._key}"
        with self._lock:
            if time.monotonic() >= self._good_until:
                self._access_token = self._refreshed()
                self._good_until = time.monotonic() + _ACCESS_TOKEN_SECONDS
            return f"Bearer {self._access_token}"

    def _refreshed(self) -> str:
        url = f"{self._url}/api/token/refresh"
        status, answer = post_json(
            url, {"refresh": self._key}, access=Access(home=Origin.of(url))
        )
        token = answer.get("access") if isinstance(answer, dict) else None
        if status != 200 or not isinstance(token, str) or not token.isascii() or not token:
            raise MediaUnreachable(
                f"{url} answered {status}: LABEL_STUDIO_API_KEY is no valid personal access token"
            )
        return token
