"""Secrets are planted wherever one can come in; nothing that goes out may hold one."""

from __future__ import annotations

import base64
import inspect
import itertools
import logging
import re

import pytest

from backend.cli import main
from backend.link_keys import KeyPurpose, make_key
from backend.settings import Settings
from tests.backend.calls import VIDEO_CONFIG, box, wait_for_jobs
from tests.backend.conftest import payload
from tests.backend.http_server import serving_site

SETTINGS = {
    "label_studio_api_key": "planted-api-key",
    "basic_auth_user": "annotator",
    "basic_auth_password": "planted-password",
    "api_tokens": ("planted-token-number-one", "planted-token-number-two"),
    "link_secret": "planted-link-secret-of-32-characters",
}
LOGIN = {"Authorization": "Bearer planted-token-number-two"}
COOKIE = {"Cookie": "sessionid=planted-cookie"}
REFERENCES = [
    "http://user:planted-url-password@127.0.0.1:{port}/a.mp4",
    "http://127.0.0.1:{port}/gone.mp4?X-Amz-Signature=planted-signature",
    "http://127.0.0.1:{port}/a.mp4#planted-fragment",
    "http://planted-url-user@host.invalid/a.mp4",
    "/data/upload/1/gone.mp4?token=planted-upload-token",
    "s3://bucket/gone.mp4?sig=planted-cloud-signature",
]


def wrong_logins():
    for text in ("annotator:planted-wrong-password", "planted-wrong-user:x"):
        yield f"Basic {base64.b64encode(text.encode()).decode()}"
    yield "Bearer planted-wrong-token"
    yield "Token planted-wrong-token"


def task(reference, number):
    return {"id": number, "project": 1, "data": {"video": reference}}


def asked(client, elsewhere_port, preview_key, panel_key):
    """Requests of every kind, most of which fail."""
    setup = payload("setup") | {"access_token": "planted-setup-token"}
    webhook = payload("webhook_annotation_created")
    webhook["project"]["token"] = "planted-project-token"
    yield client.post("/setup", json=setup, headers=LOGIN | COOKIE)
    yield client.post("/webhook", json=webhook, headers=LOGIN)
    for login in wrong_logins():
        yield client.get("/api/jobs", headers={"Authorization": login})
    for number, text in enumerate(REFERENCES, start=1):
        reference = text.format(port=elsewhere_port)
        call = {
            "tasks": [task(reference, number)], "label_config": VIDEO_CONFIG,
            "params": {"context": {"result": [box()]}},
        }
        yield client.post("/predict", json=call, headers=LOGIN)
        order = {"task": task(reference, number), "label_config": VIDEO_CONFIG, "results": [box()]}
        yield client.post("/api/jobs", json=order, headers=LOGIN)
        yield client.post("/api/sessions", json={"video": reference}, headers=LOGIN)
        yield client.get("/preview.mp4", query_string=f"key={preview_key}&src={reference}")
        for header in (panel_key, "1.9999999999.planted-wrong-key"):
            key = {"X-SAM2-Key": header}
            yield client.post("/api/sessions", json={"video": reference}, headers=key)
            yield client.get("/api/panel/tasks", query_string={"video": reference}, headers=key)
    yield client.get("/preview.mp4?key=1.9999999999.planted-wrong-key&src=a")
    yield client.post("/predict", data='{"access_token": "planted-broken-body', headers=LOGIN)
    yield client.get("/nothing?token=planted-query-token", headers=LOGIN)
    yield client.get(f"/panel?key={panel_key}")
    for path in ("/", "/health", "/versions", "/metrics", "/ui", "/ui/jobs.js"):
        yield client.get(path, headers=LOGIN | COOKIE)


def looked_at(client):
    """What is kept of them."""
    for path in ("/api/jobs", "/api/openapi.json", "/metrics", "/health"):
        yield client.get(path, headers=LOGIN)
    for job in client.get("/api/jobs", headers=LOGIN).json["jobs"]:
        for part in ("", "/result", "/scores"):
            yield client.get(f"/api/jobs/{job['id']}{part}", headers=LOGIN)


def told_by(answer):
    """All of it, but where a preview's redirect repeats the link to the one who has it."""
    headers = [f"{n}: {v}\n" for n, v in answer.headers if (n, answer.status_code) != ("Location", 302)]
    return "".join(headers) + answer.get_data().decode("utf-8", "replace")


