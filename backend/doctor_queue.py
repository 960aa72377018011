"""What `doctor` looks at of the Redis of SAM2_QUEUE, and of the workers on it."""

from __future__ import annotations

import contextlib

from backend.engines import Role, open_store
from backend.findings import Findings, broken, note, ok
from backend.settings import Settings

_OLDEST = (6, 2)


def queue_findings(settings: Settings) -> Findings:
    """Whether Redis answers and keeps what it is given, and who works. Changes nothing."""
    if settings.queue is None:
        yield ok("jobs are kept in the data folder (no SAM2_QUEUE)")
        return
    from redis.exceptions import RedisError

    try:
        with contextlib.closing(open_store(settings, Role.WEB)[0]) as store:
            yield from _redis_findings(store.redis.info())
            yield from _worker_findings(store.live_workers())
    except RedisError as error:
        yield broken(
            f"Redis cannot be used: {type(error).__name__}",
            "start it, and see that SAM2_QUEUE has its address, password and database",
        )


def _redis_findings(info: dict) -> Findings:
    version = info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        yield broken(f"Redis {version}", "6.2 or newer is needed")
    else:
        yield ok(f"Redis {version}, {info['used_memory_human']} used")
    if not info.get("aof_enabled"):
        yield note(
            "Redis has no append-only file: jobs are lost when it ends",
            "set appendonly yes (docs/scaling.md)",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield broken(
            f"Redis may throw jobs away (maxmemory-policy {policy})",
            "set maxmemory-policy noeviction",
        )


def _worker_findings(names: list[str]) -> Findings:
    if names:
        yield ok(f"{len(names)} workers: {', '.join(sorted(names))}")
    else:
        yield broken(
            "no worker is running",
            "start `sam2-label-studio worker` with the same SAM2_QUEUE on the machines with GPUs",
        )
