"""`sam2-label-studio preview`: annotations and their video -> a picture to look at."""

from __future__ import annotations

import argparse
import os
import re
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Iterator, Sequence

from backend.commands.options import add_strict_option, at_least_one, say_malformed
from converters.types import AnnotatedVideo, ObjectId

# The drawing modules load av and Pillow; only `run` imports them, so that the
# other commands start without.
if TYPE_CHECKING:
    from converters.report import Report
    from sam2_model.video import FrameSource

_KIND_BY_SUFFIX = {".mp4": "video", ".gif": "gif", ".png": "sheet"}
_SUFFIX = {"video": ".mp4", "gif": ".gif", "sheet": ".png", "plot": ".png"}
_ONLY_FOR = {
    "count": ("sheet",),
    "columns": ("sheet",),
    "fps": ("gif",),
}
_RESULT_KINDS = ("annotations", "drafts", "predictions")
_SHEET_PICTURES = 12
_MOST_LINES = 20


def add_preview_parser(commands: Any) -> None:
    """Adds the `preview` command to argparse's subparsers."""
    parser = commands.add_parser(
        "preview", help="draw annotations over their video: mp4, GIF, contact sheet or plot"
    )
    _add_options(parser)
    parser.set_defaults(run=run)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="SOURCE",
        help="annotations in any format of convert, told by their content"
    )
    parser.add_argument(
        "--video", type=Path, required=True, help="the video file or folder of images"
    )
    parser.add_argument(
        "--out", type=Path, required=True,
        help="file to write: .mp4 and .gif play, .png is a contact sheet or plot",
    )
    parser.add_argument(
        "--as", dest="kind", choices=list(_SUFFIX),
        help="what to draw; default by the suffix of --out, a sheet for .png",
    )
    parser.add_argument(
        "--name", help="which of SOURCE's videos; default the one named as the file"
    )
    parser.add_argument(
        "--object", action="append", metavar="ID", dest="objects",
        help="draw only this object; repeat for more",
    )
    parser.add_argument(
        "--frames", type=_frames, metavar="START:STOP", help="0-based, STOP not included"
    )
    parser.add_argument(
        "--count", type=at_least_one, help=f"pictures of a sheet; default {_SHEET_PICTURES}"
    )
    parser.add_argument("--columns", type=at_least_one, help="of a sheet; default 4")
    parser.add_argument("--fps", type=float, help="most frames a second of a GIF; default 12.5")
    parser.add_argument(
        "--width", type=at_least_one, help="pixels of a picture, or of the plot"
    )
    parser.add_argument(
        "--label-config", type=Path, help="XML file of a Label Studio project, for its exports"
    )
    parser.add_argument(
        "--results", type=results_option, default=("annotations",), metavar="KIND,...",
        help="what of a Label Studio task is drawn: the first that it has of these kinds, of "
        "annotations (default), drafts, predictions",
    )
    parser.add_argument(
        "--stale", choices=["rectangle", "leave-out"], default="rectangle",
        help="Label Studio masks that a later edit made out of date: their box (default), or "
        "nothing; to see them tracked again, convert to tracks first",
    )
    add_strict_option(parser)
    parser.add_argument("--font", type=Path, help="font file, for labels that look like ???")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def draw(source: Path, video: Path, out: Path) -> int:
    """`preview SOURCE --video VIDEO --out OUT`, for other commands; raises as `run` does."""
    parser = argparse.ArgumentParser()
    _add_options(parser)
    # One argument each, or a name with a dash in front would be an option.
    return run(parser.parse_args([f"--video={video}", f"--out={out}", "--", str(source)]))


def output_kind(out: Path) -> str:
    """What `preview` draws into a file of this name. Raises ValueError for none."""
    kind = _KIND_BY_SUFFIX.get(out.suffix.lower())
    if kind is None:
        raise ValueError(f"{out}: must end in .mp4, .gif or .png")
    return kind


@dataclass(frozen=True)
class _Job:
    """What is to be drawn, checked."""

    options: argparse.Namespace
    kind: str
    video: AnnotatedVideo
    source: FrameSource
    shown: frozenset[ObjectId]

    @property
    def frames(self) -> range:
        given = self.options.frames
        count = self.source.info.frame_count
        if given is None:
            return range(count)
        stop = count if given.stop is None else given.stop
        if not given.start < stop <= count:
            raise ValueError(
                f"--frames {given.start}:{stop}: must not be empty, and the video has "
                f"frames [0, {count})"
            )
        return range(given.start, stop)


