"""`sam2-label-studio project`: projects of ours in Label Studio."""

from __future__ import annotations

import argparse
import base64
import sys
from typing import TYPE_CHECKING, Any, Mapping

from backend.commands.options import add_label_studio_options, with_options
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.label_configs import ConfigKind
    from backend.label_studio_client import LabelStudioClient

_TITLE = "SAM 2"
_BACKEND_URL = "http://localhost:9090"
_INSTRUCTIONS = {
    "video": "Draw a box around an object, choose its label: the box follows it. Or draw, wait "
    "until it is saved, write a command (track, back, both, help) and press Enter.",
    "panel": "Work in the panel beside the video: click on an object there, correct, propagate, "
    "save; then load this page again.",
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
        "--config", required=True, choices=["video", "frames", "both", "video-preview", "video-panel"],
        help="what a task shows: the video, its frames as images, both, the video beside one "
        "with the masks drawn over it, or beside the panel in which people click",
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
    create.add_argument(
        "--panel-url", metavar="URL", help="video-panel: the same for the panel",
    )
    create.add_argument("--no-backend", action="store_true", help="connect no model")
    _add_backend_options(create)
    create.set_defaults(run=_create)

    connect = actions.add_parser("connect", help="connect this service to an existing project")
    connect.add_argument("project", type=int, metavar="N", help="the project's number")
    _add_backend_options(connect)
    connect.set_defaults(run=_connect)
    _add_revoke(actions)


def _add_revoke(actions: Any) -> None:
    revoke = actions.add_parser(
        "revoke", help="end the keys in a project's links, those of copies too",
        description="Keys made up to now no longer open previews or panels of the project. Runs "
        "where the service's data folder is. `project connect N` then puts new ones into the "
        "project's links.",
    )
    revoke.add_argument(
        "project", type=int, metavar="N", help="the project's number; 0: what `open` made"
    )
    revoke.add_argument(
        "--purpose", choices=["preview", "panel"], help="keys of this kind alone; default both"
    )
    revoke.set_defaults(run=_revoke)


def _revoke(options: argparse.Namespace, settings: Settings) -> int:
    from backend.link_keys import KeyPurpose, revoke_keys

    purposes = [KeyPurpose(options.purpose)] if options.purpose else list(KeyPurpose)
    revoke_keys(settings, options.project, purposes)
    print(
        f"project {options.project}: {' and '.join(purposes)} keys made up to now are refused by "
        f"services with the data folder {settings.data_folder}"
    )
    if options.project:
        print(f"new ones: sam2-label-studio project connect {options.project}")
    return 0


def _add_backend_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend-url", default=_BACKEND_URL, metavar="URL",
        help=f"this service, as Label Studio's machine sees it; default {_BACKEND_URL}",
    )
    parser.add_argument(
        "--basic-auth", action="store_true",
        help="Label Studio sends SAM2_BASIC_AUTH_USER and SAM2_BASIC_AUTH_PASSWORD to the service",
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
    basic_auth = _basic_auth(options, settings)
    xml = label_config(
        kind, options.labels, masks=options.masks, has_menu=options.menu,
        preview_url=_link(options, ConfigKind.VIDEO_PREVIEW, "preview", "/preview.mp4?src=$video"),
        panel_url=_link(options, ConfigKind.VIDEO_PANEL, "panel", "/panel?video=$video"),
    )
    has_panel = kind is ConfigKind.VIDEO_PANEL
    parts = ["panel"] * has_panel + ["video"] * kind.has_video + ["frames"] * kind.has_frames
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
        _renew_keys(client, project_id, xml, settings)
        if not options.no_backend:
            _connect_model(client, project_id, backend_url, basic_auth)
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
    basic_auth = _basic_auth(options, settings)
    project = client.project(options.project)
    config = parse_label_config(project["label_config"])  # refused here, not at the first task
    for reason in config.ignored:
        print(f"not served: {reason}", file=sys.stderr)
    _connect_model(client, options.project, options.backend_url.rstrip("/"), basic_auth)
    _renew_keys(client, options.project, project["label_config"], settings)
    if not project.get("evaluate_predictions_automatically"):
        client.update_project(options.project, evaluate_predictions_automatically=True)
        print("predictions are now retrieved when a task is opened")
    print(f"{client.url}/projects/{options.project}/data")
    return 0


def _link(
    options: argparse.Namespace, owner: ConfigKind, name: str, path: str
) -> str | None:
    """The config's link to this service, still without a key; None where it has none.

    Raises ValueError for an address that the config has no use for.
    """
    url = getattr(options, f"{name}_url")
    if options.config != owner:
        if url is not None:
            raise ValueError(f"--{name}-url goes with --config {owner}, not with {options.config}")
        return None
    return (url or options.backend_url).rstrip("/") + path


def _basic_auth(options: argparse.Namespace, settings: Settings) -> tuple[str, str] | None:
    """What Label Studio is to send. Raises ValueError where the settings have nothing."""
    user, password = settings.basic_auth_user, settings.basic_auth_password
    if not options.basic_auth:
        return None
    if user is None or password is None:
        raise ValueError(
            "--basic-auth: set SAM2_BASIC_AUTH_USER and SAM2_BASIC_AUTH_PASSWORD to the service's"
        )
    return user, password


def _renew_keys(
    client: LabelStudioClient, project_id: int, xml: str, settings: Settings
) -> None:
    """Give the config's links, if it has any, new keys: they are made of the project's id."""
    from backend.config_links import links_in, with_new_keys
    from backend.link_keys import DEFAULT_DAYS

    purposes = dict.fromkeys(link.purpose for link in links_in(xml))
    if not purposes:
        return
    client.update_project(project_id, label_config=with_new_keys(xml, settings, project_id))
    for purpose in purposes:
        print(
            f"{purpose} link: holds for {DEFAULT_DAYS:.0f} days, then project connect "
            f"{project_id} renews it; the service must have this data folder, "
            f"{settings.data_folder}, or this SAM2_LINK_SECRET"
        )


def _connect_model(
    client: LabelStudioClient, project_id: int, url: str, basic_auth: tuple[str, str] | None
) -> None:
    """Connected once, interactive, its webhook there; whatever was there before."""
    backends = client.ml_backends(project_id)
    ours = [backend for backend in backends if _same(backend, url)]
    if not ours:
        backend = client.connect_backend(project_id, url, _TITLE, basic_auth=basic_auth)
        print(f"model {url}: {backend.get('readable_state', 'connected')}")
    else:
        _mend_model(client, ours[0], url, basic_auth)
    others = [b for b in backends if b.get("is_interactive") and not _same(b, url)]
    if others:
        print(
            f"model {others[0].get('url')} is interactive too and comes first: Label Studio asks "
            "that one alone; switch its interactive preannotations off in Settings, Model",
            file=sys.stderr,
        )
    _connect_webhook(client, project_id, f"{url}/webhook", basic_auth)


def _mend_model(
    client: LabelStudioClient, backend: Mapping[str, Any], url: str,
    basic_auth: tuple[str, str] | None,
) -> None:
    is_interactive = bool(backend.get("is_interactive"))
    if is_interactive and basic_auth is None:
        print(f"model {url}: was connected already")
        return
    client.update_backend(backend, basic_auth=basic_auth)
    said = ["was connected"] + ["is now interactive too"] * (not is_interactive)
    said += ["has the service's password now"] * (basic_auth is not None)
    print(f"model {url}: {', '.join(said)}")


def _connect_webhook(
    client: LabelStudioClient, project_id: int, url: str, basic_auth: tuple[str, str] | None
) -> None:
    """Label Studio makes one by itself when it connects a model, for all actions."""
    headers = {}
    if basic_auth is not None:
        login = base64.b64encode(":".join(basic_auth).encode()).decode("ascii")
        headers = {"Authorization": f"Basic {login}"}
    there = [
        hook for hook in client.webhooks(project_id) if _same(hook, url) and hook.get("is_active")
    ]
    if not there:
        client.create_webhook(project_id, url, headers=headers)
        print(f"webhook {url}: made")
    elif headers and not headers.items() <= (there[0].get("headers") or {}).items():
        client.update_webhook(there[0], headers={**(there[0].get("headers") or {}), **headers})
        print(f"webhook {url}: there, has the service's password now")
    else:
        print(f"webhook {url}: there")


def _same(item: Mapping[str, Any], url: str) -> bool:
    return str(item.get("url", "")).rstrip("/") == url
