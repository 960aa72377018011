"""What is asked of the model for one task: plain data that a job can be stored as."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from backend.text_commands import Command

Result = Mapping[str, Any]

_MAX_ID = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class TaskRequest:
    """Results on one Label Studio task, to be tracked."""

    task_id: int | None
    project_id: int | None
    data: Mapping[str, Any]
    """The task's data: where its media is."""
    label_config: str
    results: tuple[Result, ...]
    command: Command | None = None
    """What a person said to do with all of them. None: regions whose prompts were
    answered before come back as they are."""
    region_commands: Mapping[str, Command] = field(default_factory=dict)
    """The same for one region, by its id."""

    @classmethod
    def of(
        cls,
        task: Mapping[str, Any],
        results: Sequence[Result],
        label_config: str,
        *,
        command: Command | None = None,
        region_commands: Mapping[str, Command] | None = None,
    ) -> TaskRequest:
        """Raises ValueError for a task whose data is no object, or an id out of range."""
        data = task.get("data")
        if not isinstance(data, Mapping):
            raise ValueError(f"task {task.get('id')!r}: data must be an object")
        return cls(
            task_id=_id(task.get("id"), "a task's id"),
            project_id=_id(task.get("project"), "a task's project"),
            data=data,
            label_config=label_config,
            results=tuple(results),
            command=command,
            region_commands=region_commands or {},
        )

    def command_for(self, region_id: object) -> Command | None:
        """What a person said to do with a region."""
        if not isinstance(region_id, str):
            return self.command
        return self.region_commands.get(region_id, self.command)

    def to_json(self) -> dict[str, Any]:
        """Reads back as `from_json`."""
        return {
            "task_id": self.task_id,
            "project_id": self.project_id,
            "data": dict(self.data),
            "label_config": self.label_config,
            "results": [dict(result) for result in self.results],
            "command": None if self.command is None else self.command.to_json(),
            "region_commands": {
                region_id: command.to_json()
                for region_id, command in self.region_commands.items()
            },
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> TaskRequest:
        command = stored["command"]
        return cls(
            task_id=stored["task_id"],
            project_id=stored["project_id"],
            data=stored["data"],
            label_config=stored["label_config"],
            results=tuple(stored["results"]),
            command=None if command is None else Command.from_json(command),
            region_commands={
                region_id: Command.from_json(command)
                for region_id, command in stored["region_commands"].items()
            },
        )


def fingerprint(value: Any) -> str:
    """A short name of a JSON value: equal values have equal names."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _id(value: object, name: str) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if not 0 <= value <= _MAX_ID:
        raise ValueError(f"{name} {value!r:.40} must be from 0 to {_MAX_ID}")
    return value
