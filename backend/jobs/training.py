"""START_TRAINING: a project's annotations -> a fine-tuned model that serves from then on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from backend.engines import Role
from backend.errors import ServiceError, UnusableTask
from backend.jobs.handles import JobHandle, Outcome
from backend.jobs.types import Job
from backend.settings import Settings, environment_without_secrets
from backend.task_videos import TaskVideo, task_videos
from converters.label_studio.export import read_tasks
from converters.report import Report
from converters.tracks_json import save_tracks
from converters.types import AnnotatedVideo
from sam2_model.checkpoints.finetuned import finetuned_path
from sam2_model.video import VideoDecodeError

if TYPE_CHECKING:
    from backend.service import TrackingService

logger = logging.getLogger(__name__)

_FEWEST_VIDEOS = 2
"""One of them is held back, to judge the model on."""
_LOOK_SECONDS = 0.5
"""How often a running fine-tuning is asked whether it was cancelled."""
_BAR = re.compile(r"fine-tuning:.*?\b(\d{1,9})/(\d{1,9}) \[")
_MISTAKE = "sam2-label-studio: "
_TAIL_LINES = 40
_NICE = 10
"""A fine-tuning on the CPU gives way to those who wait for an answer."""
_KILLED = (
    "the fine-tuning was killed, probably because the machine had no memory left for it: close "
    "sessions and wait for other jobs, take a smaller SAM2_MODEL, or fine-tune an export by hand "
    "with less at once (sam2-label-studio finetune --clips 1 --frames 2 --objects 1)"
)
_OPTIONS: tuple[str, ...] = ()
"""More of `finetune`'s own."""


def model_name(job: Job) -> str:
    """What the model of a fine-tuning job is called."""
    return f"project-{job.project_id}-{job.id[:8]}"


