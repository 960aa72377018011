"""Predictions to Label Studio: kept until it has taken them, or refused them for good."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Mapping, Protocol, Sequence

from backend.errors import ServiceError, StorageUnavailable
from backend.jobs.interface import Store
from backend.jobs.types import Post, PostState
from backend.log_context import working_for

logger = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 3600.0
_LONGEST_SLEEP_SECONDS = 60.0
_SHORTEST_SLEEP_SECONDS = 0.5
_NEAR_SECONDS = 1.0
"""An attempt that is due so soon may begin any moment."""
_OTHER_WAY_SECONDS = 300.0
"""Label Studio waits for 100 seconds for an answer, then it stores it."""
_FULL_SECONDS = 5.0
"""How often a full disk is tried again."""


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

    def __init__(
        self,
        store: Store,
        client: Callable[[], PredictionClient],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            client: asked before each round; may raise ValueError or ServiceError.
            clock: the store's.
        """
        self._store = store
        self._client = client
        self._clock = clock
        self._failed_rounds = 0
        self._paused_until = 0.0
        self._wake = threading.Event()
        self._is_stopping = False
        self.on_failed: Callable[[Exception], None] = lambda error: None
        """Called with each failure to post."""
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new to post."""
        self._wake.set()

    def stop(self) -> None:
        self._is_stopping = True
        self._wake.set()

    def gives_way(self, job_id: str) -> bool:
        """Whether another way may bring a job's prediction to Label Studio now.

        Not one that is posted at this moment. One that waits for another attempt
        then waits until Label Studio has stored what came the other way, and finds it.
        """
        post = self._store.post_of_job(job_id)
        if post is None or post.state is not PostState.WAITING:
            return True
        begins_at = max(post.next_attempt_at, self._paused_until)
        if begins_at < self._clock() + _NEAR_SECONDS:
            return False
        self._store.retry_post(post.id, post.error or "", _OTHER_WAY_SECONDS)
        return True

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.clear()
            try:
                self.post_due()
                seconds = self._seconds_to_wait()
            except StorageUnavailable as error:  # one that has arrived is found there next time
                logger.error("predictions wait: %s", error)
                seconds = _FULL_SECONDS
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("posting predictions failed")
                seconds = _LONGEST_SLEEP_SECONDS
            self._wake.wait(seconds)

    def _seconds_to_wait(self) -> float:
        due = self._store.next_post_at()
        if due is None:
            return _LONGEST_SLEEP_SECONDS
        seconds = max(due, self._paused_until) - self._clock()
        return min(max(seconds, _SHORTEST_SLEEP_SECONDS), _LONGEST_SLEEP_SECONDS)

    def post_due(self) -> None:
        """Post everything that is due now.

        When Label Studio itself fails, the rest waits too: a server that is down is
        not asked once for each prediction.
        """
        client = None
        while (
            not self._is_stopping
            and self._clock() >= self._paused_until
            and (posts := self._store.due_posts(limit=1))
        ):
            client = client or self._client()
            post = posts[0]
            with working_for(request_id=post.request_id, job=post.job_id, task=post.task_id):
                self._post(client, post)

    def _post(self, client: PredictionClient, post: Post) -> None:
        if not self._store.begin_post(post.id):
            return
        try:
            prediction_id = _find_posted(client, post) if post.attempts else None
            if prediction_id is None:
                prediction_id = client.create_prediction(
                    post.task_id, post.prediction["result"],
                    score=post.prediction["score"],
                    model_version=post.prediction["model_version"],
                )
        except (ServiceError, ValueError) as error:
            self.on_failed(error)
            self._failed(post, error)
            return
        except Exception as error:  # the boundary of one prediction: the others are posted
            logger.exception("job %s: posting the prediction failed", post.job_id)
            self.on_failed(error)
            self._retry(post, f"{type(error).__name__}; the server's log has the traceback", 0.0)
            return
        self._failed_rounds = 0
        self._store.set_posted(post.id, prediction_id)
        logger.info(
            "job %s: prediction %s of task %s posted", post.job_id, prediction_id, post.task_id
        )

    def _failed(self, post: Post, error: ServiceError | ValueError) -> None:
        if _is_final(error):
            logger.error("job %s: prediction of task %s is refused: %s",
                         post.job_id, post.task_id, error)
            self._store.set_refused(post.id, str(error))
            return
        asked = min(getattr(error, "retry_after_seconds", None) or 0.0, _LONGEST_DELAY_SECONDS)
        pause = _FIRST_DELAY_SECONDS * 2 ** min(self._failed_rounds, 20)
        self._failed_rounds += 1
        self._paused_until = self._clock() + max(min(pause, _LONGEST_SLEEP_SECONDS), asked)
        self._retry(post, str(error), asked)

    def _retry(self, post: Post, reason: str, at_least_seconds: float) -> None:
        delay = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** min(post.attempts, 20))
        delay = max(delay, at_least_seconds)
        logger.warning("job %s: prediction of task %s is posted again in %.0f s: %s",
                       post.job_id, post.task_id, delay, reason)
        self._store.retry_post(post.id, reason, delay)


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
    wanted = _shapes(post.prediction["result"])
    for prediction in client.predictions(post.task_id):
        same_model = prediction.get("model_version") == post.prediction["model_version"]
        if same_model and _shapes(prediction.get("result")) == wanted:
            return prediction["id"]
    return None


def _shapes(result: object) -> list[tuple[Any, Any]] | None:
    """Ids and values; Label Studio may add to the rest."""
    if not isinstance(result, list) or not all(isinstance(r, Mapping) for r in result):
        return None
    return [(region.get("id"), region.get("value")) for region in result]
