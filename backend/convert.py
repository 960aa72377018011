"""`convert`: a data set in one format -> the same in another, with frame images if asked for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, Sequence

from backend.annotated import read_videos
from backend.data_set_media import IMAGES, save_images
from converters import davis, sav
from converters.coco import save_coco
from converters.dataset import categories_of, file_names_of
from converters.files import write_json
from converters.folders import folder_name, frame_stems, made_folder, names_in_own_folder
from converters.formats import Format, image_folder, recognise
from converters.frames import DEFAULT_QUALITY
from converters.malformed import MalformedValue
from converters.report import Report
from converters.selection import SelectedVideo, Selection, is_validation, map_labels, select
from converters.tracks_json import save_tracks
from converters.types import AnnotatedVideo, Category
from converters.youtube_vis import save_youtube_vis

if TYPE_CHECKING:
    from converters.label_studio.exported import Resegment
    from converters.label_studio.regions import KeyframeChoice

_FOLDER_FORMATS = (Format.DAVIS, Format.SAV)
_WITHOUT_CROWDS = (Format.DAVIS, Format.SAV, Format.LABEL_STUDIO)
"""Formats that cannot say that a mask is a crowd's."""
_ONLY_FOR = {
    "polygons": Format.COCO,
    "compressed": Format.YOUTUBE_VIS,
    "sav_layout": Format.SAV,
    **dict.fromkeys(
        ("media_url", "keyframes", "keyframe_min_iou", "image_control", "polygon_tolerance_pixels"),
        Format.LABEL_STUDIO,
    ),
}
"""Options that other formats have no use for."""


