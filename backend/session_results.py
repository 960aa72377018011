"""A session's result: regions for Label Studio, and tracks.json."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Collection
from urllib.parse import urlsplit

from backend.errors import BadRequest, MediaTooLarge, ServiceError, UnusableTask
from backend.media import MediaStore
from backend.prompts import STAMP
from backend.propagation import output_control
from backend.sessions import Session
from backend.settings import Settings
from converters.label_studio.config import ImageTag, LabelConfig, resolve_value
from converters.label_studio.regions import track_to_frame_regions, track_to_video_region
from converters.label_studio.video_clock import noted_clock
from converters.label_studio.video_vector import track_to_video_vector_region
from converters.tracks_json import save_tracks
from converters.types import AnnotatedVideo, Track

Json = dict[str, Any]


@dataclass(frozen=True)
class SessionRegions:
    """What can be saved in Label Studio, and what cannot."""

    regions: tuple[Json, ...]
    left_out: tuple[Json, ...]
    """`{"object", "reason"}` each."""


def regions_of(
    session: Session,
    *,
    settings: Settings,
    media: MediaStore,
    frame_indices: Collection[int] | None = None,
) -> SessionRegions:
    """The objects as regions of the controls that the label config has.

    On a `<Video>` one region an object, with its masks embedded; on frames shown as
    images (also beside a video of as many frames) one an object and frame.

    Args:
        frame_indices: limits the regions on images.

    Raises UnusableTask without a label config, MediaTooLarge for more regions on
    images than a prediction may have, and ValueError as the converters do.
    """
    config, tag_name = session.origin.config, session.origin.tag_name
    if config is None or tag_name is None:
        raise UnusableTask("the session was opened without a label config: take its tracks.json")
    regions: list[Json] = []
    left_out: list[Json] = []
    images = None if session.origin.is_video else tag_name
    if session.origin.is_video:
        for track in session.tracks():
            try:
                region = _video_region(track, session, config, tag_name, settings)
            except ValueError as error:
                left_out.append({"object": track.object_id, "reason": str(error)})
                continue
            regions += [] if region is None else [region]
        images = _frames_tag(session, config, media, left_out)
    if images is not None:
        for track in session.tracks():
            try:
                regions += _frame_regions(track, session, config, images, frame_indices)
            except ValueError as error:
                left_out.append({"object": track.object_id, "reason": str(error)})
    limit = settings.max_prediction_regions
    if len(regions) > limit:
        raise MediaTooLarge(
            f"the session has {len(regions)} regions, one answer may have {limit}: ask for a "
            "part of the frames"
        )
    return SessionRegions(tuple(regions), tuple(left_out))


def _video_region(
    track: Track, session: Session, config: LabelConfig, tag_name: str, settings: Settings
) -> Json | None:
    """None for an object that the editor can show nowhere."""
    rectangles = [c for c in config.video_rectangles if tag_name in c.to_names]
    vectors = [c for c in config.video_vectors if tag_name in c.to_names]
    info, framerate = session.info, session.origin.framerate
    for control in rectangles:
        if _takes(control, track):
            region = track_to_video_region(
                track, control=control, info=info, framerate=framerate,
                keyframes=settings.keyframes, min_iou=settings.keyframe_min_iou,
            )
            return None if region is None else {**region, "meta": _stamp(session, track)}
    for control in vectors:
        if _takes(control, track):
            region = track_to_video_vector_region(
                track, control=control, info=info, framerate=framerate
            )
            return None if region is None else {**region, "meta": _stamp(session, track)}
    raise ValueError(
        f"no control on <Video name={tag_name!r}> takes a track with the labels "
        f"{list(track.labels)}"
    )


def _takes(control: Any, track: Track) -> bool:
    return control.has_dynamic_labels or set(track.labels) <= set(control.labels)


def _stamp(session: Session, track: Track) -> Json:
    """Says where the track comes from (`prompts.STAMP`): it is not tracked anew until a
    person draws on it."""
    item = session.objects.get(str(track.object_id))
    frames = [] if item is None else list(item.prompts)
    stamp: Json = {"session": session.id, "revision": session.state_revision, "frames": frames}
    return {STAMP: stamp | noted_clock(session.info)}


def _frame_regions(
    track: Track,
    session: Session,
    config: LabelConfig,
    tag_name: str,
    frame_indices: Collection[int] | None,
) -> list[Json]:
    return track_to_frame_regions(
        track,
        control=output_control(config, tag_name, track.labels),
        info=session.info,
        frame_indices=frame_indices,
        to_name=tag_name,
    )


def _frames_tag(
    session: Session, config: LabelConfig, media: MediaStore, left_out: list[Json]
) -> str | None:
    """The `<Image>` that shows the video's frames; None when there is none."""
    for tag in config.images:
        if tag.value_list is None:
            continue
        reason = _why_not_the_frames(tag, session, media)
        if reason is None:
            return tag.name
        left_out.append({"object": None, "reason": f"<Image name={tag.name!r}>: {reason}"})
    return None


def _why_not_the_frames(tag: ImageTag, session: Session, media: MediaStore) -> str | None:
    info = session.info
    try:
        references = resolve_value(tag.value_list or "", session.origin.data)
        if not isinstance(references, list) or len(references) != info.frame_count:
            return f"its list must have {info.frame_count} images, one a frame of the video"
        with media.in_use() as kept:
            (file,) = kept.frame_files(
                references[:1],
                task_id=session.origin.task_id,
                project_id=session.origin.project_id,
            )
            with kept.opened([file]) as source:
                size = source.info.width, source.info.height
    except (ServiceError, ValueError, OSError) as error:
        return str(error)
    if size != (info.width, info.height):
        return f"its images have {size} pixels, the video has {(info.width, info.height)}"
    return None


def tracks_json(session: Session) -> bytes:
    """The objects as `converters.tracks_json` writes them. Raises ValueError."""
    video = AnnotatedVideo(session_name(session), session.info, session.tracks())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tracks.json")
        save_tracks(path, [video])
        return path.read_bytes()


def session_name(session: Session) -> str:
    """Of its video's file, else of itself."""
    reference = session.origin.reference
    name = PurePosixPath(urlsplit(reference).path).stem if isinstance(reference, str) else ""
    return name or f"session-{session.id[:8]}"


def frames_asked(text: str | None, frame_count: int) -> range | None:
    """`first-last` of a query; None for all. Raises BadRequest."""
    if text is None:
        return None
    first, dash, last = text.partition("-")
    is_range = bool(dash) and all(part.isascii() and part.isdigit() for part in (first, last))
    if not is_range or len(text) > 20 or not int(first) <= int(last) < frame_count:
        raise BadRequest(
            f"frames {text!r:.80} must be FIRST-LAST with 0 <= FIRST <= LAST < {frame_count}"
        )
    return range(int(first), int(last) + 1)
