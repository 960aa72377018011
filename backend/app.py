"""The web service: Label Studio's ML-backend protocol over the model.

One process owns the model; threads serve. Answers and times: PROTOCOL.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any, Callable, Iterator, Mapping

from flask import Flask, g, request

from backend.access import guard
from backend.deadlines import Deadline
from backend.decoding import begin_opening_until
from backend.enterprise import EnterpriseEvents, event_of
from backend.error_answers import answer_errors
from backend.errors import BadRequest, TooManyRequests
from backend.jobs_api import job_routes
from backend.json_body import json_body
from backend.metrics import BATCH, INTERACTIVE, OPEN, measure
from backend.model import LoadedModel, load_model
from backend.openapi import openapi_routes
from backend.panel_api import panel_api
from backend.panel_page import panel_page
from backend.predictions import answer_predict
from backend.preview_api import add_preview
from backend.protocol import parse_predict
from backend.request_log import follow
from backend.service import TrackingService
from backend.sessions_api import sessions_blueprint
from backend.settings import Settings
from backend.user_interface import user_interface
from backend.webhooks import action_of, begin_job
from converters.label_studio.config import parse_label_config

logger = logging.getLogger(__name__)

_MODEL_CLASS = "SAM2Video"
_MAX_SETUP_BYTES = 8 * 2**20
"""A config, which has a limit of its own, and a few names."""
_BUSY = "too many requests are waiting for the model; try again later"


def create_app(
    settings: Settings | None = None,
    *,
    load: Callable[[Settings], LoadedModel] = load_model,
) -> Flask:
    """The service; its model begins to load in a thread.

    Args:
        settings: default those of the environment.
        load: makes the model.
    """
    settings = settings or Settings.from_environment()
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_request_bytes
    service = _Service(settings, load)
    app.extensions["sam2"] = service.tracking
    app.add_url_rule("/", "index", service.health, methods=["GET"])
    app.add_url_rule("/health", "health", service.health, methods=["GET"])
    app.add_url_rule("/setup", "setup", service.setup, methods=["POST"])
    app.add_url_rule("/predict", "predict", service.predict, methods=["POST"])
    app.add_url_rule("/webhook", "webhook", service.webhook, methods=["POST"])
    app.add_url_rule("/versions", "versions", service.versions, methods=["GET"])
    app.register_blueprint(job_routes(service.tracking))
    app.register_blueprint(sessions_blueprint(service.tracking))
    app.register_blueprint(user_interface())
    app.register_blueprint(openapi_routes())
    app.register_blueprint(panel_page(settings))
    app.register_blueprint(panel_api(service.tracking))
    add_preview(app, service.tracking)
    answer_errors(app, settings)
    follow(app)  # these two first: what the guard refuses has an id and is counted too
    measure(app, service.tracking)
    guard(app, settings)
    _open_no_longer_than(app, settings.answer_seconds)
    service.tracking.start()
    return app


def _open_no_longer_than(app: Flask, seconds: float) -> None:
    """Media that a request opens itself is opened for whoever waits for the answer."""

    @app.before_request
    def begin() -> None:
        begin_opening_until(Deadline(seconds))

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        begin_opening_until(None)  # the thread's next work is another's


class _Service:
    """The views and what they share."""

    def __init__(self, settings: Settings, load: Callable[[Settings], LoadedModel]) -> None:
        self.settings = settings
        self.tracking = TrackingService(settings, load)
        self._enterprise = EnterpriseEvents(self.tracking)
        self._places = threading.BoundedSemaphore(settings.max_waiting_requests)

    def health(self) -> dict[str, Any]:
        """Answers whatever the model does."""
        answer = {
            "status": "UP",
            "model_class": _MODEL_CLASS,
            "model_version": self.tracking.settings.model_version,
            "model": str(self.tracking.model.state),
        }
        if self.tracking.trouble:
            answer["detail"] = self.tracking.trouble
        return answer

    def versions(self) -> dict[str, Any]:
        return {"versions": self.tracking.versions}

    def setup(self) -> dict[str, Any]:
        """Only looks at the project's config; called often, so never waits for the model.

        The token that Label Studio sends is kept in memory, for want of a better one.
        """
        request.max_content_length = min(_MAX_SETUP_BYTES, self.settings.max_request_bytes)
        body = json_body()
        if not isinstance(body, Mapping):
            raise BadRequest("the body of /setup must be a JSON object")
        if (authorization := self.tracking.media.authorization) is not None:
            authorization.offer(body.get("hostname"), body.get("access_token"))
        answer: dict[str, Any] = {"model_version": self.tracking.settings.model_version}
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
        """Answers at once; the work is a job. Label Studio waits for a second.

        The body is never logged: it holds the project's token.
        """
        limits = self.settings.max_webhook_bytes, self.settings.max_request_bytes
        request.max_content_length = min(limits)
        body = json_body()
        action = action_of(body)
        job_id = begin_job(body, self.tracking)
        logger.info("webhook %r: %s", action[:80], f"job {job_id}" if job_id else "ignored")
        if job_id is None:
            return {"status": "ignored", "action": action}
        return {"status": "queued", "action": action, "job": job_id}

    def predict(self) -> dict[str, Any]:
        """Interactive: the open task's answer. Batch: one item a task, [] for nothing to say."""
        deadline = Deadline(self.settings.answer_seconds)
        body = json_body()
        g.asked = INTERACTIVE
        if (event := event_of(body)) is not None:
            return self._answer_event(event, body, deadline)
        call = parse_predict(body)
        if not call.is_interactive:
            g.asked = OPEN if len(call.tasks) == 1 else BATCH
        return {"results": answer_predict(call, self.tracking, deadline, place=self._place)}

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """For a call that may wait. Raises TooManyRequests when as many do as may."""
        if not self._places.acquire(blocking=False):
            raise TooManyRequests(_BUSY)
        try:
            yield
        finally:
            self._places.release()

    def _answer_event(self, event: str, body: Any, deadline: Deadline) -> dict[str, Any]:
        """Enterprise's; one that only asks how things stand is never turned away."""
        has_place = self._places.acquire(blocking=False)
        try:
            if not has_place and event in ("predict", "track"):
                raise TooManyRequests(_BUSY)
            return self._enterprise.answer(event, body, deadline, may_wait=has_place)
        finally:
            if has_place:
                self._places.release()
