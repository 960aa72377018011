"""What the page reads from its address, as Label Studio and people write it."""

from __future__ import annotations

import pytest

from tests.backend.panel.node import needs_node, run

pytestmark = needs_node

SCRIPT = """
    const { asked, keepInAddress, takeKey } = await load("address.js");
    globalThis.location = new URL(given);
    globalThis.history = {
        replaceState: (state, title, url) => { globalThis.location = new URL(url, location.href); },
    };
    const before = asked();
    const key = takeKey();
    keepInAddress({ session: "s1" });
    return { before, key, again: takeKey(), after: asked(), address: location.href };
"""


@pytest.mark.parametrize(
    ("address", "name", "value"),
    [
        ("?video=/data/upload/1/a.mp4#key=1.2.x", "video", ["/data/upload/1/a.mp4"]),
        # Not escaped, as Label Studio fills it in.
        ("?video=http://h/a?x=1&session=9#key=1.2.x", "video", ["http://h/a?x=1&session=9"]),
        ("?project=3&video=/d/a%20b.mp4#key=1.2.x", "video", ["/d/a b.mp4", "/d/a%20b.mp4"]),
        ("?video=/d/100%.mp4#key=1.2.x", "video", ["/d/100%.mp4"]),
        ("?file=%2Fvideos%2Fa%20b.mp4&key=1.2.x", "file", "/videos/a b.mp4"),
        ("?task=17&key=1.2.x#key=other", "task", "17"),
    ],
)
def test_what_is_asked_for_and_the_key_stay(address, name, value, tmp_path):
    found = run(SCRIPT, f"http://backend/under/panel{address}", tmp_path)
    assert found["before"][name] == found["after"][name] == value
    assert found["before"]["session"] is None and found["after"]["session"] == "s1"
    assert found["key"] == found["again"] == "1.2.x"
    query, _, fragment = found["address"].partition("#")
    assert "1.2.x" not in query and fragment == "key=1.2.x"
