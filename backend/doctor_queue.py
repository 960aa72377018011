"""What `doctor` looks at of the Redis of SAM2_QUEUE, and of the workers on it."""

from __future__ import annotations

import contextlib
import dataclasses

from backend.engines import Role, open_choice, open_store
from backend.findings import Finding, Findings, Level, broken, note, ok
from backend.settings import Settings

_OLDEST = (6, 2)


def queue_findings(settings: Settings) -> Findings:
    """Whether Redis answers and keeps what it is given, and who works. Changes nothing."""
    if settings.queue is None:
        yield ok("jobs are kept in the data folder (no SAM2_QUEUE)")
        return
    from redis.exceptions import RedisError

    try:
        # Redis is looked at whether the storage can be used or not.
        without_storage = dataclasses.replace(settings, storage=None)
        with contextlib.closing(open_store(without_storage, Role.WEB)[0]) as store:
            yield from _redis_findings(store.redis.info())
            yield from _worker_findings(store.live_workers())
            storage = _storage_finding(settings)
            if storage is not None:
                yield storage
            if storage is None or storage.level is Level.OK:
                settings = open_choice(settings, Role.WEB).settings
            yield from _setting_findings(settings, store.worker_settings())
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


def _setting_findings(settings: Settings, workers: dict[str, dict]) -> Findings:
    # Imported here: what talks to Redis is an extra.
    from backend.jobs.distributed.worker import differing

    ours = settings.tracking_settings
    for name, theirs in sorted(workers.items()):
        for setting in differing(ours, theirs):
            yield broken(
                f"worker {name} has {setting}={theirs.get(setting)!r}, here it is "
                f"{ours[setting]!r}: equal requests get other answers",
                "give all processes of SAM2_QUEUE the same settings (docs/scaling.md)",
            )


def _storage_finding(settings: Settings) -> Finding | None:
    """None: there is none."""
    if settings.storage is None:
        return None
    from backend.jobs.distributed.storage import open_storage

    try:
        open_storage(settings.storage).load("any")
        return ok(f"the storage {settings.storage} can be read")
    except Exception as error:  # each kind of storage has its own
        return broken(
            f"the storage {settings.storage} cannot be read: {type(error).__name__}: {error}",
            "see that the folder or bucket is there, and its keys in the environment",
        )


def _worker_findings(names: list[str]) -> Findings:
    if names:
        yield ok(f"{len(names)} workers: {', '.join(sorted(names))}")
    else:
        yield broken(
            "no worker is running",
            "start `sam2-label-studio worker` with the same SAM2_QUEUE on the machines with GPUs",
        )
