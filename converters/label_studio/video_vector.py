"""Tracks <-> VideoVector(Labels) regions of Label Studio Enterprise.

A keyframe is one closed outline, so it stands for a mask by itself; the exact
mask is embedded beside it where tracking made it:

    "mask":  {"frame", "shape", "size": [H, W], "counts"}
             the mask on this very frame; `shape` is a digest of the vertices
             that it was written for
    "masks": {"<frame index>": {"size", "counts", "score"}}
             masks of the frames after this one that the editor never shows
    "score": probability in (0, 1) that the object is on this frame
    "prompt": {"frame", "shape"}
             a person's outline that tracking has answered; it stays a prompt

Once a person moves a vertex, the digest no longer fits and the drawn outline
counts. How that editor closes a stretch is not published: a keyframe without
vertices one frame after the last, as its own tracking writes, hides the
object whether or not a keyframe that disables is shown itself.
"""

from __future__ import annotations

import hashlib
from typing import Any, Mapping, Sequence

import numpy as np

from converters.geometry import indices_of_ls_frames, ls_frames_count
from converters.label_studio.config import LabelConfig, VideoVectorControl
from converters.label_studio.keyframes import is_number, read_ls_frame, sequence_of
from converters.label_studio.paths import InputError, at, named
from converters.label_studio.polygons import outline_mask, read_vertices, vertices_of
from converters.label_studio.regions import (
    check_track,
    logit_of,
    outline_percent,
    probability_of,
    read_stored_mask,
    riding_masks,
    stored_mask,
)
from converters.label_studio.results import (
    ObjectRequest,
    check_original_size,
    labels_beside_regions,
    labels_of,
    last_ls_frame,
    region_id_of,
    type_of,
)
from converters.masks import encode_mask, mask_area
from converters.types import MaskRLE, Prompt, Track, VideoInfo

VIDEO_VECTOR_TYPES = ("videovector", "videovectorlabels")
"""Types of results that are vectors on a video."""

_DIGEST_CHARACTERS = 16
_DIGEST_DECIMALS = 4


def track_to_video_vector_region(
    track: Track,
    *,
    control: VideoVectorControl,
    info: VideoInfo,
    framerate: float,
    source_region: Mapping[str, Any] | None = None,
    polygon_tolerance_pixels: float = 1.0,
) -> dict[str, Any] | None:
    """The track as one VideoVector(Labels) result; None when the editor can show nothing.

    With `source_region` the result has its id, meta and control names, and keeps a
    person's outlines as drawn, stamped so that they stay prompts; those on frames
    without a mask, such as ones not tracked yet, show on their own frame alone.

    One keyframe for each picture that shows the object, since outlines with
    other vertices cannot be interpolated. `framerate` is the label config's;
    the outlines are those of `regions.track_to_frame_regions`.

    Raises ValueError for a label that the control lacks, a frame outside the
    video, or a mask of another size.
    """
    control.check_labels(track.labels)
    check_track(track, info)
    count = ls_frames_count(info.duration_seconds, framerate)
    indices = indices_of_ls_frames(np.arange(1, count + 1), framerate, info.frame_times_seconds)
    visible = {index for index, mask in track.masks.items() if mask_area(mask)}
    source = source_region or {}
    drawn = drawn_keyframes(source, info, framerate) if source else {}
    waiting = set(drawn) - visible
    sequence: list[dict[str, Any]] = []
    carried: dict[int, dict[str, Any]] = {}
    was_visible = False
    for ls_frame, index in enumerate(indices.tolist(), start=1):
        if index in visible and index not in carried:
            if index in drawn:
                vertices = drawn[index][0]["vertices"]
            else:
                outline = outline_percent(track.masks[index], polygon_tolerance_pixels)
                vertices = vertices_of(outline)
            carried[index] = _keyframe(ls_frame, framerate, vertices, True)
            stamp = {"frame": ls_frame, "shape": _digest(vertices)}
            carried[index]["mask"] = {**stamp, **stored_mask(track.masks[index])}
            if index in drawn:
                carried[index]["prompt"] = stamp
            if index in track.scores:
                carried[index]["score"] = probability_of(track.scores[index])
            sequence.append(carried[index])
        elif index in waiting:
            waiting.remove(index)
            vertices = drawn[index][0]["vertices"]
            sequence.append(_keyframe(ls_frame, framerate, vertices, False))
        elif index not in visible and was_visible:
            sequence.append(_keyframe(ls_frame, framerate, [], False))
        was_visible = index in visible
    if not sequence:
        return None
    if carried:
        _add_riding_masks(track, sorted(visible - set(carried)), carried)
    scores = [probability_of(track.scores[i]) for i in sorted(visible) if i in track.scores]
    return {
        "id": source.get("id", str(track.object_id)),
        "from_name": source.get("from_name", control.name),
        "to_name": source.get("to_name", control.to_name),
        "type": control.result_type,
        "origin": "prediction",
        **({"meta": source["meta"]} if "meta" in source else {}),
        **({"score": round(sum(scores) / len(scores), 6)} if scores else {}),
        "value": {
            "framesCount": count,
            "duration": info.duration_seconds,
            "sequence": sequence,
            **({"labels": list(track.labels)} if track.labels else {}),
        },
    }


