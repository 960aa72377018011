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