@dataclass(frozen=True)
class ConvertOptions:
    """What the command line says."""

    source: Path
    to: Format
    out: Path
    """A file; for SA-V and DAVIS a folder."""
    selection: Selection = Selection()
    categories: tuple[str | Category, ...] | None = None
    """All that there may be; names in the order of their ids. None: the source's, with their
    ids, or the label config's, or else the labels, sorted (`dataset.categories_of`)."""
    validation: float | None = None
    """Part of the videos, in [0, 1], that is written as its own validation set."""
    seed: int = 0
    images: bool = False
    media_root: Path | None = None
    """Where videos and images are looked for; None: where the source's format has them."""
    jpeg_quality: int = DEFAULT_QUALITY
    polygons: bool = False
    compressed: bool = False
    sav_layout: sav.SavLayout = sav.SavLayout.JSON
    label_config: str | None = None
    media_url: str | None = None
    """What Label Studio opens: `{name}` is the video's; with `{file_name}`, one URL a frame."""
    keyframes: KeyframeChoice = "thin"
    """On a Label Studio video: as few keyframes as will do, or "all"."""
    keyframe_min_iou: float = 0.9
    """How close "thin" keeps the editor's box to the mask's."""
    image_control: str | None = None
    """On Label Studio's images: which control takes the masks; None: the most exact."""
    polygon_tolerance_pixels: float = 1.0
    """How far a Label Studio polygon may leave the mask's edge."""
    stale: str = "rectangle"
    resegment: Resegment | None = None
    """Tracks the frames again that are out of date; goes with stale="resegment"."""
    results: tuple[str, ...] = ("annotations",)
    """What of a Label Studio task is read: the first kind that it has of these."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", Format(self.to))
        object.__setattr__(self, "sav_layout", sav.SavLayout(self.sav_layout))


def convert(options: ConvertOptions, report: Report) -> Report:
    """Write the data set; what was counted and left out, in `report`.

    Raises:
        ValueError: an option, the source or its media break a rule.
        OSError: a file cannot be read or written.
    """
    check_options(options)
    if options.validation is None:
        _write(options, options.out, "train", _selected(options, None, report), report)
        return report
    options = dataclasses.replace(options, categories=_all_categories(options, report))
    for split in ("train", "val"):
        # The second reading would count what the source itself leaves out again.
        counted = report if split == "train" else Report(strict=report.strict)
        videos = _selected(options, split, report, reading=counted)
        _write(options, _split_path(options, split), split, videos, report)
    return report


def _all_categories(options: ConvertOptions, report: Report) -> tuple[str | Category, ...] | None:
    """Those of both splits, so that ids mean the same in both; None where there are no ids."""
    if options.categories is not None or options.to not in (Format.COCO, Format.YOUTUBE_VIS):
        return options.categories
    # Only labels are wanted: nothing is tracked for them.
    if options.stale == "resegment":
        options = dataclasses.replace(options, stale="leave-out", resegment=None)
    return categories_of(
        map_labels(video, options.selection, Report())
        for video, _ in _read(options, Report(strict=report.strict))
    )


def check_options(options: ConvertOptions) -> None:
    """Raises ValueError for options that do not go together, before anything is read."""
    for field in dataclasses.fields(options):
        target = _ONLY_FOR.get(field.name, options.to)
        if options.to != target and getattr(options, field.name) != field.default:
            option = "--" + field.name.removesuffix("_pixels").replace("_", "-")
            raise ValueError(f"{option} is for {target} alone, not for {options.to}")
    if options.to == Format.LABEL_STUDIO and not (options.label_config and options.media_url):
        raise ValueError("to label-studio needs the label config and the media URL: --label-config and --media-url")
    if options.to == Format.LABEL_STUDIO and options.images:
        raise ValueError("to label-studio writes no images: tasks refer to the media URL")
    if options.out.resolve() == options.source.resolve():
        raise ValueError(f"{options.out} is the source itself, it must be written elsewhere")
    if options.to not in _FOLDER_FORMATS and options.out.is_dir():
        raise ValueError(f"{options.out} is a folder, {options.to} is written to a file")
    if options.stale == "resegment" and recognise(options.source) != Format.LABEL_STUDIO:
        raise ValueError(
            f"--stale resegment is for Label Studio exports, {options.source} is "
            f"{recognise(options.source)}"
        )
    if options.validation is not None:
        is_validation("", options.validation, options.seed)


def _split_path(options: ConvertOptions, split: str) -> Path:
    """`out_train.json`; a folder `sav_train` in a SA-V folder; DAVIS keeps both in one."""
    out = options.out
    if options.to == Format.DAVIS:
        return out
    if options.to == Format.SAV:
        return out / f"sav_{split}"
    return out.with_name(f"{out.stem}_{split}{out.suffix}")


def _selected(
    options: ConvertOptions, split: str | None, report: Report, reading: Report | None = None
) -> Iterator[AnnotatedVideo]:
    """The videos of the split after selection, their images written on the way."""
    taken: set[str] = set()
    for video, media in _read(options, reading or report):
        if split is not None:
            is_val = is_validation(video.name, options.validation or 0.0, options.seed)
            if is_val != (split == "val"):
                continue
        selected = select(video, options.selection, report)
        if options.to != Format.TRACKS:
            labelled = _labelled(selected.video, report)
            selected = dataclasses.replace(selected, video=labelled)
        if options.to in _WITHOUT_CROWDS:
            crowds = sum(track.is_crowd for track in selected.video.tracks)
            report.change("crowds written as objects", crowds)
        if options.images:
            out = options.out if split is None else _split_path(options, split)
            selected = _with_images(video, selected, media, options, out, taken)
        yield selected.video


def _labelled(video: AnnotatedVideo, report: Report) -> AnnotatedVideo:
    """The video without the objects that no category is known for."""
    tracks = []
    for track in video.tracks:
        with report.leaving_out("objects"):
            if not track.labels:
                raise MalformedValue(
                    f"video {video.name!r}, object {track.object_id!r}",
                    "has no label (--default-label LABEL gives one to all objects without)",
                )
            tracks.append(track)
    return dataclasses.replace(video, tracks=tuple(tracks))


def _with_images(
    video: AnnotatedVideo,
    selected: SelectedVideo,
    media: Sequence[str],
    options: ConvertOptions,
    out: Path,
    taken: set[str],
) -> SelectedVideo:
    """Writes the selected frames' images under names not yet `taken`; the video with these."""
    names = _image_names(selected.video, options.to)
    if not taken.isdisjoint(names):
        names = names_in_own_folder(selected.video)
    if len(set(names)) < len(names) or not taken.isdisjoint(names):
        raise ValueError(f"video {video.name!r}: another image would have the name of one of its")
    taken.update(names)
    save_images(
        options.media_root or image_folder(options.source),
        _image_folder(options.to, out),
        video,
        dict(zip(selected.source_frames, names)),
        media=media,
        quality=options.jpeg_quality,
    )
    named = dataclasses.replace(selected.video, file_names=names)
    return dataclasses.replace(selected, video=named)