def video_vector_requests(
    results: Sequence[Mapping[str, Any]],
    *,
    config: LabelConfig,
    info: VideoInfo,
    framerate: float,
) -> tuple[ObjectRequest, ...]:
    """One request a VideoVector(Labels) region, in the results' order.

    Its prompts are the outlines that a person drew or moved, filled. Other types of
    results are passed over. Raises ValueError naming the region and the rule for a
    malformed result, an unknown control or label, or two regions of one id.
    """
    requests: dict[str, ObjectRequest] = {}
    separate_labels = labels_beside_regions(results)
    size_hw = (info.height, info.width)
    for region in results:
        if type_of(region) not in VIDEO_VECTOR_TYPES:
            continue
        with named(f"region {region.get('id')!r}"):
            region_id = region_id_of(region)
            if region_id in requests:
                raise ValueError("there is more than one vector of this id")
            labels = labels_of(region, ("labels",)) or separate_labels.get(region_id, ())
            config.video_vector(region.get("from_name")).check_labels(labels)
            check_original_size(region, size_hw)
            masks = {
                index: outline_mask(outline, size_hw)
                for index, (_, outline) in drawn_keyframes(region, info, framerate).items()
            }
            prompts = tuple(
                Prompt(region_id, index, mask=mask) for index, mask in masks.items() if mask.any()
            )
        requests[region_id] = ObjectRequest(region_id, labels, prompts, region)
    return tuple(requests.values())


def drawn_keyframes(
    region: Mapping[str, Any], info: VideoInfo, framerate: float
) -> dict[int, tuple[Mapping[str, Any], np.ndarray]]:
    """frame index -> (keyframe, outline in pixels) of those that a person drew or moved.

    Sorted by frame. Raises InputError for a malformed sequence.
    """
    last = last_ls_frame(region, info, framerate)
    drawn: dict[int, tuple[Mapping[str, Any], np.ndarray]] = {}
    for ls_frame, (item, outline, _) in sorted(
        _read_shapes(region, (info.height, info.width)).items()
    ):
        if outline is None or ls_frame > last or _is_ours(item):
            continue
        (index,) = indices_of_ls_frames([ls_frame], framerate, info.frame_times_seconds)
        drawn[int(index)] = (item, outline)
    return drawn


def drawn_outlines(region: Mapping[str, Any]) -> list[list[Any]]:
    """`[LS frame, [vertex's place, ...]]` of all that a person drew or moved, as JSON.

    Sorted by frame; needs no video. Raises InputError for a malformed sequence.
    """
    # The size is of no account: the points are not asked for in pixels.
    shapes = _read_shapes(region, (1, 1))
    return [
        [ls_frame, [_place(vertex) for vertex in item["vertices"]]]
        for ls_frame, (item, outline, _) in sorted(shapes.items())
        if outline is not None and not _is_ours(item)
    ]


def _place(vertex: Mapping[str, Any]) -> list[Any]:
    """x and y in percent, and the control points of a curve as they are."""
    curve = [vertex.get(name) for name in ("isBezier", "controlPoint1", "controlPoint2")]
    return [float(vertex["x"]), float(vertex["y"]), *(curve if curve[0] else ())]


def _is_ours(item: Mapping[str, Any]) -> bool:
    """Tracking wrote it, and no one has touched its outline since."""
    return _is_as_written(item, "mask") and not _is_as_written(item, "prompt")


def _is_as_written(item: Mapping[str, Any], name: str) -> bool:
    """Whether the stamp of that name is of this keyframe and its outline."""
    stamp = item.get(name)
    if not isinstance(stamp, Mapping) or stamp.get("frame") != item["frame"]:
        return False
    return stamp.get("shape") == _digest(item.get("vertices") or [])


