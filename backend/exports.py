"""Tracks of one video -> the files that people take away."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from backend.preview import contact_sheet, sheet_frames
from converters import tracks_json
from converters.coco import save_coco
from converters.types import AnnotatedVideo, Prompt, Track
from converters.youtube_vis import save_youtube_vis
from sam2_model.video import FrameSource

_SHEET_PICTURES = 12


def save_tracks(
    folder: Path,
    name: str,
    source: FrameSource,
    tracks: Sequence[Track],
    *,
    prompts: Sequence[Prompt] = (),
    file_names: Sequence[str] = (),
) -> list[Path]:
    """Write COCO, YouTube-VIS, a contact sheet and tracks.json into the folder; their paths.

    tracks.json alone keeps the scores, which the plot of `preview` shows.
    `name` is the video's; `file_names` one image name a frame, if known.
    Raises ValueError as the converters do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    video = AnnotatedVideo(name, source.info, tuple(tracks), tuple(file_names))
    coco, youtube_vis, sheet, whole = (
        folder / f"{name}.{suffix}"
        for suffix in ("coco.json", "youtube_vis.json", "sheet.png", "tracks.json")
    )
    save_coco(coco, [video])
    save_youtube_vis(youtube_vis, [video])
    tracks_json.save_tracks(whole, [video])
    tracked = [frame for track in tracks for frame in (*track.scores, *track.masks)]
    prompted = {prompt.frame_index for prompt in prompts}
    frames = [*tracked, *prompted] or [0]
    indices = sheet_frames(min(frames), max(frames) + 1, _SHEET_PICTURES, prompted)
    contact_sheet(source, tracks, indices, prompts=prompts).save(sheet)
    return [coco, youtube_vis, sheet, whole]
