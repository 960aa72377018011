"""A tracking job's answer, where it was not made: from the store, or from its worker."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Mapping, Protocol

from backend.jobs.types import ResultVideo, StoredResult
from backend.propagation import Answer


class AnswerSource(Protocol):
    """What those who wait for a tracking job may ask of it, while it runs and after."""

    @property
    def has_enough(self) -> bool:
        """Whether more frames would not change the answer to a person."""
        ...

    @property
    def has_more(self) -> bool:
        """Whether a prediction could hold more than the answer."""
        ...

    @property
    def has_tracked(self) -> bool:
        """Whether there was anything to track."""
        ...

    @property
    def videos(self) -> tuple[ResultVideo, ...]:
        """What it is about, of videos."""
        ...

    def answer(self, *, is_limited: bool = True, is_final: bool = False) -> Answer:
        """What there is so far (`TaskPropagation.answer`)."""
        ...


class StoredAnswer:
    """The answer of a job that is done."""

    has_enough = True
    has_tracked = True

    def __init__(self, result: StoredResult) -> None:
        self._result = result

    @property
    def has_more(self) -> bool:
        return len(self._result.regions) > len(self._result.answer)

    @property
    def videos(self) -> tuple[ResultVideo, ...]:
        return self._result.videos

    def answer(self, *, is_limited: bool = True, is_final: bool = False) -> Answer:
        result = self._result
        regions = result.answer if is_limited else result.regions
        return Answer(
            tuple(dict(region) for region in regions), True, result.score, result.model_version,
            result.left_out,
        )

    def prediction(self) -> dict[str, Any] | None:
        return prediction_of(self, model_version=self._result.model_version)


class PublishedAnswer:
    """What a worker said last of a job that runs: as many regions as one answer may have."""

    def __init__(self, published: Mapping[str, Any] | None) -> None:
        """`published`: by `as_published`; None: nothing yet."""
        self._published = published or {}
        self.has_enough = self._published.get("has_enough", False)
        self.has_more = self._published.get("has_more", False)
        self.has_tracked = self._published.get("has_tracked", False)
        self.videos = tuple(
            ResultVideo(**video) for video in self._published.get("videos", ())
        )

    def answer(self, *, is_limited: bool = True, is_final: bool = False) -> Answer:
        answer = self._published.get("answer")
        if answer is None:
            return Answer((), is_complete=False)
        return Answer(**answer | {"regions": tuple(answer["regions"])})

    def prediction(self) -> dict[str, Any] | None:
        return prediction_of(self, model_version=self.answer().model_version)


def view_of(
    published: Mapping[str, Any] | None, result: StoredResult | None
) -> StoredAnswer | PublishedAnswer:
    """The result's answer, or what was published."""
    return PublishedAnswer(published) if result is None else StoredAnswer(result)


def as_published(work: AnswerSource, is_final: bool) -> dict[str, Any]:
    """An answer so far as JSON, for `PublishedAnswer`."""
    return {
        "has_enough": work.has_enough,
        "has_more": work.has_more,
        "has_tracked": work.has_tracked,
        "videos": [asdict(video) for video in work.videos],
        # Without what is not there: a web process of an earlier version knows less.
        "answer": {
            name: value for name, value in asdict(work.answer(is_final=is_final)).items()
            if value is not None
        },
    }


def prediction_of(work: AnswerSource, *, model_version: str | None) -> dict[str, Any] | None:
    """For Label Studio; None when nothing was found."""
    full = work.answer(is_limited=False)
    if not full.regions:
        return None
    return {
        "result": list(full.regions), "score": full.score, "model_version": model_version,
    }
