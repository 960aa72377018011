"""The web service: Label Studio's ML-backend protocol over the model.

One process owns the model; threads serve. Answers and times: PROTOCOL.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Callable, Mapping

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import HTTPException

from backend.deadlines import Deadline
from backend.errors import BadRequest, NotReady, ServiceError
from backend.media import MediaStore
from backend.model import ModelService, Tracker, load_tracker
from backend.propagation import NOTHING, Answer, answer_task
from backend.protocol import (
    PredictRequest,
    batch_results,
    interactive_results,
    parse_predict,
)
from backend.settings import Settings
from converters.label_studio.config import UnsupportedConfigError, parse_label_config
from sam2_model.video import VideoDecodeError

logger = logging.getLogger(__name__)

_MODEL_CLASS = "SAM2Video"
_BUSY = "too many requests are waiting for the model; try again later"


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[Settings], Tracker] = load_tracker,
) -> Flask:
    """The service; its model begins to load in a thread.

    Args:
        settings: default those of the environment.
        load: makes the tracker.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    service = _Service(settings, load)
    app.extensions["sam2"] = service
    app.add_url_rule("/", "index", service.health, methods=["GET"])
    app.add_url_rule("/health", "health", service.health, methods=["GET"])
    app.add_url_rule("/setup", "setup", service.setup, methods=["POST"])
    app.add_url_rule("/predict", "predict", service.predict, methods=["POST"])
    app.add_url_rule("/webhook", "webhook", service.webhook, methods=["POST"])
    app.add_url_rule("/versions", "versions", service.versions, methods=["GET"])
    app.register_error_handler(Exception, _answer_error)
    service.model.start()
    return app


