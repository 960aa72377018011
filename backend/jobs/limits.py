"""What a queue takes no more of."""

from __future__ import annotations

from backend.errors import TooManyJobs
from backend.jobs.interface import Store
from backend.scheduler import Priority


_WEBHOOK_FACTOR = 10
"""Label Studio does not repeat a webhook: what a person has saved is not to be lost for
batches that wait, and people do not save without end."""


def check_room(
    store: Store, project_id: int | None, priority: Priority, max_queued: int
) -> None:
    """Raises TooManyJobs when a project has as many jobs waiting as it may have.

    People's jobs, which they wait for, are bounded by their requests.
    """
    if priority is Priority.INTERACTIVE:
        return
    if priority is Priority.WEBHOOK:
        max_queued *= _WEBHOOK_FACTOR
    waiting = store.count_queued(project_id)
    if waiting >= max_queued:
        raise TooManyJobs(
            f"project {project_id} has {waiting} jobs waiting, may have {max_queued}: "
            "ask again later"
        )
