"""`sam2-label-studio project`: projects of ours in Label Studio."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any, Mapping

from backend.commands.options import add_label_studio_options, with_options
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient

_TITLE = "SAM 2"
_PREVIEW_LINK = re.compile(r"(/preview\.mp4\?)(?:key=[\w.-]*&amp;)?src=", re.ASCII)
_BACKEND_URL = "http://localhost:9090"
_INSTRUCTIONS = {
    "video": "Draw a box around an object, choose its label: the box follows it. Or draw, wait "
    "until it is saved, write a command (track, back, both, help) and press Enter.",
    "frames": "Switch Auto-Annotation and Auto-Accept on. Click an object with the smart key "
    "point (Alt-click: not this), or draw a smart rectangle: masks come on all frames.",
}


def add_project(commands: Any) -> None:
    parser = commands.add_parser("project", help="make or connect a Label Studio project")
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    create = actions.add_parser(
        "create", help="a project with label config, model connection and webhook",
    )
    create.add_argument("name", help="the project's title")
    create.add_argument(
        "--config", required=True, choices=["video", "frames", "both", "video-preview"],
        help="what a task shows: the video, its frames as images, both, or the video beside one "
        "with the masks drawn over it",
    )
    create.add_argument(
        "--labels", required=True, type=_labels, metavar="A,B,...", help="what objects may be"
    )
    create.add_argument(
        "--masks", default="BrushLabels", choices=["BrushLabels", "BitmaskLabels"],
        help="what masks on frames are kept in; bitmasks carry more frames an answer",
    )
    create.add_argument("--menu", action="store_true", help="a menu for the direction too")
    create.add_argument(
        "--preview-url", metavar="URL",
        help="video-preview: this service, as people's browsers see it; default that of "
        "--backend-url",
    )
    create.add_argument("--no-backend", action="store_true", help="connect no model")
    _add_backend_options(create)
    create.set_defaults(run=_create)

    connect = actions.add_parser("connect", help="connect this service to an existing project")
    connect.add_argument("project", type=int, metavar="N", help="the project's number")
    _add_backend_options(connect)
    connect.set_defaults(run=_connect)


def _add_backend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend-url", default=_BACKEND_URL, metavar="URL",
        help=f"this service, as Label Studio's machine sees it; default {_BACKEND_URL}",
    )
    add_label_studio_options(parser)


def _labels(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _create(options: argparse.Namespace, settings: Settings) -> int:
    from backend.label_configs import ConfigKind, label_config
    from backend.label_studio_client import LabelStudioClient, LabelStudioError

    settings = with_options(settings, options)
    client = LabelStudioClient.from_settings(settings)
    backend_url = options.backend_url.rstrip("/")
    kind = ConfigKind(options.config)
    has_preview = kind is ConfigKind.VIDEO_PREVIEW
    if options.preview_url is not None and not has_preview:
        raise ValueError(f"--preview-url goes with --config video-preview, not with {kind}")
    preview_url = f"{(options.preview_url or backend_url).rstrip('/')}/preview.mp4?src=$video"
    xml = label_config(
        kind, options.labels, masks=options.masks, has_menu=options.menu,
        preview_url=preview_url if has_preview else None,
    )
    parts = ["video"] * kind.has_video + ["frames"] * kind.has_frames
    project = client.create_project(
        options.name,
        xml,
        # "Retrieve predictions when loading a task automatically".
        evaluate_predictions_automatically=True,
        show_collab_predictions=True,
        expert_instruction=" ".join(_INSTRUCTIONS[part] for part in parts),
    )
    project_id = project["id"]
    print(f"project {project_id}, {options.name!r}, config {kind}")
    try:
        if has_preview:
            _renew_key(client, project_id, xml, settings)
        if not options.no_backend:
            _connect_model(client, project_id, backend_url)
    except LabelStudioError as error:
        print(
            f"sam2-label-studio: {error}\nThe project is there, without the model. When that is "
            f"mended: sam2-label-studio project connect {project_id} --backend-url {backend_url}",
            file=sys.stderr,
        )
        return 1
    finally:
        print(f"{client.url}/projects/{project_id}/data")
    return 0


def _connect(options: argparse.Namespace, settings: Settings) -> int:
    from backend.label_studio_client import LabelStudioClient
    from converters.label_studio.config import parse_label_config

    settings = with_options(settings, options)
    client = LabelStudioClient.from_settings(settings)
    project = client.project(options.project)
    config = parse_label_config(project["label_config"])  # refused here, not at the first task
    for reason in config.ignored:
        print(f"not served: {reason}", file=sys.stderr)
    _connect_model(client, options.project, options.backend_url.rstrip("/"))
    _renew_key(client, options.project, project["label_config"], settings)
    if not project.get("evaluate_predictions_automatically"):
        client.update_project(options.project, evaluate_predictions_automatically=True)
        print("predictions are now retrieved when a task is opened")
    print(f"{client.url}/projects/{options.project}/data")
    return 0


def _renew_key(
    client: LabelStudioClient, project_id: int, xml: str, settings: Settings
) -> None:
    """Give the config's preview link, if it has one, a new key: it is made of the project's id."""
    from backend.link_keys import DEFAULT_DAYS, make_key

    if not _PREVIEW_LINK.search(xml):
        return
    key = make_key(settings, project_id)
    renewed = _PREVIEW_LINK.sub(lambda link: f"{link[1]}key={key}&amp;src=", xml)
    client.update_project(project_id, label_config=renewed)
    print(
        f"preview link: holds for {DEFAULT_DAYS:.0f} days; the service must have this data "
        f"folder, {settings.data_folder}, or this SAM2_LINK_SECRET"
    )


def _connect_model(client: LabelStudioClient, project_id: int, url: str) -> None:
    """Connected once, interactive, its webhook there; whatever was there before."""
    backends = client.ml_backends(project_id)
    ours = [backend for backend in backends if _same(backend, url)]
    if not ours:
        backend = client.connect_backend(project_id, url, _TITLE)
        print(f"model {url}: {backend.get('readable_state', 'connected')}")
    elif not ours[0].get("is_interactive"):
        client.update_backend(ours[0]["id"], is_interactive=True)
        print(f"model {url}: was connected, is now interactive too")
    else:
        print(f"model {url}: was connected already")
    others = [b for b in backends if b.get("is_interactive") and not _same(b, url)]
    if others:
        print(
            f"model {others[0].get('url')} is interactive too and comes first: Label Studio asks "
            "that one alone; switch its interactive preannotations off in Settings, Model",
            file=sys.stderr,
        )
    # Label Studio makes one by itself when it connects a model, for all actions.
    webhook_url = f"{url}/webhook"
    webhooks = client.webhooks(project_id)
    if any(_same(hook, webhook_url) and hook.get("is_active") for hook in webhooks):
        print(f"webhook {webhook_url}: there")
    else:
        client.create_webhook(project_id, webhook_url)
        print(f"webhook {webhook_url}: made")


def _same(item: Mapping[str, Any], url: str) -> bool:
    return str(item.get("url", "")).rstrip("/") == url
