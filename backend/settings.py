"""What an operator can set. The only file of the backend that reads the environment."""

from __future__ import annotations

import math
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, TypeVar
from urllib.parse import urlsplit

from converters.types import Direction
from sam2_model.checkpoints import cache_folder

_MIB = 2**20
_SECRETS = ("label_studio_api_key", "basic_auth_password", "api_tokens", "link_secret", "queue")
_DTYPES = ("float32", "bfloat16", "float16")
_KEYFRAMES = ("thin", "all")
_LOG_FORMATS = ("text", "json")
_QUEUE_SCHEMES = ("redis", "rediss", "unix")
_STORAGE_KEYS = ("AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")
"""What the names of variables begin with that hold the storage's keys."""
_LEAST_SECRET_CHARACTERS = 32
_LEAST_TOKEN_CHARACTERS = 16
_HOST = re.compile(r"[^\s/@?#]+")
_HOST_NAME = re.compile(r"[a-z0-9_.-]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]-]+")

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

    basic_auth_user: str | None = None
    """Who may ask this service, with `basic_auth_password`; None: everyone who reaches it."""
    basic_auth_password: str | None = None
    """Label Studio sends it when the model's connection has it. Secret."""
    api_tokens: tuple[str, ...] = ()
    """Programs may ask with any of them (`Authorization: Bearer TOKEN`), beside those who
    know the password; at least 16 visible characters each, no comma. Secret."""

    max_request_bytes: int = 250 * _MIB
    """Label Studio's own limit."""
    max_webhook_bytes: int = 64 * _MIB
    """Of one webhook: an annotation, its task and project."""
    request_seconds: float = 20.0
    """How long a request's head and body may take to come; large ones longer, at 64 KiB a
    second."""
    max_waiting_requests: int = 8
    """/predict calls at once; more are refused. Below the server's threads, so
    that /health always finds a free one."""
    answer_seconds: float = 90.0
    """Tracking stops and answers after this; Label Studio gives up after 100 s."""
    open_seconds: float = 2.0
    """The same for a batch of one task: Label Studio asks so when a person opens a task,
    and shows nothing until it is answered. The rest is posted as a prediction."""
    max_frames: int = 100_000
    """Frames of one video."""
    max_pixels: int = 64_000_000
    """Of one frame, width times height; in millions."""
    decoder_memory_bytes: int = 4096 * _MIB
    """For decoding one video, in a process of its own; a file that needs more is refused."""
    decoder_open_seconds: float = 600.0
    """Until a video's frames are known; some formats are decoded once for that."""
    decoder_frame_seconds: float = 60.0
    """Until one frame is decoded; a decoder that takes longer is ended."""
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
    queue: str | None = None
    """"redis://host:6379/1", "rediss://..." or "unix://...": jobs are kept there, and run by
    `sam2-label-studio worker`; a database of its own. None: this process runs them
    (docs/scaling.md). May hold a password, so it is shown nowhere. Secret."""
    storage: str | None = None
    """With `queue`: where the results' bodies lie, a folder that all processes have or what
    fsspec takes ("s3://bucket/prefix"), without a password; None: Redis."""
    save_seconds: float = 20.0
    """How often a running job keeps what it has tracked, for another to go on with should
    its process die: in `data_folder`, with `queue` in `storage` or Redis. A few MB an object."""
    window_frames: int = 2000
    """With `queue`: a video is shared by several workers, in windows of at least so many
    frames that begin where a person has prompted all objects (docs/scaling.md)."""
    max_result_bytes: int = 1024 * _MIB
    """Results kept, for equal requests and previews; the longest unused go first."""
    link_secret: str | None = None
    """Signs the keys of previews and panels; None: one in the data folder. To be set where
    `project create` runs with another data folder than the service. Secret."""
    key_requests_per_second: float = 200.0
    """For all who use one such key together; bursts of five times as many may be.
    What opens a video, saves or exports counts as 20."""
    preview_cache_bytes: int = 4096 * _MIB
    """For videos with masks drawn in; the longest unused go first."""
    browser_origins: tuple[str, ...] = ()
    """Where people's browsers have Label Studio ("https://labels.example.com"), when that
    is not `label_studio_url`: its pages may show previews and the panel."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that this service is asked under ("sam2.example.com"), where neither password nor
    tokens are set: others that a stranger may own are refused (docs/security.md). A page of
    one of them may change something here."""
    job_days: float = 30.0
    """How long finished jobs are listed."""
    max_queued_per_project: int = 10_000
    """Background jobs of one project that may wait; more are refused."""
    max_queued: int = 100_000
    """The same of all projects together; batches take half of them at most."""

    training_steps: int = 400
    """Steps of a fine-tuning that Label Studio starts, at most."""

    direction: Direction = Direction.FORWARD
    """Forward to the end, backward to the start, or both, from each object's prompts."""
    frame_limit: int | None = None
    """So many frames before the first prompt and after the last; None: to the ends."""
    stop_lost_frames: int | None = None
    """An object that has been lost for so many frames is given up; None: never."""
    stop_area_share: float | None = None
    """So is one whose mask covers more than this share of the frame, in (0, 1]; None: never."""
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

    max_sessions: int = 8
    """Interactive sessions open at once, each with a video; more are refused."""
    session_idle_seconds: float = 1800.0
    """A session that nobody has used for so long is closed; asking for it opens it again."""
    session_days: float = 30.0
    """How long a closed session is kept."""
    max_stored_sessions: int = 500
    """Sessions kept, open and closed; of the closed ones the longest unused go first."""
    max_session_bytes: int = 4096 * _MIB
    """On disk, for the prompts and masks of all sessions; the longest unused closed ones go
    first, an open one never."""
    session_memory_bytes: int = 4096 * _MIB
    """On disk, for what the model remembers of all sessions, so that one that is opened again
    tracks on as if it had never been closed; the longest unused go first."""
    max_session_streams: int = 8
    """Streams of results at once, each of which takes a thread."""

    log_format: str = "text"
    """"text": lines for people; "json": an object a line, for machines."""
    stop_seconds: float = 20.0
    """How long a stop may take (SIGTERM): those who wait are answered, running jobs put
    back. Below the 30 s after which Kubernetes kills; Docker kills after 10 s unless told."""

    def __post_init__(self) -> None:
        _check_name("model", self.model)
        if self.dtype is not None and self.dtype not in _DTYPES:
            raise ValueError(f"dtype={self.dtype!r} must be one of {_DTYPES}")
        if self.log_format not in _LOG_FORMATS:
            raise ValueError(f"log_format={self.log_format!r} must be one of {_LOG_FORMATS}")
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
        if self.frame_limit is not None and self.frame_limit < 1:
            raise ValueError(f"frame_limit={self.frame_limit!r} must be at least 1, or None")
        if self.max_download_bytes > self.media_cache_bytes:
            raise ValueError(
                f"max_download_bytes={self.max_download_bytes!r} must be at most "
                f"media_cache_bytes={self.media_cache_bytes!r}"
            )
        if self.stop_lost_frames is not None and self.stop_lost_frames < 1:
            raise ValueError(
                f"stop_lost_frames={self.stop_lost_frames!r} must be at least 1, or None"
            )
        if self.stop_area_share is not None and not 0 < self.stop_area_share <= 1:
            raise ValueError(
                f"stop_area_share={self.stop_area_share!r} must be above 0 and at most 1, or None"
            )
        for host in self.allow_private_media_hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"allow_private_media_hosts has {host!r}, must be 'host' or 'host:port'"
                )
            _check_port("allow_private_media_hosts", f"//{host}")
        object.__setattr__(self, "direction", _direction(self.direction))
        object.__setattr__(
            self, "allowed_hosts", tuple(_host_name(text) for text in self.allowed_hosts)
        )
        object.__setattr__(self, "label_studio_url", _base_url(self.label_studio_url))
        object.__setattr__(
            self, "browser_origins", tuple(_origin(text) for text in self.browser_origins)
        )
        _check_key(self.label_studio_api_key)
        _check_basic_auth(self.basic_auth_user, self.basic_auth_password)
        _check_tokens(self.api_tokens)
        _check_link_secret(self.link_secret)
        _check_queue(self.queue)
        _check_storage(self.storage)
        if self.storage is not None and self.queue is None:
            raise ValueError(
                f"storage={self.storage!r} is set but queue is not: without one, results are "
                "kept in data_folder"
            )
        if self.label_studio_api_key and not self.label_studio_url:
            raise ValueError(
                "label_studio_api_key is set but label_studio_url is not: the key is "
                "sent to that host alone"
            )

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in self.shown())
        return f"Settings({', '.join(shown)})"

    def shown(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of every setting, as it may be printed: *** for a secret one."""
        for item in fields(self):
            value = getattr(self, item.name)
            yield item.name, "***" if item.name in _SECRETS and value else value

    @property
    def host_names(self) -> frozenset[str]:
        """The names that the settings give this service or Label Studio; in lower case."""
        origins = [urlsplit(origin).hostname or "" for origin in self.label_studio_origins]
        return frozenset(origins) | frozenset(self.allowed_hosts)

    @property
    def label_studio_origins(self) -> tuple[str, ...]:
        """Whose pages may show what is made for them, as browsers name them; sorted."""
        origins = set(self.browser_origins)
        if self.label_studio_url is not None:
            parts = urlsplit(self.label_studio_url.lower())
            default_port = {"http": ":80", "https": ":443"}[parts.scheme]
            origins.add(f"{parts.scheme}://{parts.netloc.removesuffix(default_port)}")
        return tuple(sorted(origins))

    def task_page(self, project_id: int, task_id: int) -> str:
        """Label Studio's page for a task, as people's browsers have it."""
        url = self.label_studio_url or ""
        if self.browser_origins:
            url = self.browser_origins[0] + urlsplit(url).path
        return f"{url}/projects/{project_id}/data?task={task_id}"

    @property
    def model_version(self) -> str:
        """What predictions are stored under; known before the model is loaded."""
        if self.checkpoint is None:
            return f"sam2:{self.model}"
        return f"sam2:{self.model}:{Path(self.checkpoint).name}"

    @property
    def tracking_settings(self) -> dict[str, Any]:
        """Every setting that changes an answer; none of them is secret."""
        names = (
            "model_version", "dtype", "direction", "frame_limit", "keyframes",
            "stop_lost_frames", "stop_area_share", "keyframe_min_iou", "max_brush_regions",
            "max_bitmask_regions", "max_prediction_regions",
        )
        values = {name: getattr(self, name) for name in names}
        return values | ({"window_frames": self.window_frames} if self.queue else {})

    @property
    def tracking_fingerprint(self) -> str:
        """Changes with them."""
        return repr(list(self.tracking_settings.values()))

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not be shown anywhere."""
        values = [getattr(self, name) for name in _SECRETS]
        texts = [(value,) if isinstance(value, str) else value or () for value in values]
        return tuple(text for several in texts for text in several if text)

    def access_variables(self) -> dict[str, str]:
        """Who may ask, as variables, for a service of the same operator; holds secrets."""
        given = {
            "SAM2_BASIC_AUTH_USER": self.basic_auth_user,
            "SAM2_BASIC_AUTH_PASSWORD": self.basic_auth_password,
            "SAM2_API_TOKENS": ",".join(self.api_tokens),
            "SAM2_LINK_SECRET": self.link_secret,
        }
        return {name: value for name, value in given.items() if value}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings from variables; one that is empty or missing leaves the default.

        `SAM2_SETTINGS` may name a TOML file with the same names; the environment's
        own variables go before it.

        Args:
            environment: default the process's own.

        Raises:
            ValueError: a value that breaks its rule; names the variable or field. A
                file that is none, or with a name that is no setting.
            OSError: the file cannot be read.
        """
        environment = os.environ if environment is None else environment
        file = environment.get(_FILE_VARIABLE, "").strip()
        filed = _read_file(Path(file).expanduser()) if file else {}
        given: dict[str, Any] = {}
        for variable, (name, read) in _VARIABLES.items():
            text = environment.get(variable, "").strip() or filed.get(variable, "")
            if text:
                try:
                    given[name] = read(text)
                except ValueError as error:
                    raise ValueError(f"{variable}={text!r} {error}") from None
        return cls(**given)


def variable_names() -> tuple[str, ...]:
    """The environment variables that are read."""
    return tuple(_VARIABLES)


def environment_without_secrets() -> dict[str, str]:
    """The process's own environment, for a program that needs no key of ours."""
    secret = {name for name, (field_name, _) in _VARIABLES.items() if field_name in _SECRETS}
    # A user without a password, and a storage without a queue, are none of the settings that
    # may be.
    secret |= {"SAM2_BASIC_AUTH_USER", "SAM2_STORAGE"}
    return {
        name: value for name, value in os.environ.items()
        if name not in secret and not name.startswith(_STORAGE_KEYS)
    }


def environment_with(variables: Mapping[str, str]) -> dict[str, str]:
    """The same, with the variables that such a program is to have."""
    return {**environment_without_secrets(), **variables}


_POSITIVE = (
    "media_cache_bytes", "media_fresh_seconds", "max_download_bytes", "download_seconds",
    "max_request_bytes", "max_webhook_bytes", "request_seconds", "max_waiting_requests",
    "answer_seconds", "open_seconds", "max_frames", "max_pixels", "decoder_memory_bytes",
    "decoder_open_seconds", "decoder_frame_seconds", "max_objects", "max_brush_regions",
    "max_bitmask_regions",
    "max_prediction_regions", "kept_states", "kept_state_seconds", "feature_cache_bytes",
    "max_result_bytes", "preview_cache_bytes", "job_days", "max_queued_per_project", "max_queued",
    "save_seconds", "window_frames", "training_steps", "max_sessions", "session_idle_seconds", "session_days",
    "session_memory_bytes", "max_stored_sessions", "max_session_bytes",
    "max_session_streams", "stop_seconds", "key_requests_per_second",
)


def _number(convert: Callable[[str], _Value], what: str) -> Callable[[str], _Value]:
    def read(text: str) -> _Value:
        try:
            return convert(text)
        except ValueError:
            raise ValueError(f"must be {what}") from None

    return read


_whole = _number(int, "a whole number")
_real = _number(float, "a number")


def _mebibytes(text: str) -> int:
    return _whole(text) * _MIB


def _millions(text: str) -> int:
    return _whole(text) * 1_000_000


def _folder(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(_folder(part) for part in text.split(os.pathsep) if part)


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


_VARIABLES: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "SAM2_MODEL": ("model", str),
    "SAM2_CHECKPOINT": ("checkpoint", str),
    "SAM2_DEVICE": ("device", str),
    "SAM2_DTYPE": ("dtype", str),
    "LABEL_STUDIO_URL": ("label_studio_url", str),
    "LABEL_STUDIO_API_KEY": ("label_studio_api_key", str),
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": ("label_studio_local_files_root", _folder),
    "SAM2_MEDIA_ROOTS": ("media_roots", _folders),
    "SAM2_MEDIA_CACHE": ("media_cache", _folder),
    "SAM2_MEDIA_CACHE_MIB": ("media_cache_bytes", _mebibytes),
    "SAM2_MEDIA_FRESH_SECONDS": ("media_fresh_seconds", _real),
    "SAM2_ALLOW_PRIVATE_MEDIA_HOSTS": ("allow_private_media_hosts", _list),
    "SAM2_MAX_DOWNLOAD_MIB": ("max_download_bytes", _mebibytes),
    "SAM2_DOWNLOAD_SECONDS": ("download_seconds", _real),
    "SAM2_BASIC_AUTH_USER": ("basic_auth_user", str),
    "SAM2_BASIC_AUTH_PASSWORD": ("basic_auth_password", str),
    "SAM2_API_TOKENS": ("api_tokens", _list),
    "SAM2_ALLOWED_HOSTS": ("allowed_hosts", _list),
    "SAM2_TRAINING_STEPS": ("training_steps", _whole),
    "SAM2_MAX_REQUEST_MIB": ("max_request_bytes", _mebibytes),
    "SAM2_MAX_WEBHOOK_MIB": ("max_webhook_bytes", _mebibytes),
    "SAM2_REQUEST_SECONDS": ("request_seconds", _real),
    "SAM2_MAX_WAITING_REQUESTS": ("max_waiting_requests", _whole),
    "SAM2_ANSWER_SECONDS": ("answer_seconds", _real),
    "SAM2_OPEN_SECONDS": ("open_seconds", _real),
    "SAM2_MAX_FRAMES": ("max_frames", _whole),
    "SAM2_MAX_MEGAPIXELS": ("max_pixels", _millions),
    "SAM2_DECODER_MEMORY_MIB": ("decoder_memory_bytes", _mebibytes),
    "SAM2_DECODER_OPEN_SECONDS": ("decoder_open_seconds", _real),
    "SAM2_DECODER_FRAME_SECONDS": ("decoder_frame_seconds", _real),
    "SAM2_MAX_OBJECTS": ("max_objects", _whole),
    "SAM2_DIRECTION": ("direction", str),
    "SAM2_KEPT_STATES": ("kept_states", _whole),
    "SAM2_KEPT_STATE_SECONDS": ("kept_state_seconds", _real),
    "SAM2_FEATURE_CACHE_MIB": ("feature_cache_bytes", _mebibytes),
    "SAM2_DATA_FOLDER": ("data_folder", _folder),
    "SAM2_QUEUE": ("queue", str),
    "SAM2_STORAGE": ("storage", str),
    "SAM2_SAVE_SECONDS": ("save_seconds", _real),
    "SAM2_WINDOW_FRAMES": ("window_frames", _whole),
    "SAM2_MAX_RESULT_MIB": ("max_result_bytes", _mebibytes),
    "SAM2_LINK_SECRET": ("link_secret", str),
    "SAM2_KEY_REQUESTS_PER_SECOND": ("key_requests_per_second", _real),
    "SAM2_PREVIEW_CACHE_MIB": ("preview_cache_bytes", _mebibytes),
    "SAM2_BROWSER_ORIGINS": ("browser_origins", _list),
    "SAM2_JOB_DAYS": ("job_days", _real),
    "SAM2_MAX_QUEUED_PER_PROJECT": ("max_queued_per_project", _whole),
    "SAM2_MAX_QUEUED": ("max_queued", _whole),
    "SAM2_FRAME_LIMIT": ("frame_limit", _whole),
    "SAM2_MAX_PREDICTION_REGIONS": ("max_prediction_regions", _whole),
    "SAM2_STOP_LOST_FRAMES": ("stop_lost_frames", _whole),
    "SAM2_STOP_AREA_SHARE": ("stop_area_share", _real),
    "SAM2_MAX_SESSIONS": ("max_sessions", _whole),
    "SAM2_SESSION_IDLE_SECONDS": ("session_idle_seconds", _real),
    "SAM2_SESSION_DAYS": ("session_days", _real),
    "SAM2_MAX_STORED_SESSIONS": ("max_stored_sessions", _whole),
    "SAM2_MAX_SESSION_MIB": ("max_session_bytes", _mebibytes),
    "SAM2_SESSION_MEMORY_MIB": ("session_memory_bytes", _mebibytes),
    "SAM2_MAX_SESSION_STREAMS": ("max_session_streams", _whole),
    "SAM2_LOG_FORMAT": ("log_format", str),
    "SAM2_STOP_SECONDS": ("stop_seconds", _real),
    "SAM2_KEYFRAMES": ("keyframes", str),
    "SAM2_KEYFRAME_MIN_IOU": ("keyframe_min_iou", _real),
    "SAM2_MAX_BRUSH_REGIONS": ("max_brush_regions", _whole),
    "SAM2_MAX_BITMASK_REGIONS": ("max_bitmask_regions", _whole),
}
"""Variable -> field, and how its text is read."""


_FILE_VARIABLE = "SAM2_SETTINGS"


def _read_file(path: Path) -> dict[str, str]:
    """A TOML file of settings, as the environment would have them."""
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{_FILE_VARIABLE}={str(path)!r} must be a TOML file: {error}") from None
    texts = {}
    for name, value in values.items():
        if name not in _VARIABLES:
            raise ValueError(f"{path}: {name!r} is no setting")
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in items):
            raise ValueError(f"{path}: {name} must be text, a number, or a list of texts")
        separator = os.pathsep if name == "SAM2_MEDIA_ROOTS" else ","
        texts[name] = separator.join(str(item).strip() for item in items)
    return texts


