"""The names under which things are kept in Redis. RQ's own begin with `rq:`."""

from __future__ import annotations

import hashlib

from backend.jobs.types import JobKind, JobState, PostState

_PREFIX = "sam2:"

ALL_JOBS = f"{_PREFIX}jobs"
"""Sorted set of job ids, the newest with the highest number; so are the next ones."""
SEQUENCE = f"{_PREFIX}sequence"
RETRIES = f"{_PREFIX}retries"
"""Sorted set: job -> when it may be tried again."""
LEASES = f"{_PREFIX}leases"
"""Sorted set: running job -> until when its worker is taken to live."""
WAITER_LEASES = f"{_PREFIX}waiter-leases"
"""Sorted set: "job waiter" -> until when the one who waits is taken to live."""
PREFERRED = f"{_PREFIX}preferred"
"""Sorted set: job that waits for one worker -> until when it waits for that one alone."""
FINISHED = f"{_PREFIX}finished"
"""Sorted set: job -> when it ended."""
POST_SEQUENCE = f"{_PREFIX}post-sequence"
POSTS_DUE = f"{_PREFIX}posts-due"
"""Sorted set: prediction under way -> when it is to be posted."""
RESULTS_BY_USE = f"{_PREFIX}results-by-use"
RESULT_SIZES = f"{_PREFIX}result-sizes"
EVENTS = f"{_PREFIX}events"
"""Channel of `events`."""
WORKERS = f"{_PREFIX}workers"
"""Sorted set: worker -> until when it is taken to live."""
WORKER_SETTINGS = f"{_PREFIX}worker-settings"
"""Hash: worker -> what it runs with (`RedisJobs.describe_worker`)."""


def job(job_id: str) -> str:
    return f"{_PREFIX}job:{job_id}"


def request(job_id: str) -> str:
    return f"{_PREFIX}request:{job_id}"


def unfinished(key: str) -> str:
    """-> the id of the one unfinished job that does this."""
    return f"{_PREFIX}unfinished:{_short(key)}"


def jobs_of_state(kind: JobKind, state: JobState) -> str:
    return f"{_PREFIX}jobs:{kind}:{state}"


def jobs_of_task(task_id: int) -> str:
    return f"{_PREFIX}jobs-of-task:{task_id}"


def jobs_of_project(project_id: int) -> str:
    return f"{_PREFIX}jobs-of-project:{project_id}"


def queued_of_project(project_id: int | None) -> str:
    return f"{_PREFIX}queued:{project_id}"


def waiters(job_id: str) -> str:
    return f"{_PREFIX}waiters:{job_id}"


def published(job_id: str) -> str:
    return f"{_PREFIX}published:{job_id}"


def blob(name: str) -> str:
    return f"{_PREFIX}blob:{name}"


def holder(task_id: int) -> str:
    """-> the worker that has the task's video open."""
    return f"{_PREFIX}holder:{task_id}"


def post(post_id: int) -> str:
    return f"{_PREFIX}post:{post_id}"


def prediction(post_id: int) -> str:
    return f"{_PREFIX}prediction:{post_id}"


def post_of_job(job_id: str) -> str:
    return f"{_PREFIX}post-of-job:{job_id}"


def posts_of_state(state: PostState) -> str:
    return f"{_PREFIX}posts:{state}"


def result(key: str) -> str:
    return f"{_PREFIX}result:{key}"


def result_body(key: str) -> str:
    return f"{_PREFIX}result-body:{key}"


def results_of_media(reference: str) -> str:
    return f"{_PREFIX}results-of-media:{_short(reference)}"


def result_of_request(request_key: str) -> str:
    return f"{_PREFIX}result-of-request:{_short(request_key)}"


def requests_of_result(key: str) -> str:
    return f"{_PREFIX}requests-of-result:{key}"


def _short(text: str) -> str:
    """References and keys may be of any length."""
    encoded = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()
