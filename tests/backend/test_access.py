"""Who may ask, and what browsers are told."""

from __future__ import annotations

import pytest

from backend.settings import Settings
from tests.backend.conftest import payload

LOGIN = ("annotator", "påss:word")
OPEN = ("/", "/health")
CLOSED = ("/versions", "/metrics", "/ui", "/api/jobs", "/nothing")


@pytest.fixture
def closed(make_client):
    return make_client(basic_auth_user=LOGIN[0], basic_auth_password=LOGIN[1])


@pytest.mark.parametrize("path", OPEN)
def test_health_needs_no_password(closed, path):
    assert closed.get(path).status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "login", [None, ("annotator", ""), ("", LOGIN[1]), ("annotator", "påss:wor"), ("x", LOGIN[1])]
)
def test_all_else_needs_the_password(closed, path, login):
    answer = closed.get(path, auth=login)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    assert set(answer.json) == {"error", "detail", "request_id"}
    assert LOGIN[1] not in answer.get_data(as_text=True)


@pytest.mark.parametrize("path", ["/setup", "/predict", "/webhook", "/"])
def test_label_studios_posts_need_it_too(closed, path):
    assert closed.post(path, json=payload("setup")).status_code == 401


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!!", "Basic eA==", "Digest a=b"])
def test_other_credentials_are_refused(closed, header):
    assert closed.get("/versions", headers={"Authorization": header}).status_code == 401


def test_the_right_password_is_let_in(closed):
    assert closed.get("/versions", auth=LOGIN).status_code == 200
    assert closed.post("/setup", json=payload("setup"), auth=LOGIN).status_code == 200


def test_without_a_password_in_the_settings_everyone_is_let_in(client):
    assert client.get("/versions").status_code == 200


TOKENS = ("token-of-the-night-shift", "token-of-the-day-shift")


@pytest.fixture
def with_tokens(make_client):
    return make_client(api_tokens=TOKENS)


@pytest.mark.parametrize("header", [f"Bearer {TOKENS[0]}", f"Token {TOKENS[1]}", f"bearer {TOKENS[1]}"])
def test_any_token_lets_in(with_tokens, header):
    answer = with_tokens.get("/versions", headers={"Authorization": header})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", f"Bearer {TOKENS[0][:-1]}", f"Bearer {TOKENS[0]}x", TOKENS[0],
     f"Basic {TOKENS[0]}", f"Digest {TOKENS[0]}", f"Bearer {TOKENS[0]},{TOKENS[1]}", "Bearer é",
     f"Bearer {TOKENS[0]} {TOKENS[1]}"],
)  # fmt: skip
def test_without_one_of_the_tokens_nobody_is_let_in(with_tokens, path, header):
    headers = {} if header is None else {"Authorization": header}
    answer = with_tokens.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers.getlist("WWW-Authenticate") == ['Bearer realm="sam2-label-studio"']
    assert not any(token in answer.get_data(as_text=True) for token in TOKENS)


@pytest.mark.parametrize("path", OPEN)
def test_health_needs_no_token(with_tokens, path):
    assert with_tokens.get(path).status_code == 200


def test_a_token_or_the_password_is_enough(make_client):
    client = make_client(
        basic_auth_user=LOGIN[0], basic_auth_password=LOGIN[1], api_tokens=TOKENS
    )
    assert client.get("/versions", auth=LOGIN).status_code == 200
    token = {"Authorization": f"Bearer {TOKENS[0]}"}
    assert client.get("/versions", headers=token).status_code == 200
    assert client.get("/versions", auth=(LOGIN[0], TOKENS[0])).status_code == 401
    refused = client.get("/versions")
    challenges = refused.headers.getlist("WWW-Authenticate")
    assert [text.split()[0] for text in challenges] == ["Basic", "Bearer"]


