"""The links to this service in a label config, and the keys in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.link_keys import KeyPurpose, make_key
from backend.settings import Settings

_KEY = r"[\w.-]*"
_LINKS = {
    KeyPurpose.PREVIEW: re.compile(
        rf"(?P<base>https?://[^\s\"'<>]*)(?P<path>/preview\.mp4\?)"
        rf"(?:key=(?P<key>{_KEY})&amp;)?(?P<end>src=)",
        re.ASCII,
    ),
    # After the # nobody but the page itself sees it: no log, no proxy.
    KeyPurpose.PANEL: re.compile(
        rf"(?P<base>https?://[^\s\"'<>]*)(?P<path>/panel\?video=\$\w+)(?:#key=(?P<key>{_KEY}))?(?P<end>)",
        re.ASCII,
    ),
}
_WITH_KEY = {KeyPurpose.PREVIEW: "key={}&amp;", KeyPurpose.PANEL: "#key={}"}


@dataclass(frozen=True)
class ConfigLink:
    """One of them."""

    purpose: KeyPurpose
    base: str
    """The service's address, as people's browsers have it."""
    key: str
    """Empty where there is none."""


def links_in(xml: str) -> list[ConfigLink]:
    """Those of previews, then those of panels."""
    return [
        ConfigLink(purpose, found["base"], found["key"] or "")
        for purpose, pattern in _LINKS.items()
        for found in pattern.finditer(xml)
    ]


def with_new_keys(xml: str, settings: Settings, project_id: int) -> str:
    """The config with a new key of the project in each link.

    Raises OSError when the keys' secret cannot be kept in the data folder.
    """
    for purpose, pattern in _LINKS.items():
        if pattern.search(xml):
            key = _WITH_KEY[purpose].format(make_key(settings, project_id, purpose))
            xml = pattern.sub(lambda link: link["base"] + link["path"] + key + link["end"], xml)
    return xml
