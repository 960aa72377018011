"""What operators are given names only what there is: dashboard, alerts, manifests, docs."""

import json
import logging
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backend import log_context
from backend.logs import JsonFormatter, RedactingFormatter
from backend.settings import variable_names

ROOT = Path(__file__).parents[2]
_METRIC = re.compile(r"\b(?:sam2|process)_[a-z0-9_]+\b")
_NOT_OURS = {"up"}


@pytest.fixture
def metric_names(make_quick_client):
    """All that `/metrics` names, as queries name them."""
    found = set()
    text = make_quick_client().get("/metrics").text
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
        if not family.name.endswith("_created"):  # when each counter began
            found |= {family.name + end for end in suffixes.get(family.type, ("",))}
    return found


def expressions():
    """(where, query) of the dashboard and of the alerts."""
    dashboard = json.loads((ROOT / "ops/grafana-dashboard.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for group in yaml.safe_load((ROOT / "ops/alerts.yaml").read_text("utf-8"))["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"] and rule["annotations"]["description"]
            yield rule["alert"], rule["expr"]


def test_dashboard_and_alerts_ask_for_metrics_that_there_are(metric_names):
    asked = {name: where for where, query in expressions() for name in _METRIC.findall(query)}
    assert len(asked) > 20
    assert {name: where for name, where in asked.items() if name not in metric_names} == {}


def test_the_docs_have_every_metric_and_no_other(metric_names):
    text = (ROOT / "docs/operations.md").read_text("utf-8")
    documented = set(re.findall(r"`(sam2_[a-z0-9_]+)`", text))
    ours = {re.sub(r"_(bucket|sum|count)$", "", n) for n in metric_names if n.startswith("sam2_")}
    assert documented == ours


@pytest.mark.parametrize("path", sorted((ROOT / "ops").rglob("*.yaml")), ids=lambda p: p.name)
def test_manifests_are_yaml_with_known_settings(path):
    documents = [d for d in yaml.safe_load_all(path.read_text("utf-8")) if d]
    assert documents
    named = set(re.findall(r"\bSAM2_[A-Z0-9_]+\b", path.read_text("utf-8")))
    assert named <= {*variable_names(), "SAM2_CACHE", "SAM2_SETTINGS"}


def _line(formatter, *, exc_info=None):
    record = logging.LogRecord(
        "backend.x", logging.WARNING, "file", 1, "token %s of %s", ("s3cret", 'a "b"'), exc_info
    )
    return formatter.format(record)


def test_a_json_line_has_what_is_known_and_no_secret():
    with log_context.working_for(request_id="r-1", job="j", task=7, project=None):
        line = json.loads(_line(JsonFormatter(["s3cret"])))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING", "logger": "backend.x", "message": 'token *** of a "b"',
        "request_id": "r-1", "job": "j", "task": 7,
    }
    assert "request_id" not in json.loads(_line(JsonFormatter([])))


def test_a_text_line_ends_with_the_request():
    with log_context.working_for(request_id="r-1"):
        assert _line(RedactingFormatter([])).endswith('of a "b" [r-1]')


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [
        ("label-studio:0001", True),
        ("0a1b2c3d", True),
        ("abc", False),  # too short to tell one from another
        ("x" * 65, False),
        ("a b c d", False),
        ('<script>"', False),
        ("töne1234", False),
    ],
)
def test_a_request_id_is_taken_if_it_is_sane(make_quick_client, given, is_taken):
    client = make_quick_client()
    header = {"X-Request-ID": given.encode("latin-1", "replace").decode("latin-1")}
    answer = client.get("/api/jobs/none", headers=header)
    assert answer.status_code == 404
    assert answer.json["request_id"] == answer.headers["X-Request-ID"]
    assert (answer.headers["X-Request-ID"] == given) is is_taken
    assert log_context.request_id() is None


QUEUE = ROOT / "ops/kubernetes-queue"