@pytest.fixture
def closed(make_client, elsewhere):
    # The host may be asked, so that what it is asked with could be told.
    return make_client(allow_private_media_hosts=(f"127.0.0.1:{elsewhere.port}",), **SETTINGS)


@pytest.fixture
def elsewhere():
    with serving_site() as site:
        yield site


def test_nothing_that_goes_out_holds_a_secret(closed, elsewhere, label_studio, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    service = closed.application.extensions["sam2"]
    keys = [make_key(service.settings, 1, purpose) for purpose in KeyPurpose]
    answers = list(asked(closed, elsewhere.port, *keys))
    wait_for_jobs(closed)
    answers += looked_at(closed)
    told = [told_by(answer) for answer in answers]
    told += [caplog.text, *capfd.readouterr(), repr(service.settings)]
    for text in told:
        assert "planted" not in text, text[max(0, text.index("planted") - 200) :][:400]
    for key in keys:
        signature = key.rpartition(".")[2]
        assert not any(signature in text for text in told)
    assert {answer.status_code for answer in answers} >= {200, 202, 401, 403, 404}
    # Another host is told nothing, Label Studio its key alone.
    sent = [str(item.headers) for item in elsewhere.asked]
    assert elsewhere.asked and not any("planted" in text for text in sent)
    used = {item.headers.get("Authorization") for item in label_studio.asked}
    assert used <= {"Token planted-api-key", None}


def test_the_data_folder_holds_none_of_the_services_own(closed, elsewhere, tmp_path):
    service = closed.application.extensions["sam2"]
    keys = [make_key(service.settings, 1, purpose) for purpose in KeyPurpose]
    list(asked(closed, elsewhere.port, *keys))
    wait_for_jobs(closed)
    secrets = [*service.settings.secrets, "planted-setup-token", "planted-project-token",
               "planted-cookie", *itertools.chain(w.split()[1] for w in wrong_logins())]  # fmt: skip
    files = [path for path in (tmp_path / "service").rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite3" for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (path.name, secret)


def planted_in_every_secret_setting():
    """A value for each field that the settings' own words call secret."""
    texts = {
        "label_studio_api_key": "planted-api-key", "basic_auth_password": "planted-password",
        "api_tokens": ("planted-token-number-one", "planted-token-number-two"),
        "link_secret": "planted-link-secret-of-32-characters",
        "queue": "redis://:planted-queue-password@127.0.0.1:1/0",
    }  # fmt: skip
    source = inspect.getsource(Settings)
    fields = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, re.MULTILINE | re.DOTALL)
    assert {name for name, words in fields if words.endswith("Secret.")} == set(texts)
    return texts


def test_every_secret_setting_is_masked_wherever_settings_are_shown(
    tmp_path, monkeypatch, capsys, caplog
):
    planted = planted_in_every_secret_setting()
    variables = {
        "LABEL_STUDIO_URL": "http://127.0.0.1:1", "LABEL_STUDIO_API_KEY": planted["label_studio_api_key"],
        "SAM2_BASIC_AUTH_USER": "annotator",
        "SAM2_BASIC_AUTH_PASSWORD": planted["basic_auth_password"],
        "SAM2_API_TOKENS": ",".join(planted["api_tokens"]),
        "SAM2_LINK_SECRET": planted["link_secret"], "SAM2_QUEUE": planted["queue"],
        "SAM2_DATA_FOLDER": str(tmp_path),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment()
    assert {name for name, value in settings.shown() if value == "***"} == set(planted)
    assert main(["doctor", "--no-media"]) == 1
    told = [*capsys.readouterr(), caplog.text, repr(settings), str(dict(settings.shown()))]
    assert "api_tokens = ***" in told[0]
    assert not any("planted" in text for text in told)


@pytest.mark.parametrize(
    "variable, value",
    [
        ("SAM2_API_TOKENS", "planted"), ("SAM2_LINK_SECRET", "planted"),
        ("SAM2_QUEUE", "http://planted"), ("LABEL_STUDIO_API_KEY", "planted key"),
        ("LABEL_STUDIO_URL", "http://planted:planted@host"), ("SAM2_BASIC_AUTH_PASSWORD", "planted"),
    ],
)  # fmt: skip
def test_a_secret_that_breaks_its_rule_is_not_repeated(monkeypatch, capsys, variable, value):
    monkeypatch.setenv(variable, value)
    assert main(["doctor", "--no-media"]) != 0
    assert "planted" not in "".join(capsys.readouterr())
