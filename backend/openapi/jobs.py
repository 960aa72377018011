"""`/api/jobs`."""

from __future__ import annotations

from backend.openapi.parts import (
    BOOLEAN,
    MEDIA_ERRORS,
    NUMBER,
    TEXT,
    TIME,
    Json,
    answer_obj,
    array,
    binary_answer,
    body,
    enum,
    json_answer,
    nullable,
    obj,
    operation,
    path_parameter,
    query,
    ref,
    whole,
)

_TAG = "jobs"
_JOB = path_parameter("job_id", TEXT, "The job's id.")
_STATES = enum("queued", "running", "done", "failed", "cancelled")
_MOST = {"maximum": 2**53}
_LOCATION: Json = {"Location": {"description": "The job's own address.", "schema": TEXT}}
_SHOWN = {200: json_answer(ref("Job"), "The job.")}
_FOUND_ERRORS = (404, 409, *MEDIA_ERRORS)

PATHS: Json = {
    "/api/jobs": {
        "post": operation(
            "submitJob", "Track a task in the background",
            {202: json_answer(ref("Job"), "The job, or an equal one under way.", _LOCATION)},
            tag=_TAG, errors=(404, 422, 429, 502, 507), request=body(ref("JobRequest")),
        ),
        "get": operation(
            "listJobs", "The newest first", {200: json_answer(ref("Jobs"), "A page of jobs.")},
            tag=_TAG,
            parameters=[
                query(
                    "state", array(_STATES), "Those in these states; also separated by commas.",
                    style="form", explode=True,
                ),
                query("project", whole(0, **_MOST), "Those of a project."),
                query("task", whole(0, **_MOST), "Those of a task."),
                query("limit", whole(1, maximum=500, default=50), "How many."),
                query("offset", whole(0, **_MOST, default=0), "How many to leave out."),
            ],
        ),
    },
    "/api/jobs/{job_id}": {
        "parameters": [_JOB],
        "get": operation("showJob", "One job", _SHOWN, tag=_TAG, errors=(404,)),
        "delete": operation("deleteJob", "Give it up", _SHOWN, tag=_TAG, errors=(404, 409)),
    },
    "/api/jobs/{job_id}/cancel": {
        "parameters": [_JOB],
        "post": operation("cancelJob", "Give it up", _SHOWN, tag=_TAG, errors=(404, 409)),
    },
    "/api/jobs/{job_id}/result": {
        "parameters": [_JOB],
        "get": operation(
            "jobResult", "What it found, as regions or as tracks.json",
            {
                200: json_answer(
                    {"anyOf": [ref("JobResult"), obj(others=True)]},
                    "Regions; with format=tracks the masks.",
                )
            },
            tag=_TAG, errors=_FOUND_ERRORS,
            parameters=[query("format", enum("regions", "tracks"), "Default: regions.")],
        ),
    },
    "/api/jobs/{job_id}/scores": {
        "parameters": [_JOB],
        "get": operation(
            "jobScores", "One value a frame for each object",
            {200: json_answer(ref("JobScores"), "The objects.")}, tag=_TAG, errors=_FOUND_ERRORS,
        ),
    },
    "/api/jobs/{job_id}/preview.png": {
        "parameters": [_JOB],
        "get": operation(
            "jobPreview", "Frames with the masks drawn in",
            {200: binary_answer("image/png", "A picture.")}, tag=_TAG, errors=_FOUND_ERRORS,
        ),
    },
}

SCHEMAS: Json = {
    "JobRequest": obj(
        {
            "task_id": whole(1),
            "task": ref("Task"),
            "label_config": {**TEXT, "minLength": 1},
            "results": nullable(array(ref("Region"))),
            "command": {"type": ["string", "null"], "examples": ["both 100"]},
            "post_prediction": BOOLEAN,
        },
        others=True,
        oneOf=[{"required": ["task_id"]}, {"required": ["task"]}],
    ),
    "Job": obj(
        {
            "id": TEXT,
            "kind": enum("track", "window", "finetune"),
            "state": _STATES,
            "priority": TEXT,
            "project": {"type": ["integer", "null"]},
            "task": {"type": ["integer", "null"]},
            "progress": answer_obj(done=whole(), total=whole()),
            "attempts": whole(),
            "error": {"type": ["string", "null"]},
            "left_out": nullable(ref("LeftOut")),
            "request_id": {"type": ["string", "null"]},
            "has_result": BOOLEAN,
            "posts_prediction": BOOLEAN,
            "prediction": nullable(ref("JobPrediction")),
            "created_at": TIME,
            "started_at": TIME,
            "finished_at": TIME,
            "model": TEXT,
        },
        [
            "id", "kind", "state", "priority", "project", "task", "progress", "attempts",
            "error", "left_out", "has_result", "posts_prediction", "prediction", "created_at",
            "started_at", "finished_at", "request_id",
        ],
    ),
    "LeftOut": answer_obj(
        counts=obj(others=True, description="What is left out and why -> how many."),
        regions=array(TEXT),
    ),
    "JobPrediction": answer_obj(
        state=enum("waiting", "posted", "refused"),
        attempts=whole(),
        error={"type": ["string", "null"]},
        prediction_id={"type": ["integer", "null"]},
        next_attempt_at=TIME,
    ),
    "Jobs": answer_obj(
        jobs=array(ref("Job")),
        next_offset={"type": ["integer", "null"]},
        counts=obj(others=True, description="Of all jobs, by state."),
    ),
    "JobResult": answer_obj(result=array(ref("Region")), score=NUMBER, model_version=TEXT),
    "JobScores": answer_obj(
        objects=array(
            answer_obj(
                id=TEXT, labels=array(TEXT), video=TEXT, colour=TEXT, dashed=BOOLEAN,
                frames=array(whole()),
                probabilities=array({"type": ["number", "null"]}),
                areas=array(NUMBER),
                doubtful=array(answer_obj(start=whole(), stop=whole(), reasons=array(TEXT))),
            )
        )
    ),
}
