"""Requests -> jobs -> answers: the one way to the model for everything that is asked."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Collection, Iterator, Mapping, Sequence

from backend import log_context
from backend.answers import StoredAnswer, prediction_of
from backend.deadlines import Deadline
from backend.decoding import opening_until
from backend.engines import (
    RefusedSessions,
    Role,
    open_blobs,
    open_choice,
    open_model,
    open_queue,
    open_store,
)
from backend.errors import NotHere, NotReady, ServiceError, Stopping
from backend.fingerprints import is_unchanged, media_stamp
from backend.jobs.outbox import Outbox
from backend.jobs.handles import JobHandle, Outcome
from backend.jobs.interface import Handle, Queue
from backend.kept_progress import PROGRESS, KeptProgress, delete_progress
from backend.jobs.training import TrainingWork
from backend.jobs.types import (
    Job,
    JobKind,
    JobSpec,
    JobState,
    PostState,
    ResultVideo,
    StoredResult,
)
from backend.media import MediaStore
from backend.model import LoadedModel, ModelService, ModelState, load_model
from backend.propagation import NOTHING, Answer, TaskPropagation
from backend.requests import TaskRequest
from backend.scheduler import OneAtATime, Priority
from backend.session_manager import SessionManager
from backend.settings import Settings
from backend.task_lookup import TaskLookup
from backend.windows import WINDOWS, WindowedTracking, WindowWork

if TYPE_CHECKING:
    from backend.remote_model import RemoteModel
    from backend.label_studio_client import LabelStudioClient

logger = logging.getLogger(__name__)

_HOUR_SECONDS, _DAY_SECONDS = 3600.0, 86400.0
_HOUSE_SECONDS = 5.0
_LOAD_AGAIN_SECONDS = 60.0
_PROGRESS_DAYS = 7
_JOBS_LOOKED_AT = 10
"""How many of a task's ended jobs are looked through for one that answers already."""


@dataclass(frozen=True)
class _Unloadable:
    """A model that another process has chosen, and this one could not load."""

    version: str
    again_at: float
    """Of `time.monotonic()`."""
    reason: str


@dataclass(frozen=True)
class Serving:
    """A model, and the settings that name it: they change together."""

    settings: Settings
    model: ModelService | RemoteModel