class TrainingWork:
    """One fine-tuning: export, media, a `finetune` process, and the model put to use.

    What it has written is kept until it has ended, so that a fine-tuning that the
    service did not survive goes on where it was.
    """

    def __init__(self, job: Job, service: TrackingService) -> None:
        """Raises ValueError for a job without a project."""
        if not isinstance(job.project_id, int):
            raise ValueError(f"project {job.project_id!r} must be a project's number")
        self._job = job
        self._service = service
        self._folder = service.settings.data_folder / "training" / job.id
        self._name = model_name(job)

    def run(self, handle: JobHandle) -> Outcome:
        """Raises ServiceError or ValueError with what a person can do about it."""
        try:
            self._run(handle)
        finally:
            if not self._is_to_go_on(handle):
                shutil.rmtree(self._folder, ignore_errors=True)
        return Outcome()

    def _is_to_go_on(self, handle: JobHandle) -> bool:
        """Whether the service stops, and the job goes on with the next; elsewhere it could not."""
        return handle.is_left and self._service.role is Role.ALONE

    def _run(self, handle: JobHandle) -> None:
        data = self._folder / "tracks.json"
        if not data.is_file():
            self._prepare(data, handle)
        if handle.is_cancelled():
            return
        run_finetune(self._arguments(data), handle)
        if handle.is_cancelled():
            return
        before, best = _judgements(self._folder / "out" / "report.json")
        if best["step"] == 0:
            finetuned_path(self._name).unlink(missing_ok=True)
            raise UnusableTask(
                f"nothing was gained: no step was better than the model as it is (J&F "
                f"{_percent(before)} on the held-back videos); annotate more videos, or correct "
                "those where it fails"
            )
        logger.info(
            "job %s: J&F on the held-back videos %s before, %s after",
            self._job.id, _percent(before), _percent(best),
        )
        self._service.use_model(self._name)

    # --- the data set --------------------------------------------------------

    def _prepare(self, data: Path, handle: JobHandle) -> None:
        media_root = self._folder / "media"
        shutil.rmtree(self._folder, ignore_errors=True)
        media_root.mkdir(parents=True)
        client = self._service.label_studio()
        project_id = self._job.project_id
        label_config = client.project(project_id).get("label_config")
        export = self._folder / "export.json"
        with export.open("wb") as file:
            client.export_json(project_id, file)
        problems: list[str] = []
        videos = self._annotated(export, label_config, media_root, handle, problems)
        found = save_tracks(data.with_suffix(".partial"), videos).videos
        if handle.is_cancelled():
            return
        if found < _FEWEST_VIDEOS:
            why = f" (left out: {'; '.join(problems[:3])})" if problems else ""
            raise UnusableTask(
                f"project {project_id} has {found} annotated videos with masks, fine-tuning "
                f"needs {_FEWEST_VIDEOS} or more, of which some are held back to judge it"
                f"{why}"
            )
        os.replace(data.with_suffix(".partial"), data)

    def _annotated(
        self,
        export: Path,
        label_config: str,
        media_root: Path,
        handle: JobHandle,
        problems: list[str],
    ) -> Iterator[AnnotatedVideo]:
        """The videos of the export, their media put into the folder under their names."""
        for number, task in enumerate(read_tasks(export)):
            if handle.is_cancelled():
                return
            task_id = task.get("id") if isinstance(task, Mapping) else None
            videos, report = [], Report()
            try:
                with self._service.media.in_use() as media:
                    found = task_videos(
                        task, label_config=label_config, media=media, source="annotations",
                        report=report,
                    )
                    for place, item in enumerate(found):
                        name = f"{number}-{place}"
                        _put_media(item, media_root / name)
                        videos.append(dataclasses.replace(item.video, name=name, file_names=()))
            except (ServiceError, ValueError, VideoDecodeError) as error:
                # One bad task of a project is no reason not to learn from the others.
                logger.warning("job %s: task %s is left out: %s", self._job.id, task_id, error)
                problems.append(f"task {task_id}: {error}")
                continue
            finally:
                for line in report.malformed:
                    logger.warning("job %s: task %s: left out: %s", self._job.id, task_id, line)
                    problems.append(f"task {task_id}: {line}")
            yield from videos

    def _arguments(self, data: Path) -> list[str]:
        settings = self._service.settings
        return [
            "--data", str(data),
            "--media-root", str(self._folder / "media"),
            "--out", str(self._folder / "out"),
            "--name", self._name,
            "--steps", str(settings.training_steps),
            "--evaluate-every", str(max(1, settings.training_steps // 8)),
            *_OPTIONS,
            *_model_arguments(settings),
        ]


def _model_arguments(settings: Settings) -> list[str]:
    arguments = ["--model", settings.model]
    if settings.checkpoint is not None:
        arguments += ["--checkpoint", settings.checkpoint]
    if settings.device is not None:
        arguments += ["--device", settings.device]
    return arguments


def _put_media(item: TaskVideo, place: Path) -> None:
    """The video as a file, or its images as a folder, under the video's name."""
    if isinstance(item.files, Path):
        _link(item.files, place.with_name(f"{place.name}.mp4"))  # told by its content
        return
    place.mkdir()
    for index, file in enumerate(item.files):
        _link(file, place / f"{index:06d}{file.suffix}")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _judgements(report: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of the model as it was, and of the best step."""
    document = json.loads(report.read_text(encoding="utf-8"))
    return document["before"], document["best"]


def _percent(judgement: Mapping[str, Any]) -> str:
    return f"{50 * (judgement['region'] + judgement['contour']):.1f} %"


# --- the process -------------------------------------------------------------


def run_finetune(arguments: list[str], handle: JobHandle) -> None:
    """`sam2-label-studio finetune` in a process of its own; its steps are reported.

    A cancelled job's process is killed with all that it started. Raises
    UnusableTask with what the command says was wrong, TrainingKilled, and
    RuntimeError when it breaks off otherwise.
    """
    command = [sys.executable, "-m", "backend.child", "finetune", *arguments]
    output = _Output(handle.report)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env=environment_without_secrets(),
    ) as process:
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _NICE)
        reader = threading.Thread(
            target=output.read, args=(process.stdout.fileno(),), name="finetune-output"
        )
        reader.start()
        try:
            while reader.is_alive() and not handle.is_cancelled():
                reader.join(_LOOK_SECONDS)
        finally:
            if reader.is_alive():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            reader.join()
    if process.returncode and not handle.is_cancelled():
        logger.error("finetune ended with %d:\n%s", process.returncode, output.text)
        if output.mistake is not None:
            raise UnusableTask(output.mistake)
        if process.returncode == -signal.SIGKILL:
            raise TrainingKilled(_KILLED)
        raise RuntimeError(f"finetune ended with {process.returncode}")


class TrainingKilled(ServiceError):
    """The command was killed by somebody else than this service."""

    status, name = 507, "training killed"


class _Output:
    """What the command writes: a bar, which is progress, and lines for people."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self._report = report
        self._lines: deque[str] = deque(maxlen=_TAIL_LINES)

    @property
    def text(self) -> str:
        return "\n".join(self._lines)

    @property
    def mistake(self) -> str | None:
        """What the command says was wrong with what it was given."""
        for line in reversed(self._lines):
            if line.startswith(_MISTAKE):
                return line.removeprefix(_MISTAKE)
        return None

    def read(self, descriptor: int) -> None:
        """Until the other end is closed."""
        rest = b""
        while chunk := os.read(descriptor, 65536):
            *lines, rest = re.split(rb"[\r\n]", rest + chunk)
            for line in lines:
                self._take(line.decode("utf-8", "replace"))
        self._take(rest.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        if bar := _BAR.search(line):
            self._report(int(bar[1]), int(bar[2]))
        elif line.strip():
            self._lines.append(line)
