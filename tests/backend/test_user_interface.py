"""The page's files; how it looks and works is tried in a real browser elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/ui", "text/html"), ("/ui/style.css", "text/css"),
        ("/ui/jobs.js", "text/javascript"), ("/ui/plot.js", "text/javascript"),
    ],
)
def test_the_page_and_its_files_are_there(client, path, kind):
    answer = client.get(path)
    assert answer.status_code == 200 and answer.mimetype == kind
    assert len(answer.data) > 500


def test_the_page_runs_under_a_strict_policy(client):
    policy = client.get("/ui").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
    assert "unsafe" not in policy and "http" not in policy


def test_the_page_has_nothing_inline_and_asks_no_other_host(client):
    text = client.get("/ui").text
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", text)
    every = text + "".join(client.get(f"/ui/{n}").text for n in ("style.css", "jobs.js", "plot.js"))
    assert set(re.findall(r"https?://[^\"'\s]+", every)) <= {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in every


def test_only_the_pages_own_files_are_given(client):
    for name in ("nothing.js", "..%2Fapp.py", "../app.py", "%2e%2e/app.py", "ui/"):
        assert client.get(f"/ui/{name}").status_code == 404, name


def test_a_slash_at_the_end_leads_to_the_page(client):
    answer = client.get("/ui/")
    assert answer.status_code == 308 and answer.headers["Location"].endswith("../ui")


def test_every_file_of_the_page_is_served():
    from backend.user_interface import _CONTENT_TYPES

    there = {item.name for item in files("backend").joinpath("ui").iterdir()}
    assert there == set(_CONTENT_TYPES)
