"""A Label Studio server of one's own, from its own virtual environment."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping

from backend.processes import free_port, get_json, running

_DATABASE = "label_studio.sqlite3"


@dataclass(frozen=True, kw_only=True)
class Account:
    """The first user, an administrator; made when the data folder is new."""

    email: str
    password: str = field(repr=False)
    legacy_token: str = field(repr=False)
    """40 hexadecimal digits; refused by a server without `legacy_tokens`."""


@contextlib.contextmanager
def running_label_studio(
    program: Path,
    *,
    account: Account,
    data: Path,
    log: Path,
    port: int | None = None,
    legacy_tokens: bool = True,
    empty_data: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The URL of a server on the loopback address, with SQLite in the data folder.

    It may call an ML backend on the loopback address, which it refuses by
    default, and serves local files below the data folder.

    Args:
        program: the `label-studio` script.
        legacy_tokens: off, as on a fresh install, only personal access tokens work.
        empty_data: a data folder that no server was started on; its empty database saves
            half a minute where `data` has none.
        variables: more for its environment.

    Raises ProcessError as `backend.processes.running` does.
    """
    port = free_port() if port is None else port
    url = f"http://localhost:{port}"
    data.mkdir(parents=True, exist_ok=True)
    if empty_data is not None and not (data / _DATABASE).exists():
        shutil.copy(empty_data / _DATABASE, data / _DATABASE)
    command = [
        str(program), "start", "--no-browser", "--host", url,
        "--internal-host", "127.0.0.1", "--port", str(port), "--data-dir", str(data.absolute()),
    ]
    given = {
        # In the environment and not the command, where every user of the machine sees them.
        "LABEL_STUDIO_USERNAME": account.email,
        "LABEL_STUDIO_PASSWORD": account.password,
        "LABEL_STUDIO_USER_TOKEN": account.legacy_token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": str(legacy_tokens).lower(),
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(data.absolute()),
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        **(variables or {}),
    }

    def is_ready() -> bool:
        return get_json(f"{url}/health")["status"] == "UP"

    with running(command, log=log, is_ready=is_ready, variables=given):
        yield url


def sample_video(program: Path) -> Path:
    """The video inside the package that the program belongs to: an opossum in the snow.

    Raises FileNotFoundError.
    """
    pattern = "lib/python*/site-packages/label_studio/core/static/samples/opossum_snow.mp4"
    for path in program.absolute().parents[1].glob(pattern):
        return path
    raise FileNotFoundError(f"no {pattern} beside {program}")
