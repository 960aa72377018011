"""Training clips from annotated videos: prepared once at the model's size, then sampled.

A folder holds, for each video, its annotated frames as JPEGs of the model's
image size and the objects' masks beside them as packed bits. So a step reads a
few small files however long and large the videos are.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset

from sam2_model.evaluation.semi_supervised import TrueVideo
from sam2_model.training.objective import ClipBatch
from sam2_model.video import open_frame_source

_JPEG_QUALITY = 95
_LISTING = "frames.json"
_FASTEST = 3
"""Clips take every frame to every third annotated one, for faster motion."""


@dataclass(frozen=True, kw_only=True)
class VideoClipSettings:
    """What one training step sees."""

    frame_count: int
    clip_count: int
    objects_per_clip: int
    least_area: float = 0.0005
    """Objects smaller than this share of the clip's first frame are not prompted."""
    closest: float = 0.6
    """Half of the clips are seen closer: the least side of the part they show."""
    exposure: float = 0.25
    """Brightness, contrast and colour vary by up to this share."""


@dataclass(frozen=True)
class PreparedVideo:
    """One video's frames and masks at the model's size."""

    folder: Path
    object_count: int
    frames: tuple[int, ...]
    """The annotated frames, ascending."""
    seen: tuple[tuple[int, ...], ...]
    """For each of them the objects that are on it."""

    def picture(self, place: int) -> Image.Image:
        """The `place`-th annotated frame, S x S."""
        path = self.folder / f"{self.frames[place]:07d}.jpg"
        with Image.open(path, formats=("JPEG",)) as picture:
            return picture.convert("RGB")

    def masks(self, place: int, size: int) -> np.ndarray:
        """(N, S, S) bool of all objects on the `place`-th annotated frame."""
        bits = np.load(self.folder / f"{self.frames[place]:07d}.npy")
        return np.unpackbits(bits, axis=-1, count=size).astype(bool)


def prepare_videos(
    videos: Sequence[TrueVideo],
    folder: Path,
    image_size: int,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[PreparedVideo]:
    """Prepare videos in a folder; those that are there already are not made again.

    Raises:
        ValueError: a video without an object, or with a mask of another size.
        VideoDecodeError: a video that cannot be read.
    """
    prepared = []
    for number, video in enumerate(videos):
        target = folder / f"{number:05d}"
        if not (target / _LISTING).is_file():
            _prepare(video, target, image_size)
        prepared.append(_load(target))
        progress(number + 1, len(videos))
    return prepared


def _prepare(video: TrueVideo, target: Path, size: int) -> None:
    annotated = sorted(video.annotations)
    masks_of = {frame: video.masks(frame) for frame in annotated}
    ids = sorted({key for masks in masks_of.values() for key in masks}, key=str)
    if not ids:
        raise ValueError(f"video {video.name!r} shows no object on any annotated frame")
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    wanted = set(annotated)
    with open_frame_source(video.source) as source:
        with closing(source.frames(annotated[0], annotated[-1] + 1)) as frames:
            for index, picture in frames:
                if index not in wanted:
                    continue
                stem = partial / f"{index:07d}"
                Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC).save(
                    f"{stem}.jpg", quality=_JPEG_QUALITY
                )
                masks = [
                    _resized_mask(masks_of[index].get(key), picture.shape[:2], size, video, index)
                    for key in ids
                ]
                np.save(f"{stem}.npy", np.packbits(np.stack(masks), axis=-1))
    listing = {
        "object_count": len(ids),
        "frames": annotated,
        "seen": [
            [place for place, key in enumerate(ids) if key in masks_of[frame]]
            for frame in annotated
        ],
    }
    (partial / _LISTING).write_text(json.dumps(listing))
    os.replace(partial, target)


def _resized_mask(mask, size_hw: tuple[int, int], size: int, video: TrueVideo, frame: int):
    if mask is None:
        return np.zeros((size, size), bool)
    if mask.shape != size_hw:
        raise ValueError(
            f"video {video.name!r}, frame {frame}: a mask of {mask.shape[0]} x {mask.shape[1]} "
            f"pixels on a picture of {size_hw[0]} x {size_hw[1]}"
        )
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((size, size), Image.Resampling.BOX)
    return np.asarray(small) > 127


def _load(folder: Path) -> PreparedVideo:
    listing = json.loads((folder / _LISTING).read_text())
    return PreparedVideo(
        folder, listing["object_count"], tuple(listing["frames"]),
        tuple(tuple(seen) for seen in listing["seen"]),
    )