def test_the_queue_s_manifests_fit_together():
    kustomization = yaml.safe_load((QUEUE / "kustomization.yaml").read_text("utf-8"))
    documents = [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((QUEUE / name).read_text("utf-8"))
    ]
    assert {path.name for path in QUEUE.iterdir()} == {
        *kustomization["resources"], "kustomization.yaml"
    }
    pods = {
        d["metadata"]["name"]: d["spec"]["template"] for d in documents
        if d["kind"] in ("Deployment", "StatefulSet")
    }
    assert pods.keys() == {"redis", "sam2-web", "sam2-worker", "sam2-sessions"}
    labels = [pod["metadata"]["labels"] for pod in pods.values()]
    for document in documents:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in [
                {"app": label["app"]} for label in labels
            ]
        if document["kind"] == "NetworkPolicy":
            allowed = document["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"]
            reached = [n for n, pod in pods.items()
                       if allowed.items() <= pod["metadata"]["labels"].items()]
            assert reached == ["sam2-web", "sam2-worker"]
    maps = {m["name"]: m["literals"] for m in kustomization["configMapGenerator"]}
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        used = [source["configMapRef"]["name"] for source in container.get("envFrom", ())
                if "configMapRef" in source]
        assert set(used) <= set(maps)
        # Those that run without a queue know none.
        assert ("sam2-queue" in used) == (name in ("sam2-web", "sam2-worker"))
        ports = {port["name"] for port in container["ports"]}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = container.get(kind, {}).get("httpGet", {"port": next(iter(ports))})
            assert probe["port"] in ports


def routes_of_the_ingress():
    (rule,) = yaml.safe_load((QUEUE / "ingress.yaml").read_text("utf-8"))["spec"]["rules"]
    return {
        path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]
    }


def test_proxies_send_to_the_sessions_what_is_not_served_with_a_queue(make_quick_client):
    routes = routes_of_the_ingress()
    (pattern,) = re.findall(
        r"location ~ (\S+) \{\s+proxy_pass http://sessions;",
        (ROOT / "ops/nginx.conf").read_text("utf-8"),
    )
    app = make_quick_client().application
    sent = 0
    for rule in app.url_map.iter_rules():
        is_of_sessions = rule.endpoint.split(".")[0] in ("sessions", "panel_api", "panel_page")
        longest = max(
            (path for path in routes if (rule.rule + "/").startswith(path.rstrip("/") + "/")),
            key=len,
        )
        assert (routes[longest] == "sam2-sessions") == is_of_sessions, rule
        assert bool(re.search(pattern, rule.rule)) == is_of_sessions, rule
        sent += is_of_sessions
    assert sent > 5


def _written(formatter, message, *, exc_info=None):
    return formatter.format(logging.LogRecord("x", logging.INFO, "f", 1, "%s", (message,), exc_info))


@pytest.mark.parametrize("character", "\n\r\x1b\x00\x7f\x9b\u2028\x0b")
def test_a_message_is_one_line_without_control_characters(character):
    message = f"GET /a{character}2026-01-01 INFO all is well"
    text = _written(RedactingFormatter([]), message)
    assert character not in text and f"\\x{ord(character):02x}2026" in text
    line = _written(JsonFormatter([]), message)
    assert character not in line and json.loads(line)["message"] == message


def test_a_traceback_keeps_its_lines_and_no_other_control_characters():
    try:
        raise ValueError("a\x1b[2Jb")
    except ValueError as error:
        kind = type(error), error, error.__traceback__
    text = _written(RedactingFormatter([]), "failed", exc_info=kind)
    assert "\x1b" not in text and len(text.splitlines()) > 2


@pytest.mark.parametrize("secret", ['quo"ted-secret', "back\\slashed", "ümläut-secret", "tab\tbed"])
@pytest.mark.parametrize("kind", [RedactingFormatter, JsonFormatter])
def test_a_secret_is_masked_however_it_would_be_written(kind, secret):
    text = _written(kind([secret]), f"key {secret} is refused")
    assert "***" in text and secret not in text and json.dumps(secret)[1:-1] not in text
