"""`sam2-label-studio export`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from backend.commands.convert import (
    FORMATS,
    add_content_options,
    conversion_of,
    run_conversion,
)
from backend.commands.options import add_label_studio_options, with_options
from backend.settings import Settings
from converters.label_studio.references import path_of, steps_of

_FILE_NAMES = {
    "coco": "coco.json",
    "youtube-vis": "youtube_vis.json",
    "tracks": "tracks.json",
}
_MEDIA = "media"


def add_export(commands: Any) -> None:
    parser = commands.add_parser(
        "export", help="a project's annotations as a data set",
        description="Export a Label Studio project and write it as a data set. The export itself "
        "stays beside it as label_studio.json.",
    )
    add = parser.add_argument
    add("--project", type=int, required=True, metavar="N", help="the project's number")
    add("--format", required=True, choices=FORMATS, help="what is written")
    add("--out", required=True, type=Path, metavar="DIR", help="folder for it")
    add(
        "--with-media", action="store_true",
        help="fetch the videos and frames into DIR/media first: exact sizes and times, and what "
        "--images needs",
    )
    add_content_options(parser)
    add_label_studio_options(parser)
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace, settings: Settings) -> int:
    from backend.label_studio_client import LabelStudioClient

    settings = with_options(settings, options)
    if options.with_media and options.media_root:
        raise ValueError("--with-media fetches what --media-root has: give one of them")
    client = LabelStudioClient.from_settings(settings)
    label_config = client.project(options.project)["label_config"]
    options.out.mkdir(parents=True, exist_ok=True)
    export = options.out / "label_studio.json"
    is_all = options.format == "label-studio" or options.results != ("annotations",)
    _write_export(client, options.project, export, in_full=is_all)
    print(export)
    if options.with_media:
        options.media_root = _fetch_media(export, label_config, settings, options.out / _MEDIA)
    if options.format == "label-studio":
        return 0
    name = _FILE_NAMES.get(options.format)
    out = options.out / (name or options.format)
    try:
        conversion = conversion_of(
            options, source=export, to=options.format, out=out, label_config=label_config
        )
        status = run_conversion(conversion, options, settings)
    except ValueError as error:
        if options.media_root is None:
            raise ValueError(f"{error} (--with-media fetches the media, which say it)") from None
        raise
    print(out)
    return status


def _write_export(client: Any, project_id: int, path: Path, *, in_full: bool) -> None:
    """Whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            client.export_json(project_id, file, in_full=in_full)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _fetch_media(export: Path, label_config: str, settings: Settings, folder: Path) -> Path:
    """The media of the exported tasks, under the names that Label Studio gives them."""
    from tqdm import tqdm

    from backend.errors import ServiceError
    from backend.media import MediaStore
    from converters.label_studio.config import parse_label_config
    from converters.label_studio.export import read_tasks

    config, store = parse_label_config(label_config), MediaStore(settings)
    folder.mkdir(parents=True, exist_ok=True)
    for task in tqdm(read_tasks(export), unit="task", disable=None):
        try:
            _fetch_task(task, config, store, folder)
        except (ServiceError, ValueError) as error:
            print(f"task {task.get('id')}: its media is left out: {error}", file=sys.stderr)
    return folder


def _fetch_task(task: Any, config: Any, store: Any, folder: Path) -> None:
    from backend.label_configs import media_videos
    from converters.label_studio.config import resolve_value

    data = task.get("data") or {}
    of = {"task_id": task.get("id"), "project_id": task.get("project")}
    for video in media_videos(config):
        reference = resolve_value(video.value, data)
        _link(store.video_file(reference, **of), reference, folder)
    for image in config.images:
        references = resolve_value(image.value_list or image.value or "", data)
        references = [references] if isinstance(references, str) else references
        for reference, file in zip(references, store.frame_files(references, **of)):
            _link(file, reference, folder)


def _link(file: Path, reference: str, folder: Path) -> None:
    """A hard link where the file system has them: the cache keeps the same bytes."""
    target = folder / media_path(reference)
    if os.path.exists(target):
        return
    if any(len(os.fsencode(step)) > 255 for step in target.parts):
        raise ValueError(f"{target.name!r:.80} is too long for the name of a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def media_path(reference: str) -> Path:
    """Where `find_media` looks for a reference: its path, without `..`."""
    path = path_of(reference)
    steps = [step for step in steps_of(path) if step != ".."]
    if not steps or "\0" in path:
        raise ValueError(f"media reference {reference!r:.80} names no file")
    return Path(*steps)
