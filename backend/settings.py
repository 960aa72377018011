"""What an operator can set. The only file of the backend that reads the environment."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Mapping, TypeVar
from urllib.parse import urlsplit

from converters.types import Direction
from sam2_model.checkpoints import cache_folder

_MIB = 2**20
_SECRETS = ("label_studio_api_key",)
_DTYPES = ("float32", "bfloat16", "float16")
_KEYFRAMES = ("thin", "all")
_HOST = re.compile(r"[^\s/@?#]+")

_Value = TypeVar("_Value")


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Everything the service can be told; checked when it is made.

    Raises ValueError naming the field, its value (never a secret's) and the rule.
    """

    model: str = "demo"
    """A model name, Meta's config path or a hub id (`sam2_model.configs`)."""
    checkpoint: str | None = None
    """A file, a checkpoint name or a hub id; None: the model's own."""
    device: str | None = None
    """"cpu", "cuda", "cuda:1"; None: the GPU if there is one."""
    dtype: str | None = None
    """"float32", "bfloat16" or "float16"; None: what the device is fast at."""

    label_studio_url: str | None = None
    """Where relative media is fetched from, and the only host that sees the key."""
    label_studio_api_key: str | None = None
    """A legacy token or a personal access token. Secret."""
    label_studio_local_files_root: Path | None = None
    """Label Studio's LOCAL_FILES_DOCUMENT_ROOT, where this machine has it too:
    `/data/local-files/?d=...` is then read from it and not over HTTP."""

    media_roots: tuple[Path, ...] = ()
    """Folders from which task data may name files by absolute path."""
    media_cache: Path = field(default_factory=lambda: cache_folder() / "media")
    """Where downloads are kept; a folder of its own."""
    media_cache_bytes: int = 16384 * _MIB
    """For all downloads; the least recently used are removed, none that is in use."""
    media_fresh_seconds: float = 3600.0
    """How long a download is used without its host being asked for a newer version.
    Label Studio's uploads never change, so they are fetched once."""
    allow_private_media_hosts: tuple[str, ...] = ()
    """Hosts ("name" or "name:port") on private or loopback addresses that media
    may come from; Label Studio's own host always may."""
    max_download_bytes: int = 2048 * _MIB
    """For one video, or all the images of one task."""
    download_seconds: float = 600.0
    """For one download; it goes on when the request that began it has timed out."""

    max_request_bytes: int = 250 * _MIB
    """Label Studio's own limit."""
    max_waiting_requests: int = 8
    """/predict calls at once; more are refused. Below the server's threads, so
    that /health always finds a free one."""
    answer_seconds: float = 90.0
    """Tracking stops and answers after this; Label Studio gives up after 100 s."""
    max_frames: int = 100_000
    """Frames of one video."""
    max_objects: int = 64
    """Objects in one request."""
    kept_states: int = 4
    """Videos that stay open, with what was computed of them, for the next prompt."""
    kept_state_seconds: float = 900.0
    """How long one stays open unused."""
    feature_cache_bytes: int = 1024 * _MIB
    """Encoder features of all open videos."""

    data_folder: Path = field(default_factory=lambda: cache_folder() / "service")
    """Jobs, results and predictions under way: `jobs.sqlite3` in it."""
    max_result_bytes: int = 1024 * _MIB
    """Results kept, for equal requests and previews; the longest unused go first."""
    job_days: float = 30.0
    """How long finished jobs are listed."""
    max_queued_per_project: int = 10_000
    """Background jobs of one project that may wait; more are refused."""

    direction: Direction = Direction.FORWARD
    """Forward to the end, backward to the start, or both, from each object's prompts."""
    frame_limit: int | None = None
    """So many frames before the first prompt and after the last; None: to the ends."""
    keyframes: str = "thin"
    """"thin": as few as keep the editor's box right; "all": one a frame."""
    keyframe_min_iou: float = 0.9
    """How close a thinned box stays to the mask's, in (0, 1]."""
    max_brush_regions: int = 100
    """BrushLabels regions in one answer; the editor gets slow with more."""
    max_bitmask_regions: int = 300
    """The same for all other regions on frames."""
    max_prediction_regions: int = 1000
    """Regions on frames in a prediction that is stored."""

    def __post_init__(self) -> None:
        _check_name("model", self.model)
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype!r} must be one of {_DTYPES}")
        if self.keyframes not in _KEYFRAMES:
            raise ValueError(f"keyframes={self.keyframes!r} must be one of {_KEYFRAMES}")
        if not 0 < self.keyframe_min_iou <= 1:
            raise ValueError(
                f"keyframe_min_iou={self.keyframe_min_iou!r} must be above 0 and at most 1"
            )
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value!r} must be above 0")
        if self.max_download_bytes > self.media_cache_bytes:
            raise ValueError(
                f"max_download_bytes={self.max_download_bytes!r} must be at most "
                f"media_cache_bytes={self.media_cache_bytes!r}"
            )
