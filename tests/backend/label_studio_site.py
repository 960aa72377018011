"""A Label Studio of sorts on a real port: tasks, predictions, and whatever goes wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

from tests.backend.http_server import Asked, Reply, Site, serving_site

KEY = "0" * 40


class LabelStudioSite:
    """Keeps what is posted; `failures` are given first, one a posted prediction."""

    def __init__(self, site: Site) -> None:
        self.site, self.url = site, site.url
        self.tasks: dict[int, dict] = {}
        self.projects: dict[int, set[int]] | None = None
        """Project id -> ids of its tasks; None: whatever is asked for is there."""
        self.predictions: list[dict] = []
        self.failures: list[Callable[[Asked, dict], Reply | None]] = []
        self.attempts = 0
        self.arrived = threading.Semaphore(0)
        """Released with each prediction that is stored."""
        site.otherwise = self._answer

    def _answer(self, asked: Asked) -> Reply:
        parts = urlsplit(asked.path)
        if parts.path.startswith("/api/projects/"):
            number = int(parts.path.split("/")[3])
            is_there = self.projects is None or number in self.projects
            if not is_there:
                return _json({"status_code": 404, "detail": "No Project matches."}, 404)
            return _json({"id": number})
        if parts.path == "/api/tasks/":
            return self._found(parse_qs(parts.query))
        if parts.path.startswith("/api/tasks/"):
            task = self.tasks.get(int(parts.path.split("/")[3]))
            if task is None:
                return Reply(status=404)
            part = parts.path.strip("/").split("/")[3:]
            return _json(task.get(part[0], []) if part else task)
        if parts.path.rstrip("/") == "/api/predictions":
            if asked.method == "GET":
                wanted = int(parse_qs(parts.query)["task"][0])
                return _json([p for p in self.predictions if p["task"] == wanted])
            return self._post(asked)
        return Reply(status=404)

    def _found(self, query: dict[str, list[str]]) -> Reply:
        """The one task that is asked for, in the Data Manager's way."""
        wanted = json.loads(unquote(query["query"][0]))["filters"]["items"][0]["value"]
        project = int(query["project"][0])
        is_there = self.projects is None or wanted in self.projects[project]
        tasks = [{"id": wanted}] if is_there else []
        return _json({"tasks": tasks, "total": len(tasks)})

    def _post(self, asked: Asked) -> Reply:
        self.attempts += 1
        body = json.loads(asked.body)
        if self.failures and (reply := self.failures.pop(0)(asked, body)) is not None:
            return reply
        return _json(self.store(body), 201)

    def store(self, body: dict) -> dict:
        prediction = {**body, "id": len(self.predictions) + 1}
        self.predictions.append(prediction)
        self.arrived.release()
        return prediction


def status(code: int, **headers: str) -> Callable[[Asked, dict], Reply]:
    """A failure: this status, nothing stored."""
    body = json.dumps({"detail": f"answer {code}"}).encode()
    return lambda asked, _: Reply(
        body, code, {"Content-Type": "application/json"}
        | {name.replace("_", "-"): value for name, value in headers.items()}
    )


def _json(value: object, code: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), code, {"Content-Type": "application/json"})


@contextlib.contextmanager
def serving_label_studio(port: int = 0) -> Iterator[LabelStudioSite]:
    with serving_site(port=port) as site:
        yield LabelStudioSite(site)