def run(options: argparse.Namespace, settings: object = None) -> int:
    """Draws what the options ask for; the exit status.

    Raises ValueError or OSError, with a line for the person, for options that
    do not go together, a video that does not fit the annotations, annotations
    without an object.
    """
    from converters.report import Report
    from sam2_model.video import open_frame_source

    _check_out(options)
    kind = _kind(options)
    if not options.video.exists():
        raise FileNotFoundError(f"no such video file or folder: {options.video}")
    config = options.label_config.read_text() if options.label_config else None
    remarks: dict[str, list[str]] = {}
    report = Report(strict=options.strict)
    videos = annotated_videos(
        options.source, config, results=options.results, stale=options.stale,
        media_root=options.video.parent, remarks=remarks, report=report,
    )
    video = choose_video(videos, options.name, options.video)
    if not any(track.masks for track in video.tracks):
        why = "; ".join(["", *remarks.get(video.name, ())])
        raise ValueError(f"{options.source}: video {video.name!r} has no object with a mask{why}")
    with open_frame_source(options.video) as source:
        _check_size(video, source)
        job = _Job(options, kind, video, source, _chosen_objects(video, options.objects))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        summary = _DRAW[kind](job)
    if not options.quiet:
        print("\n".join([*summary, *remarks.get(video.name, ())]))
    say_malformed(report, counts=False)
    return 0


def annotated_videos(
    path: Path,
    label_config: str | None = None,
    *,
    results: Sequence[str] = ("annotations",),
    stale: str = "rectangle",
    media_root: Path | None = None,
    remarks: dict[str, list[str]] | None = None,
    report: Report | None = None,
) -> Iterator[AnnotatedVideo]:
    """The videos of an annotation file of any format that is known.

    `results`, `stale` and `media_root` are for Label Studio exports: see
    `annotated.read_videos`. `remarks` is filled with what of each video was
    left out or is not as a person left it, by its name: of a Label Studio
    export the video's own, of other formats all that was read. `report` is
    told of malformed values; without one the first raises.
    Raises ValueError, at its end, when a file gives no video, with the reason.
    """
    from backend.annotated import read_videos
    from converters.formats import Format, recognise
    from converters.report import Report

    if not path.exists():
        raise FileNotFoundError(f"no such annotation file: {path}")
    report, is_empty = report or Report(strict=True), True
    # Other formats are read as a whole before their first video is known.
    is_a_task_each = recognise(path) == Format.LABEL_STUDIO
    for video, _ in read_videos(
        path, label_config=label_config, media_root=media_root, stale=stale, results=results,
        report=report,
    ):
        is_empty = False
        if remarks is not None:
            remarks[video.name] = report.remarks()
        if is_a_task_each:
            report.dropped.clear()
            report.changed.clear()
        yield video
    if is_empty and report.dropped:
        why = ", ".join(f"{count} {what}" for what, count in report.dropped.items())
        raise ValueError(f"{path} gives no video; dropped: {why}")


def choose_video(
    videos: Iterable[AnnotatedVideo], name: str | None, video_file: Path
) -> AnnotatedVideo:
    """The video of that name; without one the only video, or that of the file's name.

    Raises ValueError naming the videos there are when none is meant.
    """
    wanted = (video_file.stem, video_file.name) if name is None else (name,)
    names, first = [], None
    for video in videos:
        if video.name in wanted:
            return video
        names.append(video.name)
        first = first or video
    if first is None:
        raise ValueError("the annotations hold no video")
    if name is None and len(names) == 1:
        return first
    listed = ", ".join(map(repr, names[:10])) + (", ..." if len(names) > 10 else "")
    hint = "give one with --name" if name is None else "--name must be one of them"
    raise ValueError(f"no video is named {wanted[0]!r}, {hint}: {listed}")


def _kind(options: argparse.Namespace) -> str:
    suffix = options.out.suffix.lower()
    kind = options.kind or _KIND_BY_SUFFIX.get(suffix)
    if kind is None:
        raise ValueError(f"--out {options.out}: must end in .mp4, .gif or .png")
    if suffix != _SUFFIX[kind]:
        raise ValueError(f"--out {options.out}: must end in {_SUFFIX[kind]} for --as {kind}")
    for option, kinds in _ONLY_FOR.items():
        if getattr(options, option) is not None and kind not in kinds:
            raise ValueError(f"--{option} goes with {' or '.join(kinds)}, not with {kind}")
    return kind


def _check_out(options: argparse.Namespace) -> None:
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder, must be a file")
    for given in (options.source, options.video):
        if options.out.exists() and given.exists() and os.path.samefile(options.out, given):
            raise ValueError(f"--out {options.out} would overwrite what it is made of")


def _check_size(video: AnnotatedVideo, source: FrameSource) -> None:
    told, found = video.info, source.info
    if (told.width, told.height) != (found.width, found.height):
        raise ValueError(
            f"video {video.name!r} is annotated at {told.width} x {told.height}, the file "
            f"has {found.width} x {found.height}; is it the video that was annotated?"
        )


def _chosen_objects(video: AnnotatedVideo, asked: list[str] | None) -> frozenset[ObjectId]:
    by_name = {str(track.object_id): track.object_id for track in video.tracks}
    unknown = [name for name in asked or () if name not in by_name]
    if unknown:
        listed = ", ".join(list(by_name)[:20])
        raise ValueError(f"--object {unknown[0]}: video {video.name!r} has the objects {listed}")
    return frozenset(by_name.values() if asked is None else map(by_name.get, asked))


