"""Values as Redis hashes keep them: every field is JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Mapping

from backend.jobs.types import Job, JobKind, JobState, Post, PostState
from backend.scheduler import Priority
from backend.sqlite_file import packed, unpacked

Fields = dict[str, Any]

_JOB_FIELDS = tuple(field.name for field in dataclasses.fields(Job) if field.name != "request")


def encoded(fields: Mapping[str, Any]) -> dict[str, str]:
    """As `hset` takes it."""
    return {name: json.dumps(value) for name, value in fields.items()}


def decoded(stored: Mapping[bytes, bytes]) -> Fields:
    """What `hgetall` gave."""
    return {name.decode(): json.loads(value) for name, value in stored.items()}


def job_of(fields: Fields, request: bytes | None) -> Job:
    """`request`: packed; None leaves it empty."""
    # Records of an earlier version have no `left_out`.
    values = {name: fields[name] for name in _JOB_FIELDS if name in fields}
    values.update(
        kind=JobKind(fields["kind"]),
        state=JobState(fields["state"]),
        priority=Priority(fields["priority"]),
        request={} if request is None else unpacked(request),
    )
    return Job(**values)


def post_of(fields: Fields, prediction: bytes | None) -> Post:
    values = {field.name: fields.get(field.name) for field in dataclasses.fields(Post)}
    values.update(
        state=PostState(fields["state"]),
        prediction={} if prediction is None else unpacked(prediction),
    )
    return Post(**values)


__all__ = ["Fields", "decoded", "encoded", "job_of", "packed", "post_of", "unpacked"]
