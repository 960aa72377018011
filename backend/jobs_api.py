"""`/api/jobs`: submit, list, show, cancel, and what a job found (docs/api.md)."""

from __future__ import annotations

import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from flask import Blueprint, Response, jsonify, request, url_for

from backend.errors import BadRequest, Conflict, NotFound, UnusableTask
from backend.job_results import JobResults
from backend.jobs.training import model_name
from backend.jobs.types import Job, JobKind, JobState, Post, StoredResult
from backend.json_body import json_body
from backend.protocol import markable_results, saved_results
from backend.requests import TaskRequest
from backend.scheduler import Priority
from backend.text_commands import Command, parse_command

if TYPE_CHECKING:
    from backend.service import TrackingService

_DEFAULT_LIMIT, _MOST_JOBS = 50, 500
_MAX_NUMBER = 2**53
_FORMATS = ("regions", "tracks")


def job_routes(service: TrackingService) -> Blueprint:
    """The routes over one service."""
    views = _Views(service)
    routes = Blueprint("jobs", __name__, url_prefix="/api/jobs")
    one = "/<job_id>"
    add = routes.add_url_rule
    add("", "submit", views.submit, methods=["POST"])
    add("", "list", views.list, methods=["GET"])
    add(one, "show", views.show, methods=["GET"])
    add(one, "delete", views.cancel, methods=["DELETE"])
    add(f"{one}/cancel", "cancel", views.cancel, methods=["POST"])
    add(f"{one}/result", "result", views.result, methods=["GET"])
    add(f"{one}/scores", "scores", views.scores, methods=["GET"])
    add(f"{one}/preview.png", "preview", views.preview, methods=["GET"])
    return routes


class _Views:
    def __init__(self, service: TrackingService) -> None:
        self._service = service
        self._results = JobResults(service)

    # --- asking for work -----------------------------------------------------

    def submit(self) -> tuple[Response, int, dict[str, str]]:
        """202 with the job, or with the unfinished one that does the same."""
        body = _json_object()
        posts = body.get("post_prediction", False)
        if not isinstance(posts, bool):
            raise BadRequest(f"post_prediction {posts!r:.80} must be true or false")
        asked = self._asked(body)
        if posts and not self._service.can_post:
            raise BadRequest(
                "post_prediction needs LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY to be set"
            )
        if posts and asked.task_id is None:
            raise BadRequest("post_prediction needs task.id, Label Studio's number of the task")
        job_id = self._service.track_in_background(
            asked, Priority.BATCH, posts_prediction=posts
        )
        if job_id is None:
            raise UnusableTask("nothing in the results is on a <Video> or <Image> of the config")
        place = url_for("jobs.show", job_id=job_id)
        return jsonify(self._shown(self._job(job_id))), 202, {"Location": place}

    def _asked(self, body: Mapping[str, Any]) -> TaskRequest:
        task, label_config = self._task_and_config(body)
        results = body.get("results")
        if results is None:
            results = self._saved_results(body, task)
        elif not isinstance(results, list) or not all(isinstance(r, Mapping) for r in results):
            raise BadRequest(f"results {results!r:.80} must be a list of JSON objects")
        marks = markable_results(results)
        if not marks:
            raise UnusableTask(
                "there is nothing to track: neither results nor the task's newest draft or "
                "annotation has a region that could be a prompt"
            )
        return TaskRequest.of(task, marks, label_config, command=_command(body.get("command")))

    def _task_and_config(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
        """As they were sent, or as Label Studio has them."""
        if ("task" in body) == ("task_id" in body):
            raise BadRequest("the body must have either task (with label_config) or task_id")
        if "task_id" in body:
            task_id = body["task_id"]
            if not isinstance(task_id, int) or isinstance(task_id, bool) or task_id < 1:
                raise BadRequest(f"task_id {task_id!r:.80} must be a whole number of at least 1")
            found = self._service.tasks.one(task_id)
            task = {**found.task, "project": found.project["id"]}
            label_config = found.project.get("label_config")
        else:
            task, label_config = body["task"], body.get("label_config")
        if not isinstance(task, Mapping):
            raise BadRequest(f"task {task!r:.80} must be a JSON object")
        if not isinstance(label_config, str) or not label_config.strip():
            raise BadRequest(
                f"label_config {label_config!r:.80} must be the project's labeling config, a string"
            )
        return task, label_config

    def _saved_results(self, body: Mapping[str, Any], task: Mapping[str, Any]) -> Sequence[Any]:
        if "task_id" not in body:
            return saved_results(task)
        newest = self._service.tasks.client().newest_draft_or_annotation(body["task_id"])
        return [] if newest is None else newest.result

    def cancel(self, job_id: str) -> Response:
        """The job, cancelled. 409 for one that has ended."""
        job = self._job(job_id)
        if not self._service.jobs.cancel(job_id):
            state = self._job(job_id).state
            raise Conflict(f"job {job.id} is {state}: only a job that has not ended can be cancelled")
        return jsonify(self._shown(self._job(job_id)))

    # --- looking -------------------------------------------------------------

    def list(self) -> Response:
        """The newest first."""
        limit = _number("limit", _DEFAULT_LIMIT, at_least=1, at_most=_MOST_JOBS)
        offset = _number("offset", 0, at_least=0, at_most=_MAX_NUMBER)
        store = self._service.store
        jobs = store.list(
            states=_states(),
            project_id=_number("project", None, at_least=0, at_most=_MAX_NUMBER),
            task_id=_number("task", None, at_least=0, at_most=_MAX_NUMBER),
            limit=limit + 1,
            offset=offset,
            with_requests=False,
        )
        has_more, jobs = len(jobs) > limit, jobs[:limit]
        posts = store.posts_of_jobs([job.id for job in jobs])
        return jsonify(
            {
                "jobs": [_job_json(job, posts.get(job.id)) for job in jobs],
                "next_offset": offset + limit if has_more else None,
                "counts": {str(state): count for state, count in store.counts().items()},
            }
        )

    def show(self, job_id: str) -> Response:
        return jsonify(self._shown(self._job(job_id)))

    def _shown(self, job: Job) -> dict[str, Any]:
        return _job_json(job, self._service.store.posts_of_jobs([job.id]).get(job.id))

    def _job(self, job_id: str) -> Job:
        job = self._service.store.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id!r:.80}")
        return job

    # --- what was found ------------------------------------------------------

    def result(self, job_id: str) -> Response:
        form = request.args.get("format", "regions")
        if form not in _FORMATS:
            raise BadRequest(f"format {form!r:.80} must be one of {list(_FORMATS)}")
        job, result = self._finished(job_id)
        if form == "regions":
            return jsonify(
                {
                    "result": list(result.regions),
                    "score": result.score,
                    "model_version": result.model_version,
                }
            )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tracks.json"
            self._results.save_tracks(job, result, path)
            answer = Response(path.read_bytes(), content_type="application/json")
        answer.headers["Content-Disposition"] = f'attachment; filename="tracks-{job.id[:8]}.json"'
        return answer

    def scores(self, job_id: str) -> Response:
        return jsonify({"objects": self._results.scores(*self._finished(job_id))})

    def preview(self, job_id: str) -> Response:
        picture = self._results.preview_png(*self._finished(job_id))
        answer = Response(picture, content_type="image/png")
        # A job's result never changes.
        answer.headers["Cache-Control"] = "private, max-age=86400"
        return answer

    def _finished(self, job_id: str) -> tuple[Job, StoredResult]:
        """Raises Conflict for a job that has not ended, NotFound where it left nothing."""
        job = self._job(job_id)
        if not job.state.has_ended:
            raise Conflict(f"job {job.id} is {job.state}: its result is there when it is done")
        result = None if job.result_key is None else self._service.store.result(job.result_key)
        if result is None:
            reason = (
                f"it is {job.state}" if job.state is not JobState.DONE
                else "there was nothing to track" if job.result_key is None
                else "its result had to give way to newer ones (SAM2_MAX_RESULT_MIB)"
            )
            raise NotFound(f"job {job.id} has no result: {reason}")
        return job, result


