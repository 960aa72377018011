"""What works and what does not, each finding with what to do about it."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping

from backend.config_links import ConfigLink, links_in
from backend.doctor_queue import queue_findings
from backend.doctor_service import service_findings
from backend.errors import ServiceError
from backend.findings import Finding, Findings, Level, broken, note, ok
from backend.label_configs import has_export_trap, media_videos
from backend.label_studio_client import (
    LabelStudioClient,
    LabelStudioError,
    LabelStudioFailure,
    TokenKind,
)
from backend.link_keys import KeyRefused, check_key
from backend.settings import Settings
from converters.label_studio.config import (
    LabelConfig,
    UnsupportedConfigError,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)

_GIB = 2**30
_LITTLE_FREE_BYTES = 2 * _GIB
_DECODERS = {
    "h264": "H.264",
    "hevc": "H.265",
    "vp9": "VP9",
    "av1": "AV1",
}
_LARGEST_LOOKED_AT_BYTES = 256 * 2**20
_MAX_PROJECTS = 50
_OTHER_CONFIG = (
    "take a config of the README: sam2-label-studio project create makes a project with one"
)
_FEW_DAYS = 30


def examine(
    settings: Settings, *, backend_url: str, with_media: bool = True
) -> Iterator[tuple[str, Findings]]:
    """(title, findings) of each part, looked at as they are asked for.

    Nothing is changed, here or in Label Studio. `with_media` looks into a
    video of each project, and downloads it for that.
    """
    yield "device", device_findings(settings)
    yield "video codecs", codec_findings()
    yield "model", model_findings(settings)
    yield "folders", folder_findings(settings)
    yield "service", service_findings(settings, backend_url)
    yield "queue", queue_findings(settings)
    yield "Label Studio", label_studio_findings(settings, backend_url, with_media=with_media)


# --- this machine ---------------------------------------------------------------


def device_findings(settings: Settings) -> Findings:
    """Device and number type that the model would run in."""
    import torch

    from sam2_model.build import default_device, default_dtype

    yield ok(f"Python {platform.python_version()}, PyTorch {torch.__version__}")
    try:
        device = torch.device(settings.device) if settings.device else default_device()
    except RuntimeError as error:
        yield broken(f"device {settings.device!r}: {error}", "set SAM2_DEVICE to cpu or cuda")
        return
    if device.type == "cuda" and not torch.cuda.is_available():
        yield broken(
            f"device {device} is set, and PyTorch sees no GPU",
            "install the CUDA build of PyTorch and the driver (nvidia-smi must work), or set "
            "SAM2_DEVICE=cpu",
        )
        return
    dtype = settings.dtype or str(default_dtype(device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    yield ok(f"{device} ({name}), {dtype}")
    if device.type == "cpu":
        yield note(
            "there is no GPU: sizes above demo and tiny take seconds a frame",
            "use --model demo or sam2.1_hiera_tiny here, or a machine with a GPU",
        )


def _processor() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"


def codec_findings() -> Findings:
    """What can be read, and whether previews can be played by browsers."""
    import av

    readable = [title for name, title in _DECODERS.items() if _has_codec(av, name, "r")]
    missing = [title for title in _DECODERS.values() if title not in readable]
    yield ok(f"reads {', '.join(readable)}")
    if missing:
        yield note(
            f"does not read {', '.join(missing)}",
            "reinstall PyAV from its wheel (pip install --force-reinstall av), which has them",
        )
    if not any(_has_codec(av, name, "w") for name in ("libx264", "libopenh264")):
        yield note(
            "no H.264 encoder: preview videos are written in a codec that some browsers lack",
            "reinstall PyAV from its wheel",
        )


def _has_codec(av: Any, name: str, mode: str) -> bool:
    try:
        av.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def model_findings(settings: Settings) -> Findings:
    """Whether the model's name is known and its weights are here."""
    from sam2_model.build import find_model
    from sam2_model.checkpoints import REMOTE_CHECKPOINTS, cache_folder
    from sam2_model.checkpoints.errors import CheckpointError

    try:
        named = find_model(settings.model)
    except (ValueError, CheckpointError) as error:
        yield broken(str(error), "set SAM2_MODEL to one of these names")
        return
    if settings.checkpoint is not None:
        file = Path(settings.checkpoint).expanduser()
        if file.is_file():
            yield ok(f"{settings.model_version}: {file}")
        elif file.is_absolute():
            yield broken(f"checkpoint {file} is not there", "mend SAM2_CHECKPOINT, or unset it")
        else:
            yield ok(f"{settings.model_version}: {settings.checkpoint}, fetched at the first use")
        return
    remote = REMOTE_CHECKPOINTS.get(named.config.name)
    if named.weights is not None or remote is None:
        yield ok(f"{settings.model_version}: {named.weights or 'in the package'}")
    elif (cache_folder() / remote.file_name).is_file():
        yield ok(f"{settings.model_version}: {cache_folder() / remote.file_name}")
    else:
        size_mib = (remote.size_bytes or 0) // 2**20
        yield note(
            f"{settings.model_version} is not downloaded yet ({size_mib} MiB)",
            f"it comes at the first use; without internet put {remote.file_name} from another "
            f"machine into {cache_folder()}",
        )


