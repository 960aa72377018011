"""`sam2-label-studio`: serve, track, preview."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Sequence

from backend.logs import configure_logging
from backend.preview_command import add_preview_parser
from backend.settings import Settings
from converters.types import Box, Direction, Prompt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment()
        configure_logging(settings.secrets)
        return options.run(options, settings)
    except (ValueError, OSError) as error:
        print(f"sam2-label-studio: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sam2-label-studio", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the ML backend for Label Studio")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on")
    serve.add_argument("--port", type=int, default=9090)
    serve.add_argument("--threads", type=int, help="request threads; default by the settings")
    serve.add_argument(
        "--local-files-root", type=Path, metavar="DIR", dest="label_studio_local_files_root",
        help="Label Studio's local files folder, as this machine sees it",
    )
    _add_model_options(serve)
    serve.set_defaults(run=_serve)

    track = commands.add_parser("track", help="follow boxes through a video, write data sets")
    track.add_argument("video", type=Path, help="video file or folder of images")
    track.add_argument(
        "--box", type=_box, action="append", required=True, metavar="X1,Y1,X2,Y2",
        help="pixels, maxima exclusive; repeat for more objects",
    )
    track.add_argument("--frame", type=int, default=0, help="0-based frame of the boxes")
    track.add_argument("--label", default="object", help="category of the objects")
    track.add_argument("--direction", choices=[str(item) for item in Direction])
    track.add_argument("--out", type=Path, required=True, help="folder for the results")
    _add_model_options(track)
    track.set_defaults(run=_track)

    add_preview_parser(commands)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="e.g. demo, sam2.1_hiera_tiny")
    parser.add_argument("--checkpoint", help="file, checkpoint name or hub id")
    parser.add_argument("--device", help="cpu, cuda, cuda:1")


def _with_options(settings: Settings, options: argparse.Namespace) -> Settings:
    names = ("model", "checkpoint", "device", "direction", "label_studio_local_files_root")
    given = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    return dataclasses.replace(settings, **given)


def _box(text: str) -> Box:
    try:
        x_min, y_min, x_max, y_max = (float(part) for part in text.split(","))
        return Box(x_min, y_min, x_max, y_max)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be x1,y1,x2,y2: {error}") from None


def _serve(options: argparse.Namespace, settings: Settings) -> int:
    from backend.server import Server

    settings = _with_options(settings, options)
    Server(settings, host=options.host, port=options.port, threads=options.threads).run()
    return 0


def _track(options: argparse.Namespace, settings: Settings) -> int:
    from backend.exports import save_tracks
    from backend.model import load_tracker
    from backend.propagation import track_requests
    from converters.label_studio.results import ObjectRequest
    from sam2_model.video import open_frame_source

    settings = _with_options(settings, options)
    requests = [
        ObjectRequest(number, (options.label,), (Prompt(number, options.frame, box=box),))
        for number, box in enumerate(options.box, start=1)
    ]
    tracker = load_tracker(settings)
    with open_frame_source(options.video) as source:
        begin = time.perf_counter()
        tracked = track_requests(
            source, requests, tracker=tracker, direction=settings.direction, progress=_show_progress
        )
        seconds = time.perf_counter() - begin
        prompts = [prompt for request in requests for prompt in request.prompts]
        name = options.video.stem
        files = save_tracks(options.out, name, source, tracked.tracks, prompts=prompts)
    frames = len({frame for track in tracked.tracks for frame in track.scores})
    print(file=sys.stderr)
    print(f"{frames} frames in {seconds:.1f} s, {frames / seconds:.1f} frames per second")
    for file in files:
        print(file)
    return 0


def _show_progress(done: int, total: int) -> None:
    print(f"\rframe {done} of {total}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