def test_a_token_takes_no_form_of_another_site_along(with_tokens):
    """It is no cookie: a browser adds it to nothing. Changes are checked all the same."""
    token = {"Authorization": f"Bearer {TOKENS[0]}"}
    answer = with_tokens.post("/predict", json={}, headers=token | {"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("user", "password", "message"),
    [
        ("a", None, "must both be set"), (None, "b", "must both be set"), ("a:b", "c", "':'"),
        ("", "c", "must not be empty"), ("a", "", "must not be empty"),
    ],
)
def test_half_a_login_is_a_mistake_in_the_settings(user, password, message):
    with pytest.raises(ValueError, match=message):
        Settings(basic_auth_user=user, basic_auth_password=password)


def test_the_password_comes_from_the_environment_and_is_shown_nowhere():
    settings = Settings.from_environment(
        {"SAM2_BASIC_AUTH_USER": "annotator", "SAM2_BASIC_AUTH_PASSWORD": "secret-word"}
    )
    assert settings.basic_auth_password == "secret-word"
    assert "secret-word" not in repr(settings) and "secret-word" in settings.secrets


@pytest.mark.parametrize("path", ["/health", "/ui", "/api/jobs", "/nothing", "/metrics"])
def test_every_answer_has_the_security_headers(client, path):
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/webhook", "/predict", "/api/jobs"])
def test_what_another_site_lets_a_browser_send_is_refused(client, path, site):
    answer = client.post(path, json={}, headers={"Sec-Fetch-Site": site})
    assert answer.status_code == 403 and "another site" in answer.json["detail"]


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded"]
)
def test_a_form_of_another_page_changes_no_job(client, content_type):
    answer = client.post("/api/jobs/any/cancel", data="{}", content_type=content_type)
    assert answer.status_code == 403 and "X-Requested-With" in answer.json["detail"]
    assert client.delete("/api/jobs/any").status_code == 403
    answer = client.delete("/api/jobs/any", headers={"X-Requested-With": "fetch"})
    assert answer.status_code == 404


LABEL_STUDIO_PATHS = ["/predict", "/setup", "/webhook"]


@pytest.mark.parametrize("path", [*LABEL_STUDIO_PATHS, "/api/jobs", "/api/sessions"])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "https://localhost:8443", "http://localhost:8080", "null", "file://", "http://",
     "http://localhost.evil.example", "http://[::1", "http://localhost@evil.example"],
)  # fmt: skip
def test_what_a_page_of_another_origin_sends_is_refused(client, path, origin):
    """Over plain HTTP, browsers say no more than this of where a request comes from."""
    answer = client.post(path, json={}, headers={"Origin": origin})
    assert answer.status_code == 403 and "another site" in answer.json["detail"]


@pytest.mark.parametrize("base", ["http://localhost", "http://sam2:9090", "http://127.0.0.1:9090"])
def test_the_services_own_pages_may_change_something(client, base):
    answer = client.post("/setup", json={}, base_url=base, headers={"Origin": base.upper()})
    assert answer.status_code == 200


def test_a_page_of_a_name_of_the_settings_may_too(make_client):
    """A proxy may ask the service under another name than people do."""
    client = make_client(allowed_hosts=("sam2.example.com",))
    for origin, status in (("https://sam2.example.com", 200), ("https://example.com", 403)):
        answer = client.post(
            "/setup", json={}, base_url="http://backend:9090", headers={"Origin": origin}
        )
        assert answer.status_code == status


@pytest.mark.parametrize("path", LABEL_STUDIO_PATHS)
@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data",
     "text/plain;application/json", "application/jsonp"],
)  # fmt: skip
def test_label_studios_routes_take_json_alone(client, path, content_type):
    answer = client.post(path, data='{"action": "START_TRAINING"}', content_type=content_type)
    assert answer.status_code == 415 and "application/json" in answer.json["detail"]


def test_json_may_name_its_charset(client):
    kind = "application/json; charset=utf-8"
    assert client.post("/setup", data="{}", content_type=kind).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:9090", "10.1.2.3", "[::1]:9090", "localhost:9090", "sam2:9090", "sam2.default.svc",
     "sam2.default.svc.cluster.local:9090", "host.docker.internal", "box.local", "app.localhost"],
)  # fmt: skip
def test_names_that_no_stranger_can_own_are_answered(client, host):
    assert client.get("/versions", base_url=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example:9090", "EVIL.EXAMPLE.", "127.0.0.1.nip.io", "sam2.example.com.evil.io",
     "local.evil.io", "127.1.evil.io"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/versions", "/api/jobs", "/ui", "/metrics"])
def test_a_name_that_a_stranger_may_have_pointed_here_is_refused(client, host, path):
    answer = client.get(path, base_url=f"http://{host}")
    assert answer.status_code == 403 and "SAM2_ALLOWED_HOSTS" in answer.json["detail"]


@pytest.mark.parametrize("host", ["sam2.example.com:9090", "SAM2.example.com", "labels.example.com"])
def test_names_of_the_settings_are_answered(make_client, host):
    client = make_client(
        allowed_hosts=("Sam2.Example.com",), browser_origins=("https://labels.example.com",)
    )
    assert client.get("/versions", base_url=f"http://{host}").status_code == 200


def test_with_a_password_any_name_is_answered_to_those_who_know_it(closed):
    answer = closed.get("/versions", base_url="http://sam2.example.com", auth=LOGIN)
    assert answer.status_code == 200


@pytest.mark.parametrize("name", ["a b", "a:80", "http://a", "", "a/b"])
def test_an_allowed_host_must_be_a_name(name):
    with pytest.raises(ValueError, match="allowed_hosts"):
        Settings(allowed_hosts=(name,))