def read_video_vector(
    region: Mapping[str, Any], info: VideoInfo, framerate: float
) -> tuple[dict[int, MaskRLE], dict[int, float]]:
    """frame index -> mask, and -> logit, of every frame that shows the vector.

    The embedded mask where its outline is as we wrote it, else the filled
    outline; between two keyframes of equally many points these move in
    straight lines, else the earlier one holds. Raises InputError naming the
    value and the rule for a malformed sequence.
    """
    masks: dict[int, MaskRLE] = {}
    scores: dict[int, float] = {}
    size_hw = (info.height, info.width)
    last = last_ls_frame(region, info, framerate)
    indices = indices_of_ls_frames(
        np.arange(1, max(last, 1) + 1), framerate, info.frame_times_seconds
    )
    shapes = _read_shapes(region, size_hw)
    frames = sorted(shapes)
    for ls_frame, following in zip(frames, [*frames[1:], None]):
        if ls_frame > last:
            break
        item, outline, number = shapes[ls_frame]
        with at(f"value.sequence[{number}]"):
            ours = _own_masks(item, info, int(indices[ls_frame - 1]))
        for index, (mask, score) in ours.items():
            masks[index] = mask
            if score is not None:
                scores[index] = score
        if outline is None:
            continue
        stop = min(following or last + 1, last + 1) if item.get("enabled", True) else ls_frame + 1
        aim = shapes[following][1] if following else None
        held: MaskRLE | None = None
        for frame in range(ls_frame, stop):
            index = int(indices[frame - 1])
            if index in masks:
                continue
            if aim is not None and aim.shape == outline.shape and frame > ls_frame:
                ratio = (frame - ls_frame) / (following - ls_frame)
                masks[index] = encode_mask(outline_mask(outline + (aim - outline) * ratio, size_hw))
            else:
                held = held or encode_mask(outline_mask(outline, size_hw))
                masks[index] = held
    kept = {index: masks[index] for index in sorted(masks) if mask_area(masks[index])}
    return kept, {index: scores[index] for index in kept if index in scores}


def stored_vector_masks(
    region: Mapping[str, Any], info: VideoInfo, framerate: float
) -> tuple[dict[int, MaskRLE], dict[int, float]]:
    """frame index -> mask, and -> logit, of those that tracking left with outlines that
    no one has touched since. Raises as `read_video_vector`."""
    masks: dict[int, MaskRLE] = {}
    scores: dict[int, float] = {}
    last = last_ls_frame(region, info, framerate)
    for ls_frame, (item, _, number) in sorted(
        _read_shapes(region, (info.height, info.width)).items()
    ):
        if ls_frame > last:
            break
        (index,) = indices_of_ls_frames([ls_frame], framerate, info.frame_times_seconds)
        with at(f"value.sequence[{number}]"):
            for found, (mask, score) in _own_masks(item, info, int(index)).items():
                masks[found] = mask
                if score is not None:
                    scores[found] = score
    kept = {index: masks[index] for index in sorted(masks) if mask_area(masks[index])}
    return kept, {index: scores[index] for index in kept if index in scores}


def _keyframe(
    ls_frame: int, framerate: float, vertices: Sequence[Mapping[str, Any]], enabled: bool
) -> dict[str, Any]:
    return {
        "frame": ls_frame,
        "time": ls_frame / framerate,
        "enabled": enabled,
        "closed": True,
        "vertices": list(vertices),
    }


def _add_riding_masks(
    track: Track, frame_indices: Sequence[int], carried: Mapping[int, dict[str, Any]]
) -> None:
    """Frames that the editor never shows ride on the keyframe before, else on the first."""
    with_keyframe = sorted(carried)
    for index in frame_indices:
        before = max(int(np.searchsorted(with_keyframe, index)) - 1, 0)
        entry = stored_mask(track.masks[index])
        if index in track.scores:
            entry["score"] = probability_of(track.scores[index])
        carried[with_keyframe[before]].setdefault("masks", {})[str(index)] = entry


def _read_shapes(
    region: Mapping[str, Any], size_hw: tuple[int, int]
) -> dict[int, tuple[Mapping[str, Any], np.ndarray | None, int]]:
    """LS frame -> (keyframe, its outline in pixels or None, its place); the first of duplicates."""
    shapes: dict[int, tuple[Mapping[str, Any], np.ndarray | None, int]] = {}
    for number, item in enumerate(sequence_of(region)):
        with at(f"value.sequence[{number}]"):
            if not isinstance(item, Mapping):
                raise InputError("", f"{item!r} must be an object")
            ls_frame = read_ls_frame(item)
            has_shape = bool(item.get("vertices"))
            outline = read_vertices(item, size_hw) if has_shape else None
            shapes.setdefault(ls_frame, (item, outline, number))
    return shapes


def _own_masks(
    item: Mapping[str, Any], info: VideoInfo, frame_index: int
) -> dict[int, tuple[MaskRLE, float | None]]:
    """frame index -> (mask, logit) of what we wrote, if no one has touched the outline."""
    if not _is_as_written(item, "mask"):
        return {}
    with at("mask"):
        found = {frame_index: (read_stored_mask(item["mask"], info), logit_of(item.get("score")))}
    for index, entry in riding_masks(item, info):
        with at(f"masks.{index}"):
            found[index] = (read_stored_mask(entry, info), logit_of(entry.get("score")))
    return found


def _digest(vertices: object) -> str | None:
    """A short name of the vertices' places; None when they are malformed."""
    points = []
    for vertex in vertices if isinstance(vertices, list) else [None]:
        if not isinstance(vertex, Mapping):
            return None
        if not (is_number(vertex.get("x")) and is_number(vertex.get("y"))):
            return None
        points.append(f"{vertex['x']:.{_DIGEST_DECIMALS}f},{vertex['y']:.{_DIGEST_DECIMALS}f}")
    text = ";".join(points)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGEST_CHARACTERS]
