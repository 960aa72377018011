"""The service as a `LabelStudioMLBase`, for those who host with `label-studio-ml start`.

Works with label-studio-ml 1.0.9 of PyPI (which also needs rq and redis) and with the
`predict(tasks, context)` contract of 2.x. A project folder needs one line:

    from backend.label_studio_ml_host import SAM2Video

Our own `sam2-label-studio serve` does more: batch answers within Label Studio's time
limit, webhooks whoever the host is, the job API, /ui and sessions.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Mapping, Sequence

from label_studio_ml.model import LabelStudioMLBase

from backend.deadlines import Deadline
from backend.predictions import answer_predict
from backend.protocol import parse_predict
from backend.service import TrackingService
from backend.settings import Settings
from backend.webhooks import begin_job

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_service: TrackingService | None = None


def shared_service() -> TrackingService:
    """The process's one service, started with the first call.

    The host makes a model object for every project, and a new one now and then; the
    weights, the jobs and the open videos are the process's.
    """
    global _service
    with _lock:
        if _service is None:
            _service = TrackingService(Settings.from_environment())
            _service.start()
        return _service


class SAM2Video(LabelStudioMLBase):
    """SAM 2 for video tasks; its settings are the environment's (`backend.settings`)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shared_service()

    def setup(self) -> None:
        """2.x: tell the version that predictions are stored under."""
        self.set("model_version", shared_service().settings.model_version)

    def predict(
        self,
        tasks: Sequence[Mapping[str, Any]],
        context: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Any]:
        """One prediction a task, [] for nothing to say; `context` is the open editor's.

        Raises ServiceError and ValueError, which the host answers with an error.
        """
        service = shared_service()
        # 2.x gives an empty context for a batch, where Label Studio sends none.
        call = parse_predict(
            {
                "tasks": list(tasks),
                "label_config": self.label_config,
                "params": {"context": context or None},
            }
        )
        return answer_predict(call, service, Deadline(service.settings.answer_seconds))

    def fit(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """A webhook: a saved annotation is tracked, START_TRAINING trains, in the background.

        2.x calls this in the process that serves. 1.0.9 calls it in another one, which
        has no model: nothing is done there, and the log says so.
        """
        if "job_id" in kwargs:
            logger.warning("label-studio-ml 1.0.9 handles webhooks in processes without a model")
            return {}
        event, data = args[:2] if len(args) >= 2 else (kwargs["event"], kwargs["data"])
        job_id = begin_job({**data, "action": event}, shared_service())
        return {"status": "queued", "job": job_id} if job_id else {"status": "ignored"}