def _check_name(name: str, value: str) -> None:
    if not value or value != value.strip():
        raise ValueError(f"{name}={value!r} must not be empty or have spaces around it")


def _direction(value: object) -> Direction:
    try:
        return Direction(value)
    except ValueError:
        names = [str(direction) for direction in Direction]
        raise ValueError(f"direction={value!r} must be one of {names}") from None


def _check_port(name: str, url: str) -> None:
    """Raises ValueError for a port that there is not; other mistakes are told elsewhere."""
    host = url.partition("//")[2].partition("/")[0].rpartition("@")[2]
    written = re.fullmatch(r"(?:[^:\[\]]*|\[[^\]]*\]):(\d+)", host)
    if written is not None and not 1 <= int(written.group(1)[:9]) <= 65535:
        raise ValueError(f"{name} has port {written.group(1):.20}, must be from 1 to 65535")


def _base_url(url: str | None) -> str | None:
    """Without a slash at the end."""
    if not url:
        return None
    _check_port("label_studio_url", url)
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        shown = "" if "@" in url else f"={url.partition('?')[0]!r:.200}"  # no passwords
        raise ValueError(f"label_studio_url{shown} must be http(s)://host[:port][/path]")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "label_studio_url must not hold a user or password; the key goes into "
            "label_studio_api_key"
        )
    return url.rstrip("/")


