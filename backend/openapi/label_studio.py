"""Label Studio's ML-backend protocol."""

from __future__ import annotations

from backend.openapi.parts import (
    MEDIA_ERRORS,
    NUMBER,
    TEXT,
    Json,
    answer_obj,
    array,
    body,
    enum,
    json_answer,
    nullable,
    obj,
    operation,
    ref,
)

_TAG = "label-studio"
_HEALTH = json_answer(ref("Health"), "Alive, whatever the model does.")


def _health(name: str) -> Json:
    return {"get": operation(name, "Whether it is alive", {200: _HEALTH}, tag=_TAG, security=[])}


PATHS: Json = {
    "/": _health("index"),
    "/health": _health("health"),
    "/setup": {
        "post": operation(
            "setup", "The model's version, and warnings about a project's config",
            {200: json_answer(ref("Setup"), "The model's version.")},
            tag=_TAG, request=body(ref("SetupRequest")),
        )
    },
    "/predict": {
        "post": operation(
            "predict", "Track: interactively with a context, else one answer a task",
            {200: json_answer(ref("Predictions"), "One item a task; empty: nothing to say.")},
            tag=_TAG, errors=MEDIA_ERRORS, request=body(ref("PredictRequest")),
        )
    },
    "/webhook": {
        "post": operation(
            "webhook", "Track what was saved, or fine-tune, in the background",
            {200: json_answer(ref("WebhookAnswer"), "Taken, or of no interest.")},
            tag=_TAG, errors=(422, 429, 507), request=body(ref("WebhookRequest")),
        )
    },
    "/versions": {
        "get": operation(
            "versions", "The version that serves, then those before it",
            {200: json_answer(answer_obj(versions=array(TEXT)), "Versions.")}, tag=_TAG,
        )
    },
}

_RESULTS = array(ref("Region"))
_ENTRY = obj(
    {"result": nullable(_RESULTS), "updated_at": {}, "was_cancelled": {}}, others=True
)

SCHEMAS: Json = {
    "Health": obj(
        {
            "status": enum("UP"),
            "model_class": TEXT,
            "model_version": TEXT,
            "model": enum("loading", "ready", "failed"),
            "detail": {**TEXT, "description": "Why the model could not be loaded."},
        },
        ["status", "model_class", "model_version", "model"],
    ),
    "SetupRequest": obj(
        {
            "project": {}, "schema": {**TEXT, "description": "The label config."},
            "hostname": TEXT, "access_token": TEXT, "extra_params": {},
        },
        others=True,
    ),
    "Setup": obj({"model_version": TEXT, "warnings": array(TEXT)}, ["model_version"]),
    "Task": obj(
        {
            "id": {"type": ["integer", "null"]}, "project": {"type": ["integer", "null"]},
            "data": obj(others=True), "annotations": array(_ENTRY), "drafts": array(_ENTRY),
            "predictions": {},
        },
        others=True,
        description="As Label Studio has it.",
    ),
    "PredictRequest": obj(
        {
            "tasks": array(ref("Task")),
            "label_config": {**TEXT, "minLength": 1},
            "project": {},
            "params": nullable(
                obj(
                    {
                        "context": nullable(
                            obj({"result": nullable(_RESULTS), "event": {}}, others=True)
                        )
                    },
                    others=True,
                )
            ),
        },
        ["tasks", "label_config"],
        others=True,
    ),
    "Prediction": obj(
        {
            "result": array(obj(others=True)), "model_version": TEXT, "score": NUMBER,
            "left_out": ref("LeftOut"),
        },
        ["result", "model_version"],
    ),
    "Predictions": answer_obj(
        results=array({"anyOf": [ref("Prediction"), {"type": "array", "maxItems": 0}]})
    ),
    "WebhookRequest": obj(
        {"action": TEXT, "annotation": {}, "project": {}, "task": {}}, ["action"], others=True
    ),
    "WebhookAnswer": obj(
        {"status": enum("queued", "ignored"), "action": TEXT, "job": TEXT}, ["status", "action"]
    ),
}
