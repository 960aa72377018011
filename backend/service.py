"""Requests -> jobs -> answers: the one way to the model for everything that is asked."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence

from backend.deadlines import Deadline
from backend.errors import NotReady
from backend.fingerprints import is_unchanged, media_stamp
from backend.jobs.outbox import Outbox
from backend.jobs.queue import JobHandle, JobQueue, Outcome
from backend.jobs.store import JobStore
from backend.jobs.types import Job, JobKind, JobSpec, JobState, StoredResult
from backend.media import MediaStore
from backend.model import LoadedModel, ModelService, ModelState, load_model
from backend.propagation import NOTHING, Answer, TaskPropagation
from backend.requests import TaskRequest
from backend.scheduler import Priority
from backend.settings import Settings

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient

logger = logging.getLogger(__name__)

_DAY_SECONDS = 86400.0


class TrackingService:
    """Owns the model, the media, the jobs and what goes to Label Studio."""

    def __init__(
        self, settings: Settings, load: Callable[[Settings], LoadedModel] = load_model
    ) -> None:
        self.settings = settings
        self.model = ModelService(settings, load)
        self.media = MediaStore(settings)
        self.store = JobStore(settings.data_folder / "jobs.sqlite3")
        self.jobs = JobQueue(
            self.store,
            {JobKind.TRACK: self._track_work},
            interactive_places=settings.max_waiting_requests,
            max_queued_per_project=settings.max_queued_per_project,
        )
        self.outbox = Outbox(self.store, self.label_studio)
        self.jobs.on_finished = lambda job: self.outbox.wake()

    def start(self) -> None:
        """Load the model, and go on with the jobs that were left."""
        self.store.delete_old(time.time() - self.settings.job_days * _DAY_SECONDS)
        self.model.start()
        self.jobs.start()
        if self.can_post:
            self.outbox.start()

    def stop(self) -> None:
        """Stop at the next frame; unfinished jobs begin again at the next start."""
        self.jobs.stop()
        self.outbox.stop()
        self.model.close()

    @property
    def can_post(self) -> bool:
        """Whether there is a Label Studio to post predictions to."""
        return bool(self.settings.label_studio_url and self.settings.label_studio_api_key)

    def label_studio(self) -> LabelStudioClient:
        """Label Studio's API. Raises ValueError when the settings name none."""
        # Imported here: the SDK takes seconds.
        from backend.label_studio_client import LabelStudioClient

        return LabelStudioClient.from_settings(self.settings)

    def _track_work(self, job: Job) -> TrackWork:
        return TrackWork(TaskRequest.from_json(job.request), self)

    # --- asking --------------------------------------------------------------

    def answer(self, request: TaskRequest, deadline: Deadline) -> Answer:
        """For a person: what can be had until the deadline.

        What is missing then goes on in the background and is posted as a
        prediction. Earlier requests on the same regions are given up.

        Raises ServiceError, ValueError and VideoDecodeError as
        `TaskPropagation.run`, NotReady when there is not one frame in time.
        """
        if not TaskPropagation(request, media=self.media, settings=self.settings).has_work:
            return NOTHING
        if (stored := self.stored_answer(request)) is not None:
            return stored
        self._give_up_superseded(request)
        handle = self.jobs.submit(self._spec(request, Priority.INTERACTIVE))
        handle.wait(deadline.remaining_seconds, lambda work: work.has_enough)
        return self._answer_of(handle, background=Priority.WEBHOOK)

    def answer_many(
        self, requests: Sequence[TaskRequest | None], deadline: Deadline
    ) -> list[Answer]:
        """For no one in particular: the complete answers that there are until the deadline.

        The others are NOTHING; they go on in the background and are posted. A
        request that fails has its reason in the log and in the job.
        """
        waiting = [None if r is None else self._begin(r) for r in requests]
        answers = []
        for item in waiting:
            if isinstance(item, JobHandle):
                item.wait(deadline.remaining_seconds)
                item = self._complete_answer_of(item)
            answers.append(item or NOTHING)
        return answers

    def _begin(self, request: TaskRequest) -> Answer | JobHandle | None:
        """The stored answer, or the job that makes one; None when nothing is asked."""
        try:
            if not TaskPropagation(request, media=self.media, settings=self.settings).has_work:
                return None
            stored = self.stored_answer(request)
            return stored or self.jobs.submit(self._spec(request, Priority.BATCH))
        except Exception:  # the boundary of one task: the others of the batch are answered
            logger.exception("task %s of a batch cannot be answered", request.task_id)
            return None

    def _complete_answer_of(self, handle: JobHandle) -> Answer:
        if not handle.has_ended:
            self.jobs.send_to_background(
                handle.job_id, priority=Priority.BATCH, posts_prediction=self.can_post
            )
            return NOTHING
        if handle.error is not None or handle.work is None:
            return NOTHING
        answer = handle.work.answer()
        return answer if answer.is_complete and handle.work.has_tracked else NOTHING

    def track_in_background(self, request: TaskRequest, priority: Priority) -> str | None:
        """Queue it, its result to be posted; the job's id, None when nothing is asked.

        Raises ValueError for a malformed request, TooManyJobs.
        """
        if not TaskPropagation(request, media=self.media, settings=self.settings).has_work:
            return None
        if priority is Priority.WEBHOOK:
            self._give_up_superseded(request)
        spec = self._spec(request, priority, posts_prediction=self.can_post)
        return self.jobs.submit(spec).job_id

    def stop_task(self, task_id: int | None) -> Answer:
        """Give up what is tracked for a task; what there is so far."""
        regions: tuple[dict[str, Any], ...] = ()
        for job in self._unfinished(task_id):
            handle = self.jobs.handle(job.id)
            self.jobs.cancel(job.id)
            if handle is not None and handle.work is not None:
                regions += handle.work.answer().regions
        return Answer(regions, is_complete=False)

    def stored_answer(self, request: TaskRequest) -> Answer | None:
        """The answer to an equal request, if it is kept and its media has not changed."""
        result = self.store.result_of_request(self._key(request), is_unchanged)
        return None if result is None else _answer_in(result)

    def _answer_of(self, handle: JobHandle, *, background: Priority) -> Answer:
        if handle.error is not None:
            raise handle.error
        answer = NOTHING if handle.work is None else handle.work.answer()
        if handle.has_ended:
            return answer
        self.jobs.send_to_background(
            handle.job_id, priority=background, posts_prediction=self.can_post
        )
        if handle.has_ended and handle.work is not None:
            return handle.work.answer()  # just now: nothing is left to be posted
        if not answer.regions:
            if self.model.state is ModelState.LOADING:
                raise NotReady(
                    f"model {self.settings.model_version} is still loading; try again later"
                )
            raise NotReady("the time for an answer ran out before the first frame was tracked")
        return answer

    def _spec(
        self, request: TaskRequest, priority: Priority, *, posts_prediction: bool = False
    ) -> JobSpec:
        return JobSpec(
            kind=JobKind.TRACK,
            request=request.to_json(),
            key=self._key(request),
            priority=priority,
            project_id=request.project_id,
            task_id=request.task_id,
            posts_prediction=posts_prediction,
        )

    def _key(self, request: TaskRequest) -> str:
        return f"{request.key}:{self.settings.tracking_fingerprint}"

    def _unfinished(self, task_id: int | None) -> list[Job]:
        if task_id is None:
            return []
        states = (JobState.QUEUED, JobState.RUNNING)
        found = self.store.list(states=states, task_id=task_id, limit=1000)
        return [job for job in found if job.kind is JobKind.TRACK]

    def _give_up_superseded(self, request: TaskRequest) -> None:
        """A person has changed a region's prompts: its earlier jobs answer the wrong question."""
        key, ids = self._key(request), _region_ids(request.results)
        for job in self._unfinished(request.task_id):
            if job.key != key and ids & _region_ids(job.request["results"]):
                logger.info("job %s is superseded by a newer request", job.id)
                self.jobs.cancel(job.id)


