"""What a queue takes no more of."""

from __future__ import annotations

from dataclasses import dataclass

from backend.errors import TooManyJobs
from backend.jobs.interface import Store
from backend.jobs.types import JobState
from backend.scheduler import Priority


_WEBHOOK_FACTOR = 10
"""Label Studio does not repeat a webhook: what a person has saved is not to be lost for
batches that wait, and people do not save without end."""


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """How many jobs in the background may wait."""

    per_project: int
    """Of one project; ten times as many for webhooks."""
    in_all: int
    """Of all, whatever projects they name; batches take half of them at most."""


def check_room(
    store: Store, project_id: int | None, priority: Priority, limits: QueueLimits
) -> None:
    """Raises TooManyJobs when as many jobs wait as may, of a project or of all.

    People's jobs, which they wait for, are bounded by their requests.
    """
    if priority is Priority.INTERACTIVE:
        return
    is_webhook = priority is Priority.WEBHOOK
    most = limits.per_project * (_WEBHOOK_FACTOR if is_webhook else 1)
    waiting = store.count_queued(project_id)
    if waiting >= most:
        raise TooManyJobs(
            f"project {project_id} has {waiting} jobs waiting, may have {most}: ask again later"
        )
    most = limits.in_all if is_webhook else max(limits.in_all // 2, 1)
    waiting = store.counts()[JobState.QUEUED]
    if waiting >= most:
        raise TooManyJobs(
            f"{waiting} jobs of all projects wait, {most} may (SAM2_MAX_QUEUED): ask again later"
        )