class VideoClipBatches(Dataset):
    """Item i is the batch of step `start` + i: the same for equal seeds, on any run."""

    def __init__(
        self, videos: Sequence[PreparedVideo], image_size: int, settings: VideoClipSettings,
        *, seed: int, start: int, stop: int,
    ) -> None:
        self.videos = videos
        self.image_size = image_size
        self.settings = settings
        self.seed, self.start, self.stop = seed, start, stop
        # A clip begins where something can be seen; every such frame is as likely.
        self.beginnings = [
            (number, place)
            for number, video in enumerate(videos)
            for place, seen in enumerate(video.seen)
            if seen
        ]

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> ClipBatch:
        random = np.random.default_rng((self.seed, self.start + index))
        frames, masks, owners = [], [], []
        attempts = 0
        while len(frames) < self.settings.clip_count:
            attempts += 1
            # Objects too small to prompt are better than no step at all.
            least_area = self.settings.least_area if attempts < 50 else 0.0
            number, place = self.beginnings[random.integers(len(self.beginnings))]
            clip = self._clip(self.videos[number], place, least_area, random)
            if clip is None:
                continue
            owners += [len(frames)] * clip[1].shape[0]
            frames.append(clip[0])
            masks.append(clip[1])
        return ClipBatch(torch.stack(frames), torch.cat(masks), torch.tensor(owners))

    def _clip(self, video: PreparedVideo, place: int, least_area: float, random):
        """((T, 3, S, S) uint8, (N, T, S, S) bool) that begins at `place`, or None."""
        size, settings = self.image_size, self.settings
        places = _places(place, len(video.frames), settings.frame_count, random)
        view = _View.random(size, settings, random)
        first = view.masks(video.masks(place, size))
        shares = first.mean(axis=(1, 2))
        large = np.flatnonzero((shares > 0) & (shares >= least_area))
        if not len(large):
            return None
        chosen = random.permutation(large)[: settings.objects_per_clip]
        pictures = [view.picture(video.picture(p)) for p in places]
        masks = [first if p == place else view.masks(video.masks(p, size)) for p in places]
        return (
            torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),
            torch.from_numpy(np.stack([mask[chosen] for mask in masks], axis=1)),
        )


def _places(first: int, count: int, frame_count: int, random) -> list[int]:
    """Annotated frames of a clip, forwards or backwards; at the video's end it turns round."""
    step = int(random.integers(1, _FASTEST + 1)) * (1 if random.random() < 0.5 else -1)
    places, place = [first], first
    while len(places) < frame_count:
        if not 0 <= place + step < count:
            step = -step
            if not 0 <= place + step < count:
                step = 1 if place + 1 < count else -1 if place else 0
        place += step
        places.append(place)
    return places


@dataclass(frozen=True)
class _View:
    """How one clip is shown: the same on all its frames."""

    size: int
    box: tuple[int, int, int, int]
    mirrored: bool
    brightness: float
    contrast: float
    colour: float

    @classmethod
    def random(cls, size: int, settings: VideoClipSettings, random) -> _View:
        side = size if random.random() < 0.5 else int(size * random.uniform(settings.closest, 1))
        left, top = (int(random.integers(size - side + 1)) for _ in range(2))
        factors = 1 + settings.exposure * random.uniform(-1, 1, 3)
        return cls(size, (left, top, left + side, top + side), random.random() < 0.5, *factors)

    def picture(self, picture: Image.Image) -> np.ndarray:
        """(S, S, 3) uint8."""
        shown = picture.resize((self.size, self.size), Image.Resampling.BILINEAR, box=self.box)
        for enhance, factor in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.colour),
        ):
            shown = enhance(shown).enhance(factor)
        pixels = np.asarray(shown)
        return pixels[:, ::-1] if self.mirrored else pixels

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """(N, S, S) bool -> the same shape."""
        left, top, right, bottom = self.box
        if right - left < self.size:
            rows = top + (np.arange(self.size) * (bottom - top)) // self.size
            columns = left + (np.arange(self.size) * (right - left)) // self.size
            masks = masks[:, rows[:, None], columns]
        return masks[..., ::-1] if self.mirrored else masks


def video_clip_batches(
    videos: Sequence[PreparedVideo], image_size: int, settings: VideoClipSettings,
    *, seed: int, start: int, stop: int, workers: int = 0,
) -> Iterator[ClipBatch]:
    """The batches of steps [start, stop), made in worker processes."""
    data = VideoClipBatches(videos, image_size, settings, seed=seed, start=start, stop=stop)
    return iter(
        DataLoader(
            data, batch_size=None, shuffle=False, num_workers=workers,
            prefetch_factor=4 if workers else None,
        )
    )
