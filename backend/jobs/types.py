"""What a job is, as the store keeps it and the API shows it."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass
from typing import Any, Mapping

from backend.scheduler import Priority


class JobKind(enum.StrEnum):
    TRACK = "track"
    WINDOW = "window"
    """A part of a long video, for a job that tracks all of it (`backend.windows`)."""
    FINETUNE = "finetune"


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """A job to be done."""

    kind: JobKind
    request: Mapping[str, Any]
    """Its inputs, plain JSON without secrets."""
    key: str
    """Equal for jobs that do the same: only one of them is kept unfinished."""
    priority: Priority
    project_id: int | None = None
    task_id: int | None = None
    posts_prediction: bool = False
    """Whether its result goes to Label Studio when it is done."""
    request_id: str | None = None
    """Of the request that ordered it (`log_context`)."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the store has it. Times are seconds since the epoch."""

    id: str
    kind: JobKind
    state: JobState
    priority: Priority
    key: str
    request: Mapping[str, Any]
    project_id: int | None
    task_id: int | None
    posts_prediction: bool
    done: int
    """Steps done: frames of a tracking job."""
    total: int
    """0 until it is known."""
    attempts: int
    """How often it was begun, but for failures that it was queued again after."""
    error: str | None
    """Why it failed, for people; of a queued job, why it is to be tried again."""
    result_key: str | None
    """Of the result in the store, when it is done."""
    created_at: float
    started_at: float | None
    finished_at: float | None
    is_awaited: bool = False
    """Whether someone waits for its answer, so that nothing need be posted."""
    request_id: str | None = None
    """Of the request that ordered it first."""
    left_out: Mapping[str, Any] | None = None
    """Regions that were malformed, of a job that is done (`backend.left_out`)."""


class PostState(enum.StrEnum):
    WAITING = "waiting"
    POSTED = "posted"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Post:
    """A prediction on its way to Label Studio."""

    id: int
    job_id: str
    task_id: int
    prediction: Mapping[str, Any]
    """`result`, `score` and `model_version`."""
    state: PostState
    attempts: int
    next_attempt_at: float
    error: str | None
    prediction_id: int | None
    """Label Studio's, once it is there."""
    request_id: str | None = None
    """Of its job."""


@dataclass(frozen=True, kw_only=True)
class ResultVideo:
    """A `<Video>` that a result is about."""

    name: str
    """The tag's: the `to_name` of its regions."""
    reference: str
    """As the task's data has it."""
    framerate: float
    """By which the regions' frames are counted: the label config's."""


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """What a tracking job found."""

    key: str
    """`TaskPropagation.content_key`."""
    regions: tuple[Mapping[str, Any], ...]
    """As many as a stored prediction may have."""
    answer: tuple[Mapping[str, Any], ...]
    """As many as the editor bears in one answer."""
    score: float
    model_version: str
    media: tuple[str, ...]
    """References, as the task's data has them."""
    created_at: float
    videos: tuple[ResultVideo, ...] = ()
    """Of `media`, what it takes to find the frames of the regions' masks."""
    left_out: Mapping[str, Any] | None = None
    """Regions of the request that were malformed (`backend.left_out`)."""

    def as_json(self) -> dict[str, Any]:
        """What a store keeps beside `key` and `created_at`; `from_json` reads it back."""
        return {
            "regions": list(self.regions),
            "answer": list(self.answer),
            "score": self.score,
            "model_version": self.model_version,
            "media": list(self.media),
            "videos": [asdict(video) for video in self.videos],
            "left_out": self.left_out,
        }

    @classmethod
    def from_json(cls, key: str, created_at: float, body: Mapping[str, Any]) -> StoredResult:
        return cls(
            key=key,
            regions=tuple(body["regions"]),
            answer=tuple(body["answer"]),
            score=body["score"],
            model_version=body["model_version"],
            media=tuple(body["media"]),
            created_at=created_at,
            # Results of before videos were kept have none.
            videos=tuple(ResultVideo(**video) for video in body.get("videos", ())),
            left_out=body.get("left_out"),
        )
