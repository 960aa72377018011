"""What of a result is a person's: its name stays while tracking adds to the rest.

Between two requests on one region the editor holds what we answered to the
first. Only a person's part of it asks for anything, so only that part names
a request.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping

from backend.requests import Result, fingerprint
from converters.label_studio.keyframes import BOX_FIELDS, read_sequence, shown_keyframes
from converters.label_studio.results import image_kind_of, is_answer, type_of
from converters.label_studio.video_clock import STAMP
from converters.label_studio.video_vector import VIDEO_VECTOR_TYPES, drawn_outlines

VIDEO_TYPE = "videorectangle"
# In a region's `meta`, under STAMP: which prompts its track was made from, and how, and the
# clock of its `video`. What a session has tracked also names it, its `revision`, and the
# `frames` (indices) on which a person marked the object there: their masks are prompts like
# keyframes.

_OF_SESSION = ("session", "revision", "frames")

_FOLLOWS_THE_TRACK = ("sequence", "framesCount", "duration")


def asked(result: Result) -> Any | None:
    """A person's part of a result, as JSON; None when there is none.

    Labels and names belong to it. A malformed region is taken whole.
    """
    kind = type_of(result)
    if kind == VIDEO_TYPE:
        return _asked_on_video(result, _drawn_boxes)
    if kind in VIDEO_VECTOR_TYPES:
        return _asked_on_video(result, drawn_outlines)
    image_kind = image_kind_of(result)
    if image_kind is not None:
        return None if is_answer(result, image_kind) else dict(result)
    if kind == "labels":
        return [result.get("id"), kind, _rest_of_value(result)]
    return None


def drawn_key(region: Result) -> str:
    """The same as long as a person's keyframes are, whatever label the editor gives them."""
    part = asked(region)
    return fingerprint(part.get("drawn", part) if isinstance(part, dict) else part)


def prompts_key(result: Result) -> str:
    """The same for equal prompts and labels."""
    part = asked(result)
    if isinstance(part, dict):
        part = {key: value for key, value in part.items() if key != "meta"}
    return fingerprint(part)


def stamp_of(result: Result) -> Mapping[str, Any]:
    """What was noted when the region was tracked; empty when it never was."""
    stamp = meta_of(result).get(STAMP)
    return stamp if isinstance(stamp, Mapping) else {}


def session_stamp_of(result: Result) -> dict[str, Any]:
    """The part of the stamp that a session left; empty for what none has tracked."""
    stamp = stamp_of(result)
    if "session" not in stamp:
        return {}
    return {name: stamp[name] for name in _OF_SESSION if name in stamp}


def session_frames(result: Result) -> frozenset[int]:
    """Frames on which a person marked the object in a session; entries that are none
    are passed over."""
    frames = session_stamp_of(result).get("frames")
    items = frames if isinstance(frames, list) else []
    return frozenset(i for i in items if isinstance(i, int) and not isinstance(i, bool))


def meta_of(result: Result) -> Mapping[str, Any]:
    meta = result.get("meta")
    return meta if isinstance(meta, Mapping) else {}


def _asked_on_video(region: Result, read_drawn: Callable[[Result], list[Any]]) -> Any | None:
    try:
        drawn = read_drawn(region)
    except ValueError:
        return dict(region)
    if not drawn:
        return None
    names = {key: region.get(key) for key in ("id", "from_name", "to_name", "type")}
    meta = {key: value for key, value in meta_of(region).items() if key != STAMP}
    tracked = session_stamp_of(region)
    return {
        **names, "drawn": drawn, "value": _rest_of_value(region), "meta": meta,
        **({"session": tracked} if tracked else {}),
    }


def _drawn_boxes(region: Result) -> list[Any]:
    return [
        [keyframe.ls_frame, *(keyframe.fields[name] for name in BOX_FIELDS),
         keyframe.fields.get("rotation") or 0]
        for keyframe in shown_keyframes(read_sequence(region)) if keyframe.is_prompt
    ]


def _rest_of_value(result: Result) -> Any:
    value = result.get("value")
    if not isinstance(value, Mapping):
        return value
    return {key: item for key, item in value.items() if key not in _FOLLOWS_THE_TRACK}
