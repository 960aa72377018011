"""What people and other programs write into configs, results and URLs, made odd.

Nothing of it is a server error, takes long, or leads a request to where it must not go.
"""

from __future__ import annotations

import copy
import ipaddress
import socket
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.checked_connection import is_public
from backend.deadlines import Deadline
from backend.errors import ServiceError
from backend.http_client import Access, download, without_query
from converters.label_studio.config import parse_label_config
from tests.backend.calls import VIDEO_CONFIG, box, wait_for_jobs
from tests.backend.conftest import payload

FUZZ = settings(
    max_examples=settings.default.max_examples if settings.get_current_profile_name() == "fuzz" else 60,
    derandomize=settings.get_current_profile_name() != "fuzz",
    deadline=None, database=None, suppress_health_check=list(HealthCheck),
)  # fmt: skip
ODD = st.one_of(
    st.none(), st.booleans(), st.text(max_size=5),
    st.sampled_from(
        [0, -1, 1, 2**31, 2**63, -(2**70), 0.5, 1e308, -1e-308, "", "a" * 2000, "\u0000", "\ud800",
         "../..", "$video", "<a>", "%s", "1e999", [], {}, [[]], [0] * 300, {"a": {"a": {}}}]
    ),
)  # fmt: skip


@pytest.fixture
def odd_client(make_client):
    def finds_nothing(*_, **__):
        yield from ()

    return make_client(track=finds_nothing, answer_seconds=20.0)


def places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def changed(document, changes):
    """The document with values in some places replaced, as far as these are still there."""
    document = copy.deepcopy(document)
    for place, value in changes:
        inner = document
        try:
            for step in place[:-1]:
                inner = inner[step]
            inner[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue
    return document


def odd_versions(document):
    steps = [place for place in places(document) if place]
    change = st.tuples(st.sampled_from(steps), ODD)
    return st.lists(change, min_size=1, max_size=3).map(lambda c: changed(document, c))


def is_no_failure(answer):
    assert answer.status_code < 500 or answer.status_code in (502, 503), answer.json


# --- requests and results -----------------------------------------------------


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/predict", payload("predict_interactive_videorectangle")),
        ("/predict", payload("predict_interactive_image_valuelist_keypoints_pos_neg_two_frames")),
        ("/predict", payload("predict_batch")),
        ("/webhook", payload("webhook_annotation_created")),
        ("/setup", payload("setup")),
        (
            "/api/jobs",
            {"task": {"id": 1, "project": 1, "data": {"video": "/data/local-files/?d=n25.mp4"}},
             "label_config": VIDEO_CONFIG, "results": [box()], "command": "both 3"},
        ),
        (
            "/api/sessions",
            {"data": {"video": "/data/local-files/?d=n25.mp4"}, "label_config": VIDEO_CONFIG,
             "results": [box()]},
        ),
    ],
)  # fmt: skip
def test_no_odd_values_in_a_request_are_a_server_error(odd_client, path, document):
    is_no_failure(odd_client.post(path, json=document))

    @FUZZ
    @given(odd_versions(document))
    def ask(body):
        answer = odd_client.post(path, json=body)
        is_no_failure(answer)
        if path == "/api/sessions" and answer.status_code == 201:
            odd_client.delete(answer.headers["Location"], json={})

    ask()
    for job in wait_for_jobs(odd_client):
        assert "Error" not in (job.error or "") and "Traceback" not in (job.error or ""), job


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("path", ["/predict", "/setup", "/api/jobs", "/api/sessions"])
def test_numbers_that_json_does_not_have_are_refused(client, path, number):
    answer = client.post(path, data=f'{{"x": {number}}}', content_type="application/json")
    assert answer.status_code == 400 and number in answer.json["detail"]


# --- label configs ------------------------------------------------------------

TAGS = ["View", "Video", "Image", "VideoRectangle", "VideoVectorLabels", "Labels", "Label",
        "BrushLabels", "RectangleLabels", "KeyPointLabels", "BitmaskLabels", "TextArea", "Choices",
        "Style", "video", "x:y", "svg"]  # fmt: skip