def _origin(text: str) -> str:
    """As browsers write it: without a slash at the end."""
    origin = text.rstrip("/").lower()
    _check_port("browser_origins", origin)
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"browser_origins has {text!r}, must be http(s)://host[:port]")
    return origin


def _host_name(text: str) -> str:
    """In lower case, without a port."""
    name = text.lower().rstrip(".")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f"allowed_hosts has {text!r}, must be a host's name without a port")
    return name


def _check_link_secret(secret: str | None) -> None:
    if secret is not None and len(secret) < _LEAST_SECRET_CHARACTERS:
        raise ValueError(f"link_secret must have at least {_LEAST_SECRET_CHARACTERS} characters")


def _check_queue(url: str | None) -> None:
    if url is not None and urlsplit(url).scheme not in _QUEUE_SCHEMES:
        raise ValueError(
            "queue must be redis://host[:port][/database], rediss://... or unix://path"
        )
    if url is not None:
        _check_port("queue", url)


def _check_storage(url: str | None) -> None:
    # It is shown where something is wrong with it, so it is none of the secrets.
    if url is not None and re.match(r"[^/]*//[^/]*:[^/]*@", url):
        raise ValueError(
            "storage must not hold a password: fsspec takes keys from variables and files of its "
            "own"
        )


def _check_key(key: str | None) -> None:
    # http.client names a bad header's value in its error, so it must not come that far.
    if key is not None and not re.fullmatch(r"[!-~]+", key):
        raise ValueError(
            "label_studio_api_key must be visible ASCII characters without spaces"
        )


def _check_tokens(tokens: tuple[str, ...]) -> None:
    for number, token in enumerate(tokens, start=1):
        if not re.fullmatch(rf"[!-+\--~]{{{_LEAST_TOKEN_CHARACTERS},}}", token):
            raise ValueError(
                f"api_tokens: number {number} must have at least {_LEAST_TOKEN_CHARACTERS} visible "
                "ASCII characters, without spaces and commas"
            )


def _check_basic_auth(user: str | None, password: str | None) -> None:
    if (user is None) != (password is None):
        raise ValueError("basic_auth_user and basic_auth_password must both be set, or neither")
    if user is not None and (not user or ":" in user):
        raise ValueError(f"basic_auth_user={user!r} must not be empty or have a ':' in it")
    if password is not None and not password:
        raise ValueError("basic_auth_password must not be empty")