def folder_findings(settings: Settings) -> Findings:
    """Cache folders can be written and have room; the folders of local files are there."""
    from sam2_model.checkpoints import cache_folder

    folders = {
        "SAM2_CACHE": cache_folder(),
        "SAM2_MEDIA_CACHE": settings.media_cache,
        "SAM2_DATA_FOLDER": settings.data_folder,
    }
    for name, folder in folders.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        problem = _not_writable(existing)
        if problem:
            yield broken(f"{folder} cannot be written: {problem}", f"set {name} to another folder")
            continue
        free = shutil.disk_usage(existing).free
        text = f"{folder}: {free / _GIB:.1f} GiB free"
        if free < _LITTLE_FREE_BYTES:
            yield note(text, f"make room, or set {name} to a folder on a larger disk")
        else:
            yield ok(text)
    root = settings.label_studio_local_files_root
    for folder in [*settings.media_roots, *([root] if root else [])]:
        if folder.is_dir():
            yield ok(f"{folder}: there")
        else:
            yield broken(f"{folder} is not there", "mend SAM2_MEDIA_ROOTS or the local files root")


def _not_writable(folder: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


# --- Label Studio -----------------------------------------------------------------


def label_studio_findings(
    settings: Settings, backend_url: str, *, with_media: bool = True
) -> Findings:
    """The server, the key, and each project that the key's user sees."""
    if not settings.label_studio_url:
        yield note(
            "LABEL_STUDIO_URL is not set: uploads and local files cannot be fetched",
            "set LABEL_STUDIO_URL, and LABEL_STUDIO_API_KEY to a key of Account & Settings",
        )
        return
    if not settings.label_studio_api_key:
        yield broken(
            f"{settings.label_studio_url} is set without a key",
            "set LABEL_STUDIO_API_KEY to a key of Account & Settings",
        )
        return
    client = LabelStudioClient.from_settings(settings)
    try:
        user = client.who_am_i()
        version = client.version()
    except LabelStudioError as error:
        if error.failure is LabelStudioFailure.NOT_FOUND:  # every Label Studio has these pages
            yield broken(
                f"{client.url} answers, and is no Label Studio",
                "set LABEL_STUDIO_URL to Label Studio's address, with its path if it has one",
            )
        else:
            yield _of_error(error)
        return
    yield ok(f"{client.url}: version {version.get('release', 'unknown')}")
    yield ok(f"the {client.token_kind} works, for {user.get('email', 'its user')}")
    if client.token_kind is TokenKind.LEGACY:
        yield note(
            "legacy tokens are off in fresh installs of Label Studio",
            "a personal access token (Account & Settings) works in either",
        )
    yield from _address_findings(client, backend_url)
    yield from _project_findings(client, settings, backend_url, with_media)


def _of_error(error: LabelStudioError, level: Level = Level.BROKEN) -> Finding:
    """Its detail ends with what to do."""
    detail, _, fix = error.detail.rpartition(": ")
    return Finding(level, detail or error.detail, fix)


def _address_findings(client: LabelStudioClient, backend_url: str) -> Findings:
    try:
        is_blocked = client.blocks_address(backend_url)
    except LabelStudioError as error:
        yield _of_error(error, Level.NOTE)
        return
    if is_blocked:
        yield broken(
            f"Label Studio refuses models at {backend_url}: a private or loopback address",
            "start Label Studio with ML_BLOCK_LOCAL_IP=false, and SSRF_PROTECTION_ENABLED=false "
            "for its webhook",
        )
    else:
        yield ok(f"Label Studio takes models at {backend_url}")


def _project_findings(
    client: LabelStudioClient, settings: Settings, backend_url: str, with_media: bool
) -> Findings:
    number = 0
    for number, project in enumerate(client.projects(), start=1):
        if number > _MAX_PROJECTS:
            yield note(
                f"only the newest {_MAX_PROJECTS} projects were looked at",
                "of another one see Settings, Model in Label Studio",
            )
            return
        name = f"project {project['id']} {project.get('title', '')!r}"
        try:
            for finding in _one_project(client, project, settings, backend_url, with_media):
                yield dataclasses.replace(finding, text=f"{name}: {finding.text}")
        except LabelStudioError as error:
            yield _of_error(error)
    if number == 0:
        yield note("there is no project", "sam2-label-studio project create NAME --config video "
                    "--labels A,B")


def _one_project(
    client: LabelStudioClient,
    project: Mapping[str, Any],
    settings: Settings,
    backend_url: str,
    with_media: bool,
) -> Findings:
    backends = client.ml_backends(project["id"])
    try:
        config = parse_label_config(project.get("label_config") or "<View/>")
    except UnsupportedConfigError as error:
        if backends:
            yield broken(str(error), _OTHER_CONFIG)
        else:
            yield ok("is not for SAM 2")
        return
    except ValueError as error:
        yield broken(f"its config cannot be read: {error}", "mend the config")
        return
    for reason in config.ignored:
        yield note(f"not served: {reason}", "see the label configs in the README")
    yield from _backend_findings(client, project, backends, backend_url)
    yield from link_findings(project, settings)
    if has_export_trap(config):
        yield broken(
            "Label Studio's exports fail: valueList with KeyPointLabels and no RectangleLabels",
            'add <RectangleLabels name="rectangle" toName="..."> with the same labels',
        )
    if with_media:
        yield from _framerate_findings(client, project, config, settings)


def _backend_findings(
    client: LabelStudioClient,
    project: Mapping[str, Any],
    backends: list[dict[str, Any]],
    backend_url: str,
) -> Findings:
    connect = f"sam2-label-studio project connect {project['id']} --backend-url {backend_url}"
    if not backends:
        yield note("no model is connected", connect)
        return
    for backend in backends:
        state, url = backend.get("readable_state"), backend.get("url")
        if state == "Connected":
            yield ok(f"model {url}: {state}")
        else:
            message = backend.get("error_message") or "no reason given"
            yield broken(
                f"model {url}: {state}: {' '.join(str(message).split())[:200]}",
                "start the service, and see that Label Studio's machine reaches that address",
            )
    if not any(backend.get("is_interactive") for backend in backends):
        yield broken("its model is not used while annotating", connect)
    webhooks = [str(hook.get("url", "")).rstrip("/") for hook in client.webhooks(project["id"])]
    missing = [
        backend.get("url") for backend in backends
        if f"{str(backend.get('url')).rstrip('/')}/webhook" not in webhooks
    ]
    if missing:
        yield note(f"no webhook to {missing[0]}: Submit starts no tracking", connect)
    if not project.get("evaluate_predictions_automatically"):
        yield note(
            "predictions are not retrieved when a task is opened",
            "Settings, Annotation: retrieve predictions when loading a task",
        )


def link_findings(project: Mapping[str, Any], settings: Settings) -> Findings:
    """The config's links to previews and panels: their keys, and whether browsers show them."""
    for link in links_in(project.get("label_config") or ""):
        renew = f"sam2-label-studio project connect {project['id']}"
        try:
            key = check_key(settings, link.key, link.purpose)
        except KeyRefused as error:
            yield broken(
                f"its {link.purpose} shows nothing: {error.detail}",
                f"{renew}, with the service's SAM2_DATA_FOLDER or SAM2_LINK_SECRET",
            )
            continue
        if key.project_id != project["id"]:
            yield broken(
                f"its {link.purpose} has the key of project {key.project_id}", renew
            )
        elif key.days_left < _FEW_DAYS:
            yield note(f"its {link.purpose}'s key holds for {key.days_left:.0f} more days", renew)
        else:
            yield ok(f"its {link.purpose}'s key holds for {key.days_left:.0f} days")
        yield from _framing_findings(link, settings)


def _framing_findings(link: ConfigLink, settings: Settings) -> Findings:
    origins = settings.label_studio_origins
    secure = [origin for origin in origins if origin.startswith("https://")]
    if secure and link.base.startswith("http://"):
        yield broken(
            f"its {link.purpose} is at {link.base}, which browsers refuse inside {secure[0]}",
            "give the service an https address too, and --preview-url or --panel-url",
        )
    else:
        yield ok(f"its {link.purpose} may be shown by pages of {', '.join(origins)}")


def _framerate_findings(
    client: LabelStudioClient,
    project: Mapping[str, Any],
    config: LabelConfig,
    settings: Settings,
) -> Findings:
    """Of the first task's video: whether the editor counts the frames that are there."""
    from backend.imports import framerate_trap
    from backend.media import MediaStore
    from sam2_model.video import VideoDecodeError, open_frame_source

    tags = media_videos(config)
    task = next(iter(client.tasks(project["id"])), None) if tags else None
    if task is None:
        return
    limited = dataclasses.replace(
        settings, max_download_bytes=min(settings.max_download_bytes, _LARGEST_LOOKED_AT_BYTES)
    )
    try:
        path = MediaStore(limited).video_file(
            resolve_value(tags[0].value, task["data"]),
            task_id=task["id"],
            project_id=project["id"],
        )
        with open_frame_source(path) as source:
            trap = framerate_trap(resolve_framerate(tags[0], task["data"]), source.info)
    except (ServiceError, VideoDecodeError, ValueError, OSError) as error:
        yield note(
            f"task {task['id']}: its video cannot be looked at: {error}",
            "mend the task's data, or let this service fetch it: docs/troubleshooting.md",
        )
        return
    if trap is None:
        yield ok(f"task {task['id']}: its frame rate is the editor's")
    else:
        what, _, fix = trap.partition("; ")
        yield broken(f"task {task['id']}: {what}", fix)