NAMES = ["name", "toName", "value", "valueList", "framerate", "smart", "model_min_score",
         "background", "maxWidth", "xmlns:x"]  # fmt: skip
VALUES = ["", "video", "img", "$video", "$frames", "$a.b[0].c", "$$", "25", "1e999", "-1", "nan",
          "0x10", "a,b", ",", "true", "é", "x" * 5000, "&amp;", "\u2028"]  # fmt: skip


def element(children):
    def write(drawn):
        tag, attributes, inner = drawn
        written = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
        return f"<{tag}{written}>{''.join(inner)}</{tag}>"

    attributes = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES), max_size=4)
    return st.tuples(
        st.sampled_from(TAGS), attributes, st.lists(children, max_size=4)
    ).map(write)


CONFIGS = st.recursive(st.sampled_from(["", "text", "<!-- c -->", "<Label/>"]), element, max_leaves=12)


@FUZZ
@given(CONFIGS, st.integers(0, 400), st.sampled_from("<>&\"'$/ \x00\ud800é"))
def test_any_config_is_read_or_refused(xml, at, character):
    for text in (xml, f"<View>{xml}</View>", xml[:at] + character + xml[at:]):
        try:
            parse_label_config(text)
        except ValueError:  # the UnsupportedConfigError that is one, and those of bad XML
            pass


LAUGHS = (
    '<!DOCTYPE v [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    + "]><View>&a11;</View>"
)
QUADRATIC = f'<!DOCTYPE v [<!ENTITY a "{"a" * 100_000}">]><View>{"&a;" * 10_000}</View>'
EXTERNAL = [
    '<!DOCTYPE v [<!ENTITY x SYSTEM "file:///etc/passwd">]><View>&x;</View>',
    '<!DOCTYPE v [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd">%x;]><View/>',
    '<?xml version="1.0"?><!DOCTYPE View PUBLIC "-//x" "http://127.0.0.1:9/x.dtd"><View/>',
    '<View xmlns:xi="http://www.w3.org/2001/XInclude"><xi:include href="file:///etc/passwd"/></View>',
]
MEGABYTE = "a" * 2**20


