"""A store of each engine, with a clock that a test moves."""

import pytest

from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.store import JobStore
from backend.jobs.types import JobKind, JobSpec
from backend.scheduler import Priority
from tests.backend.clock import Clock


@pytest.fixture
def clock():
    return Clock(1000.0)


@pytest.fixture(params=["sqlite", "redis"])
def engine(request):
    return request.param


@pytest.fixture
def open_store(engine, request, tmp_path, clock):
    """Opens what is kept again, as a new process would."""
    opened = []
    if engine == "redis":
        server = request.getfixturevalue("redis_server")
        with server.client() as client:
            client.flushall()

    def open_again():
        if engine == "redis":
            store = RedisJobStore(connect(server.url, patience_seconds=5), clock=clock)
        else:
            store = JobStore(tmp_path / "service" / "jobs.sqlite3", clock=clock)
        opened.append(store)
        return store

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
