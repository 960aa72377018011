"""A store on a real file, with a clock that a test moves."""

import pytest

from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobSpec
from backend.scheduler import Priority
from tests.backend.clock import Clock


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture
def open_store(tmp_path, clock):
    """Opens the file again, as a new process would."""
    opened = []

    def open_again():
        opened.append(JobStore(tmp_path / "service" / "jobs.sqlite3", clock=clock))
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def spec(key="k", priority=Priority.BATCH, *, task_id=1, project_id=1, **more):
    return JobSpec(
        kind=more.pop("kind", JobKind.TRACK), request=more.pop("request", {"key": key}), key=key,
        priority=priority, project_id=project_id, task_id=task_id, **more,
    )