@pytest.mark.parametrize("path", ["/setup", "/predict", "/api/jobs", "/api/sessions"])
@pytest.mark.parametrize(
    "config",
    [
        LAUGHS, QUADRATIC, *EXTERNAL, "<View>" * 100_000, "<a>" * 5000 + "</a>" * 5000,
        f'<View><Video name="{MEGABYTE}" value="$video"/></View>',
        VIDEO_CONFIG.replace("$video", "$" + MEGABYTE), VIDEO_CONFIG.replace("Car", MEGABYTE),
        VIDEO_CONFIG.replace('"25"', f'"{"9" * 10_000}"'),
        "<View>" + "<Label value='a'/>" * 200_000 + "</View>",
        "<View " + " ".join(f'a{n}="{n}"' for n in range(50_000)) + "/>",
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_config_that_is_made_to_harm_is_refused_and_not_repeated(odd_client, path, config):
    task = {"id": 1, "project": 1, "data": {"video": "/data/local-files/?d=n25.mp4"}}
    body = {
        "/setup": {"schema": config},
        "/predict": {"tasks": [task], "label_config": config, "params": {"context": {"result": [box()]}}},
        "/api/jobs": {"task": task, "label_config": config, "results": [box()]},
        "/api/sessions": {"data": task["data"], "label_config": config},
    }[path]
    answer = odd_client.post(path, json=body)
    assert answer.status_code < 500
    told = answer.get_data(as_text=True)
    assert len(told) < 20_000 and "root:" not in told
    if path == "/api/sessions" and answer.status_code == 201:
        odd_client.delete(answer.headers["Location"], json={})


# --- URLs ---------------------------------------------------------------------

SCHEMES = ["http://", "https://", "HTTP://", "http:/", "http:", "//", "http:\\\\", "ftp://", "file://",
           "gopher://", "data:", "http:///", "http://http://"]  # fmt: skip
USERS = ["", "", "", "u:p@", "u@", ":@", "%40@", "a@b@", "8.8.8.8#@", "8.8.8.8?@", "8.8.8.8\\@"]
HOSTS = ["127.0.0.1", "localhost", "2130706433", "017700000001", "0x7f000001", "0x7f.0.0.1", "127.1",
         "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[64:ff9b::7f00:1]",
         "[2002:7f00:1::]", "[2001:0:7f00:1::80ff:fffe]", "[fe80::1%25lo]", "[fd00:ec2::254]",
         "169.254.169.254", "2852039166", "0251.0376.0251.0376", "10.0.0.1", "192.168.0.1",
         "127。0。0。1", "１２７.0.0.1", "①②⑦.⓪.⓪.①", "127.0.0.1.", "loca%6chost", "%31%32%37.0.0.1",
         "mixed.test", "inner.test", "8.8.8.8", "[2606:4700::1111]", "", "a..b", "x" * 300,
         "127.0.0.1\r\nHost: x", "127.0.0.1\x00.example", "8.8.8.8\t", "[::1", "1" * 40]  # fmt: skip
PORTS = ["", ":80", ":22", ":0", ":99999", ":-1", ":8o", ":"]
PATHS = ["", "/", "/a.mp4", "/%0d%0aX: y", "/\r\nX: y", "/../..", "/a b", "?q=\n", "#f", "\\a", "/é\ud800"]
URLS = st.tuples(*(st.sampled_from(part) for part in (SCHEMES, USERS, HOSTS, PORTS, PATHS))).map("".join)


@pytest.fixture
def reached(monkeypatch):
    """Where connections went; none is made. Names give what `mixed.test` and `inner.test` do."""
    resolve, addresses = socket.getaddrinfo, []

    def names(host, port, *arguments, **options):
        known = {"mixed.test": ["8.8.8.8", "10.0.0.1"], "inner.test": ["127.0.0.1"]}.get(host)
        if known is not None:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in known]
        if isinstance(host, bytes) or not host.isascii():
            host = host if isinstance(host, bytes) else host.encode("idna")
            host = host.decode()
        if host == "localhost" or not host.strip("0123456789abcdefxABCDEFX.:%lo"):
            return resolve(host, port, *arguments, **options)
        raise socket.gaierror("no such name")

    def connect(address, *_, **__):
        addresses.append(address[0])
        raise ConnectionRefusedError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", names)
    monkeypatch.setattr(socket, "create_connection", connect)
    return addresses


def test_no_url_leads_to_an_address_that_is_not_public(reached, tmp_path):
    @FUZZ
    @given(URLS)
    def fetch(url):
        with (tmp_path / "file").open("w+b") as file, pytest.raises(ServiceError) as caught:
            download(url, file, access=Access(), max_bytes=1000, deadline=Deadline(5))
        assert "\r" not in caught.value.detail and "\n" not in caught.value.detail
        assert "u:p" not in without_query(url)

    fetch()
    assert all(is_public(address) for address in reached)
    assert not any(ipaddress.ip_address(address).is_private for address in reached)


def test_no_reference_of_a_task_is_a_server_error(odd_client, reached):
    @FUZZ
    @given(URLS)
    def ask(url):
        call = {
            "tasks": [{"id": 1, "project": 1, "data": {"video": url}}],
            "label_config": VIDEO_CONFIG, "params": {"context": {"result": [box()]}},
        }
        is_no_failure(odd_client.post("/predict", json=call))
        is_no_failure(odd_client.post("/api/sessions", json={"video": url}))

    ask()
    # Label Studio itself, where relative references lie, is on the loopback address here.
    home = {"127.0.0.1"}
    assert all(is_public(address) for address in set(reached) - home)
