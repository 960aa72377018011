"""A real Label Studio with the service connected: `make studio`, and what the e2e tests start.

Projects of one sample are made when the data folder is new: the video with boxes,
beside its masks, beside the panel, and its frames with masks. The sample is a piece of the video that comes
inside the label-studio package.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import secrets
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator, Mapping, Sequence

import av
import numpy as np

from backend.commands.options import port
from backend.label_studio_process import Account, running_label_studio, sample_video
from backend.processes import ProcessError, running_backend
from backend.settings import environment_with
from sam2_model.video import open_frame_source

LABELS = ("Opossum", "Person")
SAMPLE_START, SAMPLE_STOP = 690, 738
"""Frames of the packaged video that show an opossum on a snowboard, in one shot."""
SAMPLE_SIZE = (800, 450)
SAMPLE_FPS = 25

_SPARE_SECONDS = 10.0
_EMAIL = "admin@example.com"
_FRAME_STEP = 6


@dataclass(frozen=True, kw_only=True)
class Studio:
    """Label Studio and the service beside it, both running."""

    label_studio_url: str
    backend_url: str
    variables: Mapping[str, str] = field(repr=False)
    """The service's settings, which commands have too: previews are signed with a secret
    in its data folder. They hold Label Studio's key."""

    def command(self, *arguments: str) -> str:
        """What `sam2-label-studio` prints. Raises ProcessError when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "backend.cli", *arguments],
            env=environment_with(self.variables), capture_output=True, text=True,
        )
        if done.returncode:
            raise ProcessError(f"{' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    @property
    def api_key(self) -> str:
        """Label Studio's."""
        return self.variables["LABEL_STUDIO_API_KEY"]

    def create_project(
        self, title: str, config: str, *options: str, labels: Sequence[str] = LABELS
    ) -> int:
        """A connected project; its number.

        `config` is a kind that `project create` knows, `options` more of that command.
        """
        said = self.command(
            "project", "create", title, "--config", config, "--labels", ",".join(labels),
            "--backend-url", self.backend_url, *options,
        )
        return _number_after("project", said)

    def import_video(self, project_id: int, video: Path, *, every: int | None = None) -> int:
        """A new task of the video (and every so-manieth frame); its number."""
        frames = [] if every is None else ["--frames", f"every={every}"]
        said = self.command(
            "import", str(video), "--project", str(project_id), "--again", *frames
        )
        return _number_after("task", said)


def _number_after(word: str, text: str) -> int:
    match = re.search(rf"^{word} (\d+)", text, re.MULTILINE)
    if match is None:
        raise ProcessError(f"no {word} number in {text!r:.200}")
    return int(match[1])


@contextlib.contextmanager
def running_studio(
    program: Path,
    folder: Path,
    *,
    account: Account,
    empty_data: Path | None = None,
    ports: tuple[int, int] | tuple[None, None] = (None, None),
    answer_seconds: float = 90.0,
) -> Iterator[Studio]:
    """Label Studio and the service, connected by the account's legacy token.

    Everything that they write is in the folder, their logs too.

    Args:
        ports: Label Studio's and the service's.
        answer_seconds: how long the service may track before it answers; Label Studio waits
            a little longer.

    Raises ProcessError.
    """
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(
            running_label_studio(
                program, account=account, data=folder / "label_studio",
                log=folder / "label_studio.log", port=ports[0], empty_data=empty_data,
                variables={"ML_TIMEOUT_PREDICT": str(answer_seconds + _SPARE_SECONDS)},
            )
        )
        yield stack.enter_context(
            connected_backend(
                url, account.legacy_token, folder, port=ports[1], answer_seconds=answer_seconds
            )
        )


@contextlib.contextmanager
def connected_backend(
    label_studio_url: str,
    api_key: str,
    folder: Path,
    *,
    port: int | None = None,
    answer_seconds: float = 90.0,
) -> Iterator[Studio]:
    """The service with a Label Studio that runs already. Raises ProcessError."""
    given = {
        "LABEL_STUDIO_URL": label_studio_url,
        "LABEL_STUDIO_API_KEY": api_key,
        "SAM2_MEDIA_CACHE": str(folder / "media"),
        "SAM2_DATA_FOLDER": str(folder / "service"),
        "SAM2_ANSWER_SECONDS": str(answer_seconds),
    }
    with running_backend(log=folder / "backend.log", port=port, variables=given) as url:
        yield Studio(label_studio_url=label_studio_url, backend_url=url, variables=given)


def write_sample(program: Path, path: Path, frame_count: int = SAMPLE_STOP - SAMPLE_START) -> Path:
    """Cut the sample from the packaged video: `SAMPLE_SIZE`, `SAMPLE_FPS`, H.264; the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_frame_source(sample_video(program)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=SAMPLE_FPS)
        stream.width, stream.height = SAMPLE_SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "20"}
        for index in range(SAMPLE_START, SAMPLE_START + frame_count):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(source.frame(index)))
            container.mux(stream.encode(picture.reformat(*SAMPLE_SIZE)))
        container.mux(stream.encode())
    return path


# --- make studio -------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Start both, make the projects once, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m backend.studio", description=__doc__)
    parser.add_argument("--label-studio", type=Path, required=True, metavar="PROGRAM")
    parser.add_argument("--empty-data", type=Path, help="a data folder never started on")
    parser.add_argument("--folder", type=Path, default=Path("out/studio"))
    parser.add_argument("--port", type=port, default=8080, help="Label Studio's")
    parser.add_argument("--backend-port", type=port, default=9090)
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed sends the second
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        _serve(options)
    except KeyboardInterrupt:
        print("\nstopped")
    except (ProcessError, OSError, ValueError) as error:
        print(f"studio failed: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace) -> None:
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    account = kept_account(folder / "login.txt")
    print("starting Label Studio and the service; the first time takes a minute", flush=True)
    with running_studio(
        options.label_studio, folder, account=account, empty_data=options.empty_data,
        ports=(options.port, options.backend_port),
    ) as studio:
        done = folder / "projects.txt"
        if not done.exists():
            done.write_text(_make_projects(studio, options.label_studio, folder), encoding="utf-8")
        print(
            f"\nLabel Studio  {studio.label_studio_url}\n"
            f"login         {account.email}, password {account.password}\n"
            f"service       {studio.backend_url}/health\n"
            f"{done.read_text(encoding='utf-8')}"
            f"logs          {folder}\nCtrl-C stops both.",
            flush=True,
        )
        signal.pause()


def _make_projects(studio: Studio, program: Path, folder: Path) -> str:
    sample = write_sample(program, folder / "opossum.mp4")
    lines = []
    for title, config, every in (
        ("Video: boxes that follow", "video", None),
        ("Video beside its masks", "video-preview", None),
        ("Video beside the panel: click, see, propagate", "video-panel", None),
        ("Frames: masks", "frames", _FRAME_STEP),
    ):
        project = studio.create_project(title, config)
        studio.import_video(project, sample, every=every)
        url = f"{studio.label_studio_url}/projects/{project}/data"
        lines.append(f"project       {url}  {title}\n")
    return "".join(lines)


def kept_account(path: Path) -> Account:
    """The login that is kept with the data; a new one for a new folder."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"{secrets.token_urlsafe(9)}\n{secrets.token_hex(20)}\n", encoding="ascii")
    password, token = path.read_text(encoding="ascii").split()
    return Account(email=_EMAIL, password=password, legacy_token=token)


if __name__ == "__main__":
    sys.exit(main())