class _Service:
    """The views and what they share."""

    def __init__(self, settings: Settings, load: Callable[[Settings], Tracker]) -> None:
        self.settings = settings
        self.model = ModelService(settings, load)
        self.media = MediaStore(settings)
        self._places = threading.BoundedSemaphore(settings.max_waiting_requests)

    def health(self) -> dict[str, Any]:
        """Answers whatever the model does."""
        answer = {
            "status": "UP",
            "model_class": _MODEL_CLASS,
            "model_version": self.settings.model_version,
            "model": str(self.model.state),
        }
        if self.model.failure:
            answer["detail"] = self.model.failure
        return answer

    def versions(self) -> dict[str, Any]:
        return {"versions": [self.settings.model_version]}

    def setup(self) -> dict[str, Any]:
        """Only looks at the project's config; called often, so never waits for the model.

        The token that Label Studio sends is not used (PROTOCOL section 9).
        """
        body = _json_body()
        if not isinstance(body, Mapping):
            raise BadRequest("the body of /setup must be a JSON object")
        answer: dict[str, Any] = {"model_version": self.settings.model_version}
        warnings = self._setup_warnings(body)
        for warning in warnings:
            logger.warning("project %r: %s", body.get("project"), warning)
        if warnings:
            answer["warnings"] = warnings
        return answer

    def _setup_warnings(self, body: Mapping[str, Any]) -> list[str]:
        warnings = []
        hostname, url = body.get("hostname"), self.settings.label_studio_url
        if isinstance(hostname, str) and hostname and hostname.rstrip("/") != url:
            warnings.append(
                f"Label Studio calls itself {hostname!r:.200}, LABEL_STUDIO_URL is {url!r}: "
                "its media is fetched from LABEL_STUDIO_URL"
            )
        schema = body.get("schema")
        if isinstance(schema, str) and schema:
            try:
                warnings += parse_label_config(schema).ignored
            except ValueError as error:
                warnings.append(str(error))
        return warnings

    def webhook(self) -> dict[str, Any]:
        """Answers at once and does nothing yet.

        Label Studio registers this address by itself and waits for a second.
        Work on ANNOTATION_CREATED / UPDATED comes with the job queue.
        """
        body = _json_body()
        action = body.get("action") if isinstance(body, Mapping) else None
        # Never the body: it holds the project's token.
        logger.info("webhook %r ignored", action if isinstance(action, str) else None)
        return {"status": "ignored", "action": action}

    def predict(self) -> dict[str, Any]:
        """Interactive: the open task's answer. Batch: one item a task, [] for nothing to say."""
        deadline = Deadline(self.settings.answer_seconds)
        call = parse_predict(_json_body())
        if call.is_interactive and not call.context_results:
            return self._results(self._prediction(NOTHING))  # the editor's ghost calls
        if not self._places.acquire(blocking=False):
            raise NotReady(_BUSY)
        try:
            if call.is_interactive:
                return self._results(self._prediction(self._interactive(call, deadline)))
            return self._results(*self._batch(call, deadline))
        finally:
            self._places.release()

    def _interactive(self, call: PredictRequest, deadline: Deadline) -> Answer:
        task = call.tasks[0]
        return self._answer(task, interactive_results(task, call.context_results), call, deadline)

    def _batch(self, call: PredictRequest, deadline: Deadline) -> list[Any]:
        """A task that fails is left out and asked for again later, not the whole batch."""
        predictions: list[Any] = []
        for task in call.tasks:
            try:
                answer = self._answer(task, batch_results(task), call, deadline)
            except UnsupportedConfigError:
                raise  # it is so for every task
            except NotReady as error:
                if not any(predictions):
                    raise
                logger.warning("task %r waits for another batch: %s", task.get("id"), error)
                answer = NOTHING
            except Exception:  # the boundary of one task's job
                logger.exception("task %r of a batch cannot be answered", task.get("id"))
                answer = NOTHING
            has_answer = answer.is_complete and answer.regions
            predictions.append(self._prediction(answer) if has_answer else [])
        return predictions

    def _answer(
        self, task: Mapping[str, Any], results: tuple, call: PredictRequest, deadline: Deadline
    ) -> Answer:
        return answer_task(
            task,
            results,
            config=parse_label_config(call.label_config),
            media=self.media,
            model=self.model,
            settings=self.settings,
            deadline=deadline,
        )

    def _prediction(self, answer: Answer) -> dict[str, Any]:
        return {
            "result": list(answer.regions),
            "model_version": self.settings.model_version,
            "score": answer.score,
        }

    def _results(self, *predictions: Any) -> dict[str, Any]:
        return {"results": list(predictions)}


def _json_body() -> Any:
    """The request's JSON, whatever its Content-Type says. Raises BadRequest."""
    try:
        return current_app.json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body must be JSON: {error}") from None


def _answer_error(error: Exception) -> tuple[Response, int]:
    """The outermost boundary: every error becomes {"error", "detail"} and a log line."""
    if isinstance(error, HTTPException):
        return _error(error.code or 500, error.name, error.description or "")
    if isinstance(error, ServiceError):
        logger.warning("%s %s: %s", request.method, request.path, error.detail)
        return _error(error.status, error.name, error.detail)
    if isinstance(error, UnsupportedConfigError):
        logger.warning("%s %s: %s", request.method, request.path, error)
        return _error(422, "label config cannot be served", str(error))
    if isinstance(error, VideoDecodeError):
        logger.warning("%s %s: %s", request.method, request.path, error)
        return _error(422, "media cannot be decoded", str(error))
    if isinstance(error, ValueError):
        # The converters' and the tracker's word for what a person drew wrong.
        logger.warning("%s %s: %s", request.method, request.path, error, exc_info=error)
        return _error(400, "bad request", str(error))
    logger.error("%s %s failed", request.method, request.path, exc_info=error)
    return _error(
        500, "internal error", f"{type(error).__name__}; the server's log has the traceback"
    )


def _error(status: int, name: str, detail: str) -> tuple[Response, int]:
    return jsonify({"error": name, "detail": detail}), status