class TrackWork:
    """One tracking job: from the store if it was done before, else by the model."""

    def __init__(self, request: TaskRequest, service: TrackingService) -> None:
        """Raises ValueError for a malformed request."""
        self._service = service
        self._request = request
        self._propagation = TaskPropagation(
            request, media=service.media, settings=service.settings
        )
        self._stored: StoredResult | None = None

    def run(self, handle: JobHandle) -> Outcome:
        with self._service.media.in_use() as media:
            return self._run(handle, media)

    def _run(self, handle: JobHandle, media: MediaStore) -> Outcome:
        service, propagation = self._service, self._propagation
        key = propagation.fetch_media(media)
        self._stored = service.store.result(key)
        if self._stored is None:
            propagation.run(
                service.model,
                priority=lambda: handle.priority,
                is_cancelled=handle.is_cancelled,
                progress=handle.report,
            )
            if handle.is_cancelled() or not propagation.has_tracked:
                return Outcome()
            self._save(key)
        else:
            service.store.link_request(
                service._key(self._request), key, media_stamp(propagation.files)
            )
        return Outcome(key, self._prediction())

    def _save(self, key: str) -> None:
        service, propagation = self._service, self._propagation
        full = propagation.answer(is_limited=False)
        service.store.save_result(
            StoredResult(
                key=key,
                regions=full.regions,
                answer=propagation.answer().regions,
                score=full.score,
                model_version=service.settings.model_version,
                media=propagation.references,
                created_at=time.time(),
            ),
            request_key=service._key(self._request),
            media_stamp=media_stamp(propagation.files),
            max_bytes=service.settings.max_result_bytes,
        )

    def _prediction(self) -> Mapping[str, Any]:
        full = self.answer(is_limited=False)
        return {
            "result": [r for r in full.regions if r.get("type") != "textarea"],
            "score": full.score,
            "model_version": self._service.settings.model_version,
        }

    @property
    def has_tracked(self) -> bool:
        """Whether there was anything to track."""
        return self._stored is not None or self._propagation.has_tracked

    @property
    def has_enough(self) -> bool:
        """Whether more frames would not change the answer to a person."""
        return self._stored is not None or self._propagation.has_enough

    def answer(self, *, is_limited: bool = True) -> Answer:
        """What there is so far."""
        if self._stored is not None:
            return _answer_in(self._stored, is_limited=is_limited)
        return self._propagation.answer(is_limited=is_limited)


def _answer_in(result: StoredResult, *, is_limited: bool = True) -> Answer:
    regions = result.answer if is_limited else result.regions
    return Answer(tuple(dict(region) for region in regions), True, result.score)


def _region_ids(results: Sequence[Mapping[str, Any]]) -> set[str]:
    return {result["id"] for result in results if isinstance(result.get("id"), str)}