class TrackingService:
    """Owns the model, the media, the jobs and what goes to Label Studio."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[Settings], LoadedModel] = load_model,
        *,
        role: Role | None = None,
    ) -> None:
        """`role`: None: that of a process that people ask."""
        self._load = load
        self.role = role or (Role.ALONE if settings.queue is None else Role.WEB)
        self.choice = open_choice(settings, self.role)
        self.media = MediaStore(settings)
        makers = {
            JobKind.TRACK: lambda job: TrackWork(job, self),
            JobKind.WINDOW: lambda job: WindowWork(job, self),
            JobKind.FINETUNE: lambda job: TrainingWork(job, self),
        }
        self.store, self.clock = open_store(settings, self.role)
        self.blobs = open_blobs(settings, self.store, self.role)
        chosen = self.choice.settings
        self._serving = Serving(chosen, open_model(chosen, self.role, load))
        self.jobs: Queue = open_queue(
            self.store, self.role, makers, settings, posts_unanswered=self.can_post
        )
        self._swap = threading.Lock()
        self._unloadable: _Unloadable | None = None
        self.sessions = (
            SessionManager(settings, self.model, self.media, wall_clock=self.clock)
            if self.role is Role.ALONE else RefusedSessions()
        )
        self.equal_work = OneAtATime()
        self.tasks = TaskLookup(self)
        self._client: LabelStudioClient | None = None
        self._lock = threading.Lock()
        self._stopped, self._stopping = threading.Event(), threading.Lock()
        self.outbox = Outbox(self.store, self.label_studio, clock=self.clock)
        self.jobs.on_finished = self._on_finished
        self.finished_listeners: list[Callable[[Job], None]] = []

    def start(self) -> None:
        """Load the model, then go on with the jobs that were left."""
        self.jobs.recover()
        self.model.start(when_ready=self._begin_jobs)
        threading.Thread(target=self._keep_house, name="housekeeping", daemon=True).start()
        self.sessions.start()
        if self.can_post and self.role is not Role.WORKER:
            self.outbox.start()

    def _begin_jobs(self) -> None:
        # Without a model every job would fail; they are kept until there is one.
        if not self._stopped.is_set():
            self.jobs.start()

    def _keep_house(self) -> None:
        """Forget old jobs, close videos that nobody asks about."""
        next_deletion = 0.0
        while True:
            try:
                self.model.close_old()
                if time.monotonic() >= next_deletion:
                    next_deletion = time.monotonic() + _HOUR_SECONDS
                    self.store.delete_old(self.settings.job_days * _DAY_SECONDS)
                    for prefix in (PROGRESS, WINDOWS):
                        self.blobs.delete_old(prefix, _PROGRESS_DAYS * _DAY_SECONDS)
                if self.role is not Role.ALONE:
                    self._follow_choice()
            except Exception:  # the boundary of the thread: it has to live on
                logger.exception("the house cannot be kept")
            if self._stopped.wait(_HOUSE_SECONDS):
                return

    def stop(self, wait_seconds: float = 0.0) -> None:
        """Stop at the next frame; unfinished jobs begin again at the next start.

        Those who wait are answered with what there is, after `wait_seconds` in any case.
        A second call waits for the first to be done.
        """
        with self._stopping:
            if self._stopped.is_set():
                return
            self._stopped.set()
            self.outbox.stop()
            self.jobs.stop(wait_seconds)
            self.sessions.stop()
            self.model.close()
            logger.info("stopped: what is unfinished goes on with the next start")

    def _on_finished(self, job: Job) -> None:
        if job.posts_prediction:
            self.outbox.wake()
        for listener in self.finished_listeners:
            listener(job)
        if self.role is not Role.WEB:
            delete_progress(self.blobs, job.id)
        elif job.state is not JobState.DONE:
            # Its worker knows nothing of it, and who waits here is not to wait for a bucket.
            threading.Thread(
                target=delete_progress, args=(self.blobs, job.id), name="progress", daemon=True
            ).start()

    # --- the model -----------------------------------------------------------

    @property
    def serving(self) -> Serving:
        """What new work is done with; work that has begun goes on with what it took."""
        return self._serving

    @property
    def settings(self) -> Settings:
        """Those in force: with the model that serves."""
        return self._serving.settings

    @property
    def model(self) -> ModelService | RemoteModel:
        """The model that serves."""
        return self._serving.model

    @property
    def versions(self) -> list[str]:
        """The version that serves, then those before it."""
        return self.choice.versions

    def use_model(self, name: str) -> None:
        """Serve with a fine-tuned model from now on, and after a restart.

        The one before serves until this one is loaded. Raises NotReady, and
        changes nothing, when it cannot be loaded; OSError when the choice
        cannot be kept.
        """
        with self._swap:
            settings = self.choice.settings_for(name)
            model = self._loaded(settings)
            self.choice.choose(name)
            self._serve_with(settings, model)

    def _loaded(self, settings: Settings) -> ModelService:
        model = ModelService(settings, self._load, scheduler=self.model.scheduler)
        model.start()
        model.wait()
        return model

    def _serve_with(self, settings: Settings, model: ModelService | RemoteModel) -> None:
        before, self._serving = self._serving, Serving(settings, model)
        if before.model is not model:
            before.model.close()
        self.jobs.settings_changed(settings.tracking_settings)
        logger.info("%s serves from now on", settings.model_version)

    def _follow_choice(self) -> None:
        """Serve with what another process has chosen.

        Raises NotReady when it cannot be loaded; that is tried again now and then.
        """
        with self._swap:
            self.choice.refresh()
            settings, known = self.choice.settings, self._unloadable
            version = settings.model_version
            if known is not None and known.version == version:
                if time.monotonic() < known.again_at:
                    return
            elif version == self.settings.model_version:
                self._unloadable = None
                return
            try:
                is_here = self.role is Role.WORKER
                self._serve_with(settings, self._loaded(settings) if is_here else self.model)
            except NotReady as error:
                again_at = time.monotonic() + _LOAD_AGAIN_SECONDS
                self._unloadable = _Unloadable(version, again_at, error.detail)
                raise
            self._unloadable = None

    @property
    def trouble(self) -> str | None:
        """Why the model that is to serve does not."""
        unloadable = self._unloadable
        return self.model.failure or (None if unloadable is None else unloadable.reason)

    # --- Label Studio and jobs -----------------------------------------------

    @property
    def can_post(self) -> bool:
        """Whether there is a Label Studio to post predictions to."""
        return bool(self.settings.label_studio_url and self.settings.label_studio_api_key)

    def label_studio(self) -> LabelStudioClient:
        """Label Studio's API. Raises ValueError when the settings name none."""
        # Imported here: the SDK takes seconds.
        from backend.label_studio_client import LabelStudioClient

        with self._lock:
            if self._client is None:
                self._client = LabelStudioClient.from_settings(self.settings)
            return self._client

    # --- asking --------------------------------------------------------------

    def answer(self, request: TaskRequest, deadline: Deadline) -> Answer:
        """For a person: what can be had until the deadline.

        What is missing then goes on in the background and is posted as a
        prediction. Earlier requests on the same regions are given up.

        Raises ServiceError, ValueError and VideoDecodeError as
        `TaskPropagation.run`, NotReady when there is not one frame in time.
        """
        asked = self._propagation(request)
        if not asked.has_work:
            return NOTHING
        if asked.asks_nothing:
            return asked.as_it_came()
        self._give_up_superseded(asked)
        if (stored := self._stored_answer(asked)) is not None:
            return stored
        handle = self.jobs.submit(self._spec(asked, Priority.INTERACTIVE), is_awaited=True)
        try:
            self.model.wait(deadline)
            handle.wait(deadline.remaining_seconds, lambda work: work.has_enough)
            answer, is_all = _answer_so_far(handle)
        except BaseException:
            self._leave(handle, posts_prediction=self.can_post)
            raise
        goes_on = self._leave(handle, posts_prediction=self.can_post and not is_all)
        if goes_on and (answer.regions or answer.is_complete):
            return answer
        return self._last_answer_of(handle, goes_on)

    def _last_answer_of(self, handle: Handle, goes_on: bool) -> Answer:
        """What a person gets when the job has ended, or has found nothing in time."""
        if handle.error is not None:
            raise handle.error
        if goes_on and self._stopped.is_set():
            raise Stopping("the service is being stopped: ask again in a moment")
        if goes_on:
            raise NotReady("the time for an answer ran out before the first frame was tracked")
        if handle.work is None:
            return NOTHING
        answer = handle.work.answer()
        if self.can_post and answer.is_complete and handle.work.has_more:
            self._post_all(handle)
        return answer

    def _leave(self, handle: Handle, *, posts_prediction: bool) -> bool:
        return self.jobs.leave(
            handle, Priority.INTERACTIVE, goes_on_with=Priority.WEBHOOK,
            posts_prediction=posts_prediction,
        )

    def _post_all(self, handle: Handle) -> None:
        """The editor does not bear all the regions of one answer, a prediction does."""
        prediction = handle.work.prediction()
        if prediction is not None:
            self.store.add_post(handle.job_id, prediction)
            self.outbox.wake()

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
            if item is not None and not isinstance(item, Answer):
                item.wait(deadline.remaining_seconds)
                item = self._complete_answer_of(item)
            answers.append(item or NOTHING)
        return answers

    def _begin(self, request: TaskRequest) -> Answer | Handle | None:
        """The stored answer, or the job that makes one; None when nothing is asked."""
        try:
            asked = self._propagation(request)
            if not asked.has_work or asked.asks_nothing:
                return None
            stored = self._stored_answer(asked, is_limited=False)
            if stored is not None:
                return None if self._is_being_posted(asked) else stored
            if self.model.state is ModelState.FAILED:
                self.model.wait()  # raises with the reason
            return self.jobs.submit(self._spec(asked, Priority.BATCH), is_awaited=True)
        except (ServiceError, ValueError) as error:
            logger.warning("task %s of a batch cannot be answered: %s", request.task_id, error)
        except Exception:  # the boundary of one task: the others of the batch are answered
            logger.exception("task %s of a batch cannot be answered", request.task_id)
        return None

    def _complete_answer_of(self, handle: Handle) -> Answer:
        goes_on = self.jobs.leave(
            handle, Priority.BATCH, goes_on_with=Priority.BATCH,
            posts_prediction=self.can_post and _goes_on(handle),
        )
        if goes_on or handle.error is not None or handle.work is None:
            return NOTHING
        job = self.store.get(handle.job_id)
        if job is not None and job.posts_prediction:
            return NOTHING  # a webhook asked first: Label Studio would have it twice
        try:
            answer = handle.work.answer(is_limited=False)
        except Exception:  # the boundary of one task: the others of the batch are answered
            logger.exception("the answer of job %s cannot be given", handle.job_id)
            return NOTHING
        return answer if answer.is_complete and handle.work.has_tracked else NOTHING

    def track_in_background(
        self, request: TaskRequest, priority: Priority, *, posts_prediction: bool = True
    ) -> str | None:
        """Queue it, its result to be posted; the job's id, None when nothing is asked.

        For a saved annotation (WEBHOOK) a job that answers it already, unfinished or
        posted, is taken for it.

        Raises ValueError for a malformed request, TooManyJobs.
        """
        asked = self._propagation(request)
        if not asked.has_work or asked.asks_nothing:
            return None
        spec = self._spec(
            asked, priority, posts_prediction=posts_prediction and self.can_post
        )
        if priority is not Priority.WEBHOOK:
            return self.jobs.submit(spec).job_id
        # The same webhook may come twice at one time.
        with self.equal_work.doing(("webhook", request.task_id), lambda: False):
            if (job_id := self._answering(asked)) is not None:
                return job_id
            self._give_up_superseded(asked)
            return self.jobs.submit(spec).job_id

    def train_in_background(self, project_id: int) -> str:
        """Queue a fine-tuning on the project's annotations; the job's id.

        Raises TooManyJobs; NotHere where other workers could not have the model.
        """
        if self.role is not Role.ALONE and self.settings.storage is None:
            raise NotHere(
                "a fine-tuned model would be on one worker alone: with SAM2_QUEUE set "
                "SAM2_STORAGE too, which all workers reach"
            )
        spec = JobSpec(
            kind=JobKind.FINETUNE,
            request={"project_id": project_id},
            key=f"finetune:{project_id}",
            priority=Priority.TRAINING,
            project_id=project_id,
            request_id=log_context.request_id(),
        )
        return self.jobs.submit(spec).job_id

    def _answering(self, asked: TaskPropagation) -> str | None:
        """A job of the task that was asked all of this, and posts what it finds."""
        wanted = asked.open_prompts.items()
        for job in self._unfinished(asked.request.task_id):
            if wanted <= self._propagation_of(job).open_prompts.items():
                if not self.can_post or self.store.want_post(job.id):
                    return job.id
        for job in self._done(asked.request.task_id):
            is_posted = self.store.post_state(job.id) in (PostState.WAITING, PostState.POSTED)
            if is_posted and wanted <= self._propagation_of(job).open_prompts.items():
                return job.id
        return None

    def _is_being_posted(self, asked: TaskPropagation) -> bool:
        """Whether the outbox is about to post all of this: Label Studio would have it twice."""
        wanted = asked.open_prompts.items()
        return any(
            self.store.post_state(job.id) is PostState.WAITING
            and wanted <= self._propagation_of(job).open_prompts.items()
            and not self.outbox.gives_way(job.id)
            for job in self._done(asked.request.task_id)
        )

    def stop_task(
        self, task_id: int | None, region_ids: Collection[str] | None = None
    ) -> Answer | None:
        """Give up what is tracked for a task; what there is so far. None: nothing was.

        Args:
            region_ids: only jobs on these regions.
        """
        answers: dict[str, dict[str, Any]] = {}
        scores, jobs = [], []
        for job in self._unfinished(task_id):
            regions = self._propagation_of(job).open_prompts
            if region_ids is None or not regions.keys().isdisjoint(region_ids):
                jobs.append(job)
        for job in jobs:  # the newest first: its regions count
            handle = self.jobs.handle(job.id)
            self.jobs.cancel(job.id)
            if handle is not None and handle.work is not None:
                answer = handle.work.answer(is_final=True)
                answers = {region["id"]: region for region in answer.regions} | answers
                scores += [answer.score] if answer.regions else []
        if not jobs:
            return None
        return Answer(tuple(answers.values()), is_complete=False, score=min(scores, default=0.0))

    def _stored_answer(
        self, asked: TaskPropagation, *, is_limited: bool = True
    ) -> Answer | None:
        """The answer to an equal request, if it is kept and its media has not changed."""
        result = self.store.result_of_request(asked.key, is_unchanged)
        return None if result is None else StoredAnswer(result).answer(is_limited=is_limited)

    def _propagation(self, request: TaskRequest) -> TaskPropagation:
        """Raises ValueError for a malformed request."""
        return TaskPropagation(request, media=self.media, settings=self.settings)

    def _propagation_of(self, job: Job) -> TaskPropagation:
        return self._propagation(TaskRequest.from_json(job.request))

    def _spec(
        self, asked: TaskPropagation, priority: Priority, *, posts_prediction: bool = False
    ) -> JobSpec:
        request = asked.request
        return JobSpec(
            kind=JobKind.TRACK,
            request=request.to_json(),
            key=asked.key,
            priority=priority,
            project_id=request.project_id,
            task_id=request.task_id,
            posts_prediction=posts_prediction,
            request_id=log_context.request_id(),
        )

    def _unfinished(self, task_id: int | None) -> list[Job]:
        return self._jobs_of(task_id, (JobState.QUEUED, JobState.RUNNING), limit=1000)

    def _done(self, task_id: int | None) -> list[Job]:
        return self._jobs_of(task_id, (JobState.DONE,), limit=_JOBS_LOOKED_AT)

    def _jobs_of(
        self, task_id: int | None, states: Sequence[JobState], limit: int
    ) -> list[Job]:
        if task_id is None:
            return []
        found = self.store.list(states=states, task_id=task_id, limit=limit)
        return [job for job in found if job.kind is JobKind.TRACK]

    def _give_up_superseded(self, asked: TaskPropagation) -> None:
        for job in self._unfinished(asked.request.task_id):
            if job.key != asked.key and _supersedes(asked, self._propagation_of(job)):
                logger.info("job %s is superseded by a newer request", job.id)
                self.jobs.cancel(job.id)


