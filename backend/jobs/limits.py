"""What a queue takes no more of."""

from __future__ import annotations

from backend.errors import TooManyJobs
from backend.jobs.interface import Store


def check_room(store: Store, project_id: int | None, max_queued: int) -> None:
    """Raises TooManyJobs when a project has as many jobs waiting as it may have."""
    waiting = store.count_queued(project_id)
    if waiting >= max_queued:
        raise TooManyJobs(
            f"project {project_id} has {waiting} jobs waiting, may have {max_queued}: "
            "ask again later"
        )
