"""Which token Label Studio is shown, when the next, and what is said when all are refused."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import jwt
import pytest

from backend.deadlines import Deadline
from backend.errors import HostDown, MediaUnreachable
from backend.http_client import Access, Origin, download
from backend.label_studio_auth import LabelStudioAuthorization
from tests.backend.http_server import Reply, serving_site

PERSONAL = "eyJhbGciOiJIUzI1NiJ9.cmVmcmVzaA.secret-signature"
JSON = {"Content-Type": "application/json"}
VIDEO = {"Content-Type": "video/mp4"}


class Studio:
    """Answers /file to the headers in `takes`, and sells access tokens for PERSONAL."""

    def __init__(self, site):
        self.site, self.url = site, site.url
        self.takes = set()
        self.sells = [f"access-{number}" for number in range(1, 9)]
        site.replies["/file"] = self._file
        site.replies["/api/token/refresh"] = self._refresh

    def _file(self, asked):
        is_known = asked.headers.get("Authorization") in self.takes
        return Reply(b"film", headers=VIDEO) if is_known else Reply(status=401)

    def _refresh(self, asked):
        if json.loads(asked.body) != {"refresh": PERSONAL}:
            return Reply(b'{"detail": "Token is invalid"}', 401, JSON)
        return Reply(json.dumps({"access": self.sells.pop(0)}).encode(), headers=JSON)

    def shown(self):
        """Authorization headers that /file saw."""
        asked = [asked for asked in self.site.asked if asked.path == "/file"]
        return [one.headers.get("Authorization") for one in asked]

    def refreshes(self):
        return sum(asked.path == "/api/token/refresh" for asked in self.site.asked)


@pytest.fixture
def studio():
    with serving_site() as site:
        yield Studio(site)


@pytest.fixture
def fetch(studio, tmp_path):
    def fetch(authorization):
        access = Access(home=Origin.of(studio.url), authorization=authorization)
        with (tmp_path / "file").open("w+b") as file:
            return download(
                f"{studio.url}/file", file, access=access, max_bytes=99, deadline=Deadline(60)
            )

    return fetch


def signed(seconds):
    claims = {"iat": 1_000_000, "exp": 1_000_000 + seconds}
    return jwt.encode(claims, "k" * 32, algorithm="HS256")


def test_the_configured_key_comes_before_what_setup_sent(studio, fetch):
    studio.takes = {"Token configured", "Token sent"}
    authorization = LabelStudioAuthorization(studio.url, "configured")
    authorization.offer(studio.url, "sent")
    fetch(authorization)
    assert studio.shown() == ["Token configured"]
    assert authorization() == authorization.header() == "Token configured"


def test_what_setup_sent_helps_where_the_configured_key_is_refused(studio, fetch):
    studio.takes = {"Token sent"}
    authorization = LabelStudioAuthorization(studio.url, "configured")
    authorization.offer(f"{studio.url}/", "sent")
    fetch(authorization)
    assert studio.shown() == ["Token configured", "Token sent"]


def test_another_host_name_s_token_is_not_used_beside_a_configured_key(studio, fetch):
    authorization = LabelStudioAuthorization(studio.url, "configured")
    authorization.offer("http://elsewhere.example", "foreign")
    with pytest.raises(MediaUnreachable):
        fetch(authorization)
    assert studio.shown() == ["Token configured"]


def test_without_a_key_any_host_name_s_token_serves_its_own_first(studio, fetch):
    studio.takes = {"Token inner", "Token own"}
    authorization = LabelStudioAuthorization(studio.url)
    authorization.offer("http://localhost:8080", "inner")
    fetch(authorization)
    authorization.offer(studio.url, "own")
    authorization.offer("http://localhost:8080", "inner")
    fetch(authorization)
    assert studio.shown() == ["Token inner", "Token own"]


def test_a_newer_token_from_setup_replaces_the_older(studio):
    authorization = LabelStudioAuthorization(studio.url)
    for token in ("old", "new"):
        authorization.offer(studio.url, token)
    assert authorization.header() == "Token new"


@pytest.mark.parametrize("token", [None, 7, "", "two words", "line\r\nX: 1", "é", "x" * 5000])
@pytest.mark.parametrize("hostname", ["{url}", None, 3])
def test_what_is_no_token_is_ignored(studio, hostname, token):
    hostname = hostname.format(url=studio.url) if isinstance(hostname, str) else hostname
    authorization = LabelStudioAuthorization(studio.url)
    authorization.offer(hostname, token)
    with pytest.raises(MediaUnreachable, match="no token"):
        authorization.header()


def test_many_host_names_do_not_fill_the_memory(studio):
    authorization = LabelStudioAuthorization(studio.url)
    for number in range(1000):
        authorization.offer(f"http://host{number}", f"token{number}")
    assert authorization.header() == "Token token999"
    assert len(authorization._sent) < 100


def test_an_access_token_is_bought_once_for_many(studio):
    authorization = LabelStudioAuthorization(studio.url, PERSONAL)
    with ThreadPoolExecutor(8) as pool:
        headers = list(pool.map(lambda _: authorization.header(), range(16)))
    assert set(headers) == {"Bearer access-1"}
    assert studio.refreshes() == 1


def test_an_access_token_is_used_until_shortly_before_it_runs_out(studio):
    studio.sells = [signed(0), signed(300), "never"]
    authorization = LabelStudioAuthorization(studio.url, PERSONAL)
    first, second = authorization.header(), authorization.header()
    assert first != second == authorization.header()
    assert studio.refreshes() == 2


def test_a_refused_access_token_is_replaced_once(studio, fetch):
    authorization = LabelStudioAuthorization(studio.url, PERSONAL)
    studio.takes = {"Bearer access-1"}
    fetch(authorization)
    studio.takes = {"Bearer access-2"}  # Label Studio was started anew, say
    fetch(authorization)
    assert studio.shown() == ["Bearer access-1"] * 2 + ["Bearer access-2"]
    studio.takes = set()
    with pytest.raises(MediaUnreachable):
        fetch(authorization)
    assert studio.shown()[3:] == ["Bearer access-2", "Bearer access-3"]
    assert studio.refreshes() == 3


@pytest.mark.parametrize(
    ("key", "sent", "messages"),
    [
        ("legacy-secret", None, ["LABEL_STUDIO_API_KEY, a legacy token", "legacy tokens are off"]),
        (PERSONAL, None, ["access token that it gave for LABEL_STUDIO_API_KEY"]),
        ("aaa.secret", None, ["no valid personal access token", "run out"]),
        (None, "sent-secret", ["the token that it sent to /setup, a legacy token"]),
        ("legacy-secret", "sent-secret", ["LABEL_STUDIO_API_KEY, a legacy", "to /setup"]),
        (None, None, ["wants a token", "set LABEL_STUDIO_API_KEY"]),
    ],
)
def test_a_refusal_names_the_kind_of_token_and_the_remedy(studio, fetch, key, sent, messages):
    authorization = LabelStudioAuthorization(studio.url, key)
    authorization.offer(studio.url, sent)
    with pytest.raises(MediaUnreachable, match="401") as caught:
        fetch(authorization)
    for message in messages:
        assert message in caught.value.detail
    assert "secret" not in caught.value.detail and "access-" not in caught.value.detail


def test_a_label_studio_that_is_down_is_not_a_refusal(studio):
    studio.site.replies["/api/token/refresh"] = Reply(status=503)
    with pytest.raises(HostDown):
        LabelStudioAuthorization(studio.url, PERSONAL).header()


def test_no_token_is_logged_or_told(studio, fetch, caplog):
    caplog.set_level(logging.DEBUG)
    authorization = LabelStudioAuthorization(studio.url, PERSONAL)
    authorization.offer(studio.url, "sent-secret")
    told = []
    studio.takes = {"Bearer access-1"}
    fetch(authorization)
    studio.takes = set()
    for reply in (Reply(status=401), Reply(b"x", headers=VIDEO, announced=9), Reply(status=500)):
        if reply.status != 401:
            studio.site.replies["/file"] = reply
        with pytest.raises(MediaUnreachable) as caught:
            fetch(authorization)
        told.append(str(caught.value) + repr(caught.value.__cause__))
    everything = caplog.text + "".join(told) + repr(vars(authorization).keys())
    for secret in (PERSONAL, "secret", "access-"):
        assert secret not in everything