def _image_names(video: AnnotatedVideo, to: Format) -> tuple[str, ...]:
    names = file_names_of(video)
    if to == Format.COCO:
        return names
    if to == Format.YOUTUBE_VIS:
        return names_in_own_folder(video)
    # Readers of DAVIS and SA-V look for .jpg alone.
    folder = folder_name(video)
    return tuple(f"{folder}/{stem}.jpg" for stem in frame_stems(video))


def _image_folder(to: Format, out: Path) -> Path:
    if to == Format.DAVIS:
        return out / davis.IMAGES
    if to == Format.SAV:
        return out / sav.IMAGES
    return out.parent / IMAGES


def _read(
    options: ConvertOptions, report: Report
) -> Iterator[tuple[AnnotatedVideo, Sequence[str]]]:
    """Raises ValueError when there is no video, so that no empty data set is taken for one."""
    videos = read_videos(
        options.source, label_config=options.label_config, media_root=options.media_root,
        stale=options.stale, resegment=options.resegment, results=options.results, report=report,
    )
    is_empty = True
    for video in videos:
        is_empty = False
        yield video
    if is_empty:
        why = ", ".join(f"{count} {what}" for what, count in report.dropped.items())
        raise ValueError(f"{options.source} gives no video" + (f"; dropped: {why}" if why else ""))


def _write(
    options: ConvertOptions,
    out: Path,
    split: str,
    videos: Iterable[AnnotatedVideo],
    report: Report,
) -> None:
    # What a refused source leaves behind: nothing, not even the folder.
    with made_folder(out if options.to in _FOLDER_FORMATS else out.parent):
        _write_format(options, out, split, videos, report)


def _write_format(
    options: ConvertOptions,
    out: Path,
    split: str,
    videos: Iterable[AnnotatedVideo],
    report: Report,
) -> None:
    categories = options.categories
    if options.to == Format.COCO:
        save_coco(out, videos, categories=categories, polygons=options.polygons, report=report)
    elif options.to == Format.YOUTUBE_VIS:
        compressed = options.compressed
        save_youtube_vis(out, videos, categories=categories, compressed=compressed, report=report)
    elif options.to == Format.SAV:
        sav.save_sav(out, videos, layout=options.sav_layout, split=split, report=report)
    elif options.to == Format.DAVIS:
        davis.save_davis(out, videos, image_set=split, report=report)
    elif options.to == Format.TRACKS:
        save_tracks(out, videos, report=report)
    else:
        _write_label_studio(out, videos, options, report)


# --- Label Studio -------------------------------------------------------------


def _write_label_studio(
    out: Path, videos: Iterable[AnnotatedVideo], options: ConvertOptions, report: Report
) -> None:
    from converters.label_studio.references import filled
    from converters.label_studio.tasks import to_tasks

    def counted() -> Iterator[AnnotatedVideo]:
        for video in videos:
            report.add_video(video.info.frame_count)
            tracks = tuple(track for track in video.tracks if report.visible_frames(track))
            yield dataclasses.replace(video, tracks=tracks)
            report.progress(sum(len(track.masks) for track in tracks))

    def media(video: AnnotatedVideo) -> str | list[str]:
        template = options.media_url or ""
        if "{file_name}" not in template:
            return filled(template, name=video.name)
        return [
            filled(template, name=video.name, file_name=file_name)
            for file_name in file_names_of(video)
        ]

    tasks = to_tasks(
        counted(),
        label_config=options.label_config,
        media_urls=media,
        keyframes=options.keyframes,
        min_iou=options.keyframe_min_iou,
        image_control=options.image_control,
        polygon_tolerance_pixels=options.polygon_tolerance_pixels,
    )
    write_json(out, iter(tasks))
