"""The page's files: nothing inline, no other host, nothing made of text that is not escaped."""

from __future__ import annotations

import re
from importlib.resources import files

FOLDER = files("backend").joinpath("panel")


def every_file():
    return {item.name: item.read_text(encoding="utf-8") for item in FOLDER.iterdir()}


def test_nothing_is_inline_and_no_other_host_is_asked():
    page = every_file()["index.html"]
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", page)
    hosts = set(re.findall(r"https?://[^\"'\s\\)>]+", "".join(every_file().values())))
    assert hosts <= {"http://www.w3.org/2000/svg"}


def test_what_others_wrote_is_never_markup():
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\("
    for name, text in every_file().items():
        assert not re.search(markup, text), name


def test_every_module_and_icon_that_is_named_is_there():
    every = every_file()
    for name, text in every.items():
        for other in re.findall(r'from "\./([\w.]+)"', text):
            assert other in every, (name, other)
    page = every["index.html"]
    icons = set(re.findall(r'symbol id="i-([\w-]+)"', page))
    assert set(re.findall(r'data-icon="([\w-]+)"', page)) <= icons
    ids = re.findall(r'\sid="([\w-]+)"', page)
    assert len(ids) == len(set(ids))
    for name, text in every.items():
        for used in re.findall(r'part\("([\w-]+)"\)', text):
            assert used in ids, (name, used)
