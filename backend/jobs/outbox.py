"""Predictions to Label Studio: kept until it has taken them, or refused them for good."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Mapping, Protocol, Sequence

from backend.errors import ServiceError
from backend.jobs.store import JobStore
from backend.jobs.types import Post

logger = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 3600.0
_LONGEST_SLEEP_SECONDS = 60.0


class PredictionClient(Protocol):
    """What of `LabelStudioClient` is needed here."""

    def create_prediction(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        score: float,
        model_version: str,
    ) -> int: ...

    def predictions(self, task_id: int) -> list[dict[str, Any]]: ...


class Outbox:
    """A thread that posts what is due and tries again, ever more slowly, what failed."""

    def __init__(self, store: JobStore, client: Callable[[], PredictionClient]) -> None:
        """`client` is asked before each round; may raise ValueError or ServiceError."""
        self._store = store
        self._client = client
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new to post."""
        self._wake.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            try:
                self.post_due()
                due = self._store.next_post_at()
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("posting predictions failed")
                due = None
            pause = _LONGEST_SLEEP_SECONDS if due is None else max(0.5, due - time.time())
            self._wake.wait(min(pause, _LONGEST_SLEEP_SECONDS))

    def post_due(self) -> None:
        """Post everything that is due now."""
        while not self._is_stopping and (posts := self._store.due_posts()):
            for post in posts:
                self._post(post)

    def _post(self, post: Post) -> None:
        self._store.begin_post(post.id)
        try:
            client = self._client()
            found = _find_posted(client, post) if post.attempts else None
            prediction_id = found or client.create_prediction(
                post.task_id, post.prediction["result"],
                score=post.prediction["score"],
                model_version=post.prediction["model_version"],
            )
        except (ServiceError, ValueError) as error:
            self._failed(post, error)
            return
        self._store.set_posted(post.id, prediction_id)
        logger.info("job %s: prediction %s of task %s posted", post.job_id, prediction_id, post.task_id)

    def _failed(self, post: Post, error: ServiceError | ValueError) -> None:
        if _is_final(error):
            logger.error("job %s: prediction of task %s is refused: %s",
                         post.job_id, post.task_id, error)
            self._store.set_refused(post.id, str(error))
            return
        asked = getattr(error, "retry_after_seconds", None)
        delay = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(post.attempts, 20))
        delay = max(delay, min(asked or 0.0, _LONGEST_DELAY_SECONDS))
        logger.warning("job %s: prediction of task %s is posted again in %.0f s: %s",
                       post.job_id, post.task_id, delay, error)
        self._store.retry_post(post.id, str(error), delay)


def _is_final(error: ServiceError | ValueError) -> bool:
    """Whether trying again is in vain. A refused token may be renewed, so it is not."""
    from backend.label_studio_client import LabelStudioError, LabelStudioFailure

    if isinstance(error, LabelStudioError):
        return error.failure in (
            LabelStudioFailure.NOT_FOUND, LabelStudioFailure.CONTENT_REFUSED
        )
    return isinstance(error, ValueError)


def _find_posted(client: PredictionClient, post: Post) -> int | None:
    """The prediction, if an attempt arrived whose answer did not: never post it twice."""
    wanted = [(region.get("id"), region.get("value")) for region in post.prediction["result"]]
    for prediction in client.predictions(post.task_id):
        if prediction.get("model_version") != post.prediction["model_version"]:
            continue
        result = prediction.get("result") or []
        if [(region.get("id"), region.get("value")) for region in result] == wanted:
            return prediction["id"]
    return None