def _supersedes(newer: TaskPropagation, older: TaskPropagation) -> bool:
    """Whether a person has changed their mind, so that nobody wants the older answer.

    They have with new prompts on a region, or with a new command for it. With
    neither, the newer request stands for an older one that it holds all of.
    """
    new, old = newer.open_prompts, older.open_prompts
    common = new.keys() & old.keys()
    if any(new[region_id] != old[region_id] for region_id in common):
        return True
    if common & newer.commands.keys():
        return True
    return bool(common) and common == old.keys() and not older.commands


class TrackWork:
    """One tracking job: from the store if it was done before, else by the model."""

    def __init__(self, job: Job, service: TrackingService) -> None:
        """Raises ValueError for a malformed request."""
        self._service = service
        self._job = job
        self._serving = service.serving
        self._propagation = TaskPropagation(
            TaskRequest.from_json(job.request),
            media=service.media, settings=self._serving.settings,
        )
        self._stored: StoredAnswer | None = None

    def run(self, handle: JobHandle) -> Outcome:
        self._check_task()
        with self._service.media.in_use() as media:
            key = self._propagation.fetch_media(media)

            def is_urgent() -> bool:  # a person is to see frames as they come
                return handle.priority is Priority.INTERACTIVE or handle.is_cancelled()

            with self._service.equal_work.doing(key, is_urgent):
                return self._run(key, handle)

    def _check_task(self) -> None:
        """Raises NotFound for a task that Label Studio does not have: anyone can send a webhook.

        Not where somebody waits: it may be Label Studio, which then answers nobody else.
        """
        job, service = self._job, self._service
        is_awaited = job.is_awaited or job.priority is Priority.INTERACTIVE
        if is_awaited or not job.posts_prediction or not service.can_post:
            return
        if job.task_id is not None and job.project_id is not None:
            service.tasks.check(job.task_id, job.project_id)

    def _opening_deadline(self) -> Deadline | None:
        """Of what a person asked for: the same as theirs where the answer cannot be posted, as
        nobody would have it later. None: as long as the settings allow."""
        is_for_them_alone = self._job.priority is Priority.INTERACTIVE and not self._service.can_post
        return Deadline(self._service.settings.answer_seconds) if is_for_them_alone else None

    def _run(self, key: str, handle: JobHandle) -> Outcome:
        service, propagation = self._service, self._propagation
        if (stored := service.store.result(key)) is not None:
            self._stored = StoredAnswer(stored)
            service.store.link_request(propagation.key, key, media_stamp(propagation.files))
            return Outcome(key, self.prediction(), stored.left_out)
        service.store.check_can_keep()
        with (
            opening_until(self._opening_deadline(), handle.is_cancelled),
            self._windows(key, handle) as windows,
        ):
            propagation.run(
                self._serving.model,
                priority=lambda: handle.priority,
                kept=KeptProgress(
                    service.blobs, self._job.id, key,
                    every_seconds=service.settings.save_seconds, is_left=lambda: handle.is_left,
                ),
                windows=windows,
                is_cancelled=handle.is_cancelled,
                progress=handle.report,
            )
            if handle.is_cancelled() or not propagation.has_tracked:
                return Outcome()
            handle.tell()  # a person need not wait until it is all written
            self._save(key)
        return Outcome(key, self.prediction(), propagation.left_out)

    @contextlib.contextmanager
    def _windows(self, key: str, handle: JobHandle) -> Iterator[WindowedTracking | None]:
        """Forgotten at the end, unless another attempt is to go on with them."""
        service = self._service
        if service.role is not Role.WORKER:
            yield None  # there is one device: nobody could help
            return
        windows = WindowedTracking(
            service.store, service.blobs, self._job, key,
            least_frames=service.settings.window_frames,
            save_seconds=service.settings.save_seconds,
            priority=lambda: handle.priority, is_left=lambda: handle.is_left,
        )
        try:
            yield windows
        except ValueError:  # this video, or this request, fails every time
            windows.forget()
            raise
        if not handle.is_left:
            windows.forget()

    def _save(self, key: str) -> None:
        service, propagation = self._service, self._propagation
        full = propagation.answer(is_limited=False)
        service.store.save_result(
            StoredResult(
                key=key,
                regions=full.regions,
                answer=propagation.answer().regions,
                score=full.score,
                model_version=self._serving.settings.model_version,
                media=propagation.references,
                created_at=service.clock(),
                videos=propagation.videos,
                left_out=propagation.left_out,
            ),
            request_key=propagation.key,
            media_stamp=media_stamp(propagation.files),
            max_bytes=service.settings.max_result_bytes,
        )

    def prediction(self) -> Mapping[str, Any] | None:
        """For Label Studio; None when nothing was found."""
        return prediction_of(self, model_version=self._serving.settings.model_version)

    @property
    def videos(self) -> tuple[ResultVideo, ...]:
        """What it is about, of videos."""
        return self._propagation.videos

    @property
    def has_tracked(self) -> bool:
        """Whether there was anything to track."""
        return (self._stored or self._propagation).has_tracked

    @property
    def has_enough(self) -> bool:
        """Whether more frames would not change the answer to a person."""
        return (self._stored or self._propagation).has_enough

    @property
    def has_more(self) -> bool:
        """Whether a prediction could hold more than the answer."""
        return (self._stored or self._propagation).has_more

    def answer(self, *, is_limited: bool = True, is_final: bool = False) -> Answer:
        """What there is so far (`TaskPropagation.answer`)."""
        source = self._stored or self._propagation
        return source.answer(is_limited=is_limited, is_final=is_final)


def _goes_on(handle: Handle) -> bool:
    """Whether there is more to come after those who waited have left."""
    return not handle.has_ended or handle.retry_after_seconds is not None


def _answer_so_far(handle: Handle) -> tuple[Answer, bool]:
    """What there is, and whether that is all there will be."""
    if handle.work is None:
        return Answer((), is_complete=False), False
    answer = handle.work.answer()
    return answer, answer.is_complete and not handle.work.has_more
