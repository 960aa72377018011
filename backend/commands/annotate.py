"""`sam2-label-studio annotate`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping

from backend.commands.options import (
    add_label_studio_options,
    add_model_options,
    with_options,
)
from backend.settings import Settings
from converters.types import Direction

if TYPE_CHECKING:
    from backend.annotate import TaskReport
    from backend.label_studio_client import LabelStudioClient
    from backend.propagation import Answer


def add_annotate(commands: Any) -> None:
    parser = commands.add_parser(
        "annotate", help="track the prompts of all tasks of a project",
        description="Track what people marked on each task of a project, and store the answers "
        "as predictions. A run that was stopped goes on with the same command.",
    )
    add = parser.add_argument
    add("--project", type=int, required=True, metavar="N", help="the project's number")
    add("--again", action="store_true", help="also tasks with a prediction of this model")
    add("--dry-run", action="store_true", help="only say what would be done")
    add(
        "--direction", choices=[str(item) for item in Direction],
        help="which way to track from the prompts; default by the settings",
    )
    add_model_options(parser)
    add_label_studio_options(parser)
    parser.set_defaults(run=_annotate)


def _annotate(options: argparse.Namespace, settings: Settings) -> int:
    from tqdm import tqdm

    from backend.annotate import Outcome, annotate_project
    from backend.label_studio_client import LabelStudioClient
    from converters.label_studio.config import parse_label_config

    settings = with_options(settings, options)
    client = LabelStudioClient.from_settings(settings)
    project = client.project(options.project)
    label_config = project["label_config"]
    outcomes: Counter[Outcome] = Counter()
    try:
        with (
            _sole_run(settings, client.url, options.project),
            answering(settings, label_config) as answer,
            tqdm(total=project.get("task_number"), unit="task", disable=None) as bar,
        ):
            for report in annotate_project(
                client,
                options.project,
                answer,
                config=parse_label_config(label_config),
                model_version=settings.model_version,
                again=options.again,
                dry_run=options.dry_run,
            ):
                outcomes[report.outcome] += 1
                bar.update()
                if report.outcome in (Outcome.FAILED, Outcome.STORED, Outcome.WOULD_TRACK):
                    _say(bar.write, report)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        for outcome, count in outcomes.items():
            print(f"{count} task{'' if count == 1 else 's'}: {outcome}")
    if outcomes[Outcome.STORED]:
        _show_predictions(client, project, settings.model_version)
    return 1 if outcomes[Outcome.FAILED] else 0


@contextlib.contextmanager
def _sole_run(settings: Settings, url: str, project_id: int) -> Iterator[None]:
    """Two runs on one project would each track its tasks.

    Raises ValueError while another on this machine, with this data folder, does.
    """
    from filelock import FileLock, Timeout

    settings.data_folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9.]+", "-", f"{url}-{project_id}".lower())
    lock = FileLock(settings.data_folder / f"annotate-{name}.lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise ValueError(
            f"project {project_id} is being annotated by another run: wait for it, or stop it"
        ) from None


def _say(write: Callable[..., None], report: TaskReport) -> None:
    is_failure = report.outcome == "failed"
    detail = f" ({report.detail})" if report.detail else ""
    write(
        f"task {report.task_id}: {report.outcome}{detail}",
        file=sys.stderr if is_failure else sys.stdout,
    )


@contextlib.contextmanager
def answering(settings: Settings, label_config: str) -> Iterator[Callable[..., Answer]]:
    """Tracks a task's results in this process; the model loads with the first."""
    from backend.media import MediaStore
    from backend.model import ModelService
    from backend.propagation import NOTHING, Answer, TaskPropagation
    from backend.requests import TaskRequest
    from backend.scheduler import Priority

    media = MediaStore(settings)

    @functools.cache
    def model() -> ModelService:
        service = ModelService(settings)
        service.start()
        return stack.enter_context(contextlib.closing(service))

    def answer(task: Any, results: Any) -> Answer:
        request = TaskRequest.of(task, results, label_config)
        work = TaskPropagation(request, media=media, settings=settings)
        if not work.has_work:
            return NOTHING
        with media.in_use() as held:
            work.fetch_media(held)
            work.run(model(), priority=lambda: Priority.BATCH)
        if not work.has_tracked:
            return NOTHING  # every prompt was answered before
        found = work.answer(is_limited=False)
        regions = tuple(r for r in found.regions if r.get("type") != "textarea")
        return Answer(
            regions, found.is_complete, found.score, found.model_version, found.left_out
        )

    with contextlib.ExitStack() as stack:
        yield answer


def _show_predictions(
    client: LabelStudioClient, project: Mapping[str, Any], model_version: str
) -> None:
    """Label Studio puts those of one version before annotators: the project's."""
    shown = project.get("model_version")
    if shown == model_version:
        return
    if not shown:
        client.update_project(project["id"], model_version=model_version)
        print(f"annotators now see the predictions of {model_version}")
        return
    titles = [backend.get("title") for backend in client.ml_backends(project["id"])]
    if shown not in titles:
        print(
            f"annotators see the predictions of {shown!r}; to show these, choose "
            f"{model_version!r} in Settings, Annotation"
        )
