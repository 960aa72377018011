"""What `doctor` says of a real Redis."""

import contextlib

from backend.doctor_queue import queue_findings
from backend.findings import Level
from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.store import RedisJobStore
from backend.settings import Settings


def said(settings):
    return {finding.text: finding.level for finding in queue_findings(settings)}


def test_redis_and_its_workers_are_looked_at(redis_server):
    settings = Settings(queue=redis_server.url)
    with redis_server.client() as redis:
        redis.flushall()
        assert said(settings)["no worker is running"] is Level.BROKEN
        connection = connect(redis_server.url, patience_seconds=5)
        with contextlib.closing(RedisJobStore(connection)) as store:
            store.renew_worker("one")
            assert said(settings)["1 workers: one"] is Level.OK
            store.describe_worker("one", settings.tracking_settings)
            assert said(settings)["1 workers: one"] is Level.OK and len(said(settings)) == 2
            store.describe_worker("one", settings.tracking_settings | {"frame_limit": 7})
            (text,) = [text for text in said(settings) if "frame_limit" in text]
            assert "worker one has frame_limit=7, here it is None" in text
            assert said(settings)[text] is Level.BROKEN
            store.end_worker("one")
            assert not store.worker_settings()
            store.renew_worker("one")
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.config_set("appendonly", "no")
        try:
            levels = set(said(settings).values())
            assert levels == {Level.OK, Level.NOTE, Level.BROKEN}
        finally:
            redis.config_set("maxmemory-policy", "noeviction")
            redis.config_set("appendonly", "yes")


def test_without_one_there_is_nothing_to_look_at():
    assert list(said(Settings()).values()) == [Level.OK]


def test_a_redis_that_is_not_there_is_said_without_its_password():
    (text,) = said(Settings(queue="redis://:secret@127.0.0.1:9/0"))
    assert "cannot be used" in text and "secret" not in text