def _job_json(job: Job, post: Post | None) -> dict[str, Any]:
    """What is shown of a job; the request, which holds the task's data, is not."""
    shown: dict[str, Any] = {
        "id": job.id,
        "kind": str(job.kind),
        "state": str(job.state),
        "priority": job.priority.name.lower(),
        "project": job.project_id,
        "task": job.task_id,
        "progress": {"done": job.done, "total": job.total},
        "attempts": job.attempts,
        "error": job.error,
        "left_out": job.left_out,
        "request_id": job.request_id,
        "has_result": job.result_key is not None,
        "posts_prediction": job.posts_prediction,
        "prediction": None if post is None else _post_json(post),
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
    }
    if job.kind is JobKind.FINETUNE:
        shown["model"] = model_name(job)
    return shown


def _post_json(post: Post) -> dict[str, Any]:
    return {
        "state": str(post.state),
        "attempts": post.attempts,
        "error": post.error,
        "prediction_id": post.prediction_id,
        "next_attempt_at": _time(post.next_attempt_at) if post.state == "waiting" else None,
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")


def _json_object() -> Mapping[str, Any]:
    body = json_body()
    if not isinstance(body, Mapping):
        raise BadRequest("the body must be a JSON object")
    return body


def _command(text: object) -> Command | None:
    if text is None:
        return None
    command = parse_command(text) if isinstance(text, str) else None
    if command is None or command.action != "track":
        raise BadRequest(f"command {text!r:.80} must say what to track, such as 'both 100'")
    return command


def _states() -> list[JobState]:
    """?state=queued,running or ?state=queued&state=running."""
    names = [name for text in request.args.getlist("state") for name in text.split(",") if name]
    known = [str(state) for state in JobState]
    for name in names:
        if name not in known:
            raise BadRequest(f"state {name!r:.80} must be one of {known}")
    return [JobState(name) for name in names]


def _number(name: str, default: int | None, *, at_least: int, at_most: int) -> Any:
    text = request.args.get(name)
    if text is None:
        return default
    is_number = text.isascii() and text.isdigit() and len(text) < 20
    if not is_number or not at_least <= int(text) <= at_most:
        raise BadRequest(f"{name} {text!r:.80} must be a whole number, {at_least} to {at_most}")
    return int(text)