def _draw_video(job: _Job) -> list[str]:
    from backend.preview import save_video

    with _progress(len(job.frames), job.options.quiet) as progress:
        codec = save_video(
            job.options.out, job.source, job.video.tracks, frames=job.frames,
            progress=progress, **_common(job),
        )
    return [f"{_summary(job, len(job.frames))}, {codec}"]


def _draw_gif(job: _Job) -> list[str]:
    from backend.preview import save_gif

    rate = {} if job.options.fps is None else {"max_fps": job.options.fps}
    with _progress(len(job.frames), job.options.quiet) as progress:
        count = save_gif(
            job.options.out, job.source, job.video.tracks, frames=job.frames,
            progress=progress, **rate, **_common(job),
        )
    return [_summary(job, count)]


def _draw_sheet(job: _Job) -> list[str]:
    from backend.preview import contact_sheet, sheet_frames
    from backend.preview.output import save_png

    options = job.options
    frames = job.frames
    if options.frames is None:
        # Where there is something to see, not the whole of a long video.
        seen = [
            index for track in job.video.tracks if track.object_id in job.shown
            for index in track.masks if index in frames
        ]
        frames = range(min(seen), max(seen) + 1) if seen else frames
    indices = sheet_frames(frames.start, frames.stop, options.count or _SHEET_PICTURES)
    common = _common(job)
    width = common.pop("width") or 400
    with _progress(len(indices), options.quiet) as progress:
        sheet = contact_sheet(
            job.source, job.video.tracks, indices, columns=options.columns or 4,
            picture_width=width, progress=progress, **common,
        )
    save_png(options.out, sheet)
    return [_summary(job, len(indices))]


def _draw_plot(job: _Job) -> list[str]:
    from backend.preview import doubtful_stretches, plot_tracks
    from backend.preview.drawing import check_tracks
    from backend.preview.output import save_png
    from backend.preview.plot import stretch_lines

    check_tracks(job.video.tracks, job.source.info)
    common = _common(job)
    if common["width"] is None:
        del common["width"]
    frames = job.frames
    save_png(
        job.options.out, plot_tracks(job.video.tracks, job.source.info, frames=frames, **common)
    )
    lines = [
        line
        for track in job.video.tracks
        if track.object_id in job.shown
        for line in stretch_lines(
            track,
            [
                stretch
                for stretch in doubtful_stretches(track)
                if stretch.start < frames.stop and stretch.stop > frames.start
            ],
        )
    ]
    more = [f"... and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
    count = f"{len(lines)} doubtful stretch{'' if len(lines) == 1 else 'es'}"
    return [f"{_summary(job, len(frames))}, {count}", *lines[:_MOST_LINES], *more]


_DRAW: dict[str, Callable[[_Job], list[str]]] = {
    "video": _draw_video,
    "gif": _draw_gif,
    "sheet": _draw_sheet,
    "plot": _draw_plot,
}


def _common(job: _Job) -> dict[str, Any]:
    from backend.preview import Lettering

    return {
        "shown": job.shown, "width": job.options.width, "lettering": Lettering(job.options.font)
    }


def _summary(job: _Job, frame_count: int) -> str:
    tracks = [track for track in job.video.tracks if track.object_id in job.shown]
    masks = sum(len(track.masks) for track in tracks)
    return (
        f"{job.options.out}: {frame_count} frame{'' if frame_count == 1 else 's'}, "
        f"{len(tracks)} object{'' if len(tracks) == 1 else 's'} with {masks} masks in all"
    )


@contextmanager
def _progress(total: int, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with ExitStack() as bars:
        bar = None

        def show(done: int, _: int) -> None:
            nonlocal bar
            if bar is None:  # not before there is progress: an error stands alone
                bar = bars.enter_context(
                    # None: no bar where nobody watches.
                    tqdm(total=total, unit="frame", file=sys.stderr, disable=None)
                )
            bar.update(done - bar.n)

        yield (lambda done, _: None) if quiet else show


def _frames(text: str) -> slice:
    match = re.fullmatch(r"(\d*):(\d*)", text, re.ASCII)
    if not match or text == ":":
        raise argparse.ArgumentTypeError(f"{text!r} must be START:STOP, e.g. 100:200 or 100:")
    start, stop = match.groups()
    return slice(int(start or 0), int(stop) if stop else None)


def results_option(text: str) -> tuple[str, ...]:
    """argparse type of --results, of this command and of convert."""
    kinds = tuple(text.split(","))
    if not set(kinds) <= set(_RESULT_KINDS):
        raise argparse.ArgumentTypeError(f"{text!r} must be of {', '.join(_RESULT_KINDS)}")
    return kinds
