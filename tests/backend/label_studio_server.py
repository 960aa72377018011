"""A small real HTTP server that answers as Label Studio 1.23.2 was recorded to.

It keeps projects, tasks, uploads and predictions, in the shapes of the real
server's JSON (fields that nothing of ours reads are left out).
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "0123456789abcdef0123456789abcdef01234567"
NOW = "2026-11-25T07:11:02.550371Z"
PAGE_SIZE = 100


@dataclass
class Call:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    authorization: str | None
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content) if self.content else None


@dataclass
class Answer:
    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def problem(status: int, detail: str, **more: Any) -> Answer:
    """An error as Django REST framework and Label Studio write it."""
    body = {
        "id": "61c8dfe0-b7f8-413f-8402-018e5d22ec05", "status_code": status,
        "version": "1.23.2", "detail": detail, "exc_info": None, **more,
    }
    return Answer(body, status)


def refused(**reasons: list[str]) -> Answer:
    return problem(400, "Validation error", validation_errors=reasons)


Route = Callable[["LabelStudioServer", Call, "re.Match[str]"], Answer]


class LabelStudioServer:
    """What it holds may be read and changed by a test at any time between calls."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[Call] = []
        self.special: dict[tuple[str, str], Answer | Callable[[Call], Answer]] = {}
        """(method, path) -> what is answered instead."""
        self.projects: dict[int, dict[str, Any]] = {}
        self.tasks: dict[int, dict[str, Any]] = {}
        self.uploads: dict[int, tuple[str, bytes]] = {}
        self.backends: list[dict[str, Any]] = []
        self.webhooks: list[dict[str, Any]] = []
        self.snapshots: dict[int, dict[str, Any]] = {}
        self.snapshot_states = ["completed"]
        self.blocks_private_addresses = False
        self.backend_is_up = True
        self._numbers = iter(range(1, 1_000_000))

    def add_project(self, label_config: str, **fields: Any) -> int:
        number = next(self._numbers)
        self.projects[number] = {
            "id": number, "title": "", "label_config": label_config, "model_version": "",
            "task_number": 0, "evaluate_predictions_automatically": False, **fields,
        }
        return number

    def add_task(self, project: int, data: dict[str, Any], **fields: Any) -> int:
        number = next(self._numbers)
        task = {"id": number, "project": project, "data": data, "annotations": [], "drafts": [],
                "predictions": [], **fields}
        self.tasks[number] = task
        return number

    def now(self) -> str:
        """A later time with each call."""
        return NOW.replace(".550371Z", f".{next(self._numbers):06d}Z")

    def asked(self, method: str, path: str = "") -> list[Call]:
        return [c for c in self.calls if c.method == method and path in c.path]

    def answer(self, call: Call) -> Answer:
        self.calls.append(call)
        special = self.special.get((call.method, call.path))
        if special is not None:
            return special(call) if callable(special) else special
        if call.authorization != f"Token {KEY}":
            return problem(401, "Invalid token.")
        for method, pattern, route in _ROUTES:
            match = re.fullmatch(pattern, call.path)
            if match and method == call.method:
                try:
                    return route(self, call, match)
                except KeyError:
                    return problem(404, "No Project matches the given query.")
        return Answer(b"<!DOCTYPE html><html>404</html>", 404, {"Content-Type": "text/html"})


# --- routes -------------------------------------------------------------------


def _who_am_i(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer({"id": 1, "email": "admin@example.com", "username": "admin"})


def _version(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer({"release": "1.23.2", "label-studio-os-package": {"version": "1.23.2"}})


def _paged(items: list[Any], call: Call) -> list[Any] | None:
    page = int(call.query.get("page", 1))
    size = int(call.query.get("page_size", PAGE_SIZE))
    part = items[(page - 1) * size : page * size]
    return None if not part and page > 1 else part


def _projects(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    page = _paged(list(server.projects.values()), call)
    return problem(404, "Invalid page.") if page is None else Answer({"results": page})


def _create_project(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    body = call.json
    if not body["label_config"].startswith("<View"):
        return refused(label_config=["unclosed token: line 1, column 6"])
    number = server.add_project(**body)
    return Answer(server.projects[number], 201)


def _project(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer(server.projects[int(match[1])])


def _change_project(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    server.projects[int(match[1])].update(call.json)
    return Answer(server.projects[int(match[1])])


def _import(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    project = server.projects[int(match[1])]
    if call.query.get("commit_to_project") == "false":
        names = re.findall(rb'name="file\d*"; filename="([^"]+)"', call.content)
        ids = []
        for name in names:
            number = next(server._numbers)
            text = name.decode().replace(" ", "_")
            server.uploads[number] = (f"upload/{match[1]}/{number:08x}-{text}", call.content)
            ids.append(number)
        # In any order: nothing says that it is the request's.
        return Answer({"task_count": 0, "file_upload_ids": ids, "found_formats": {}}, 201)
    ids = [server.add_task(project["id"], task["data"]) for task in call.json]
    return Answer({"task_count": len(ids), "task_ids": ids, "file_upload_ids": []}, 201)


def _uploads(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    wanted = json.loads(call.query["ids"])
    found = [{"id": i, "file": server.uploads[i][0], "size": 1} for i in sorted(wanted)]
    return Answer(found[::-1])


def _task_heads(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    project = server.projects[int(call.query["project"])]
    # It unquotes the query itself, though the parameter came unquoted.
    query = json.loads(unquote(call.query.get("query", "{}")))
    heads = [
        {"id": t["id"], "data": t["data"], "project": project["id"], "drafts": [],
         "total_annotations": len(t["annotations"]), "total_predictions": len(t["predictions"])}
        for t in server.tasks.values()
        if t["project"] == project["id"] and _is_meant(t, query.get("filters"))
    ]
    page = _paged(heads, call)
    if page is None:
        return problem(404, "Invalid page.")
    return Answer({"tasks": page, "total": len(heads)})


def _is_meant(task: dict[str, Any], filters: dict[str, Any] | None) -> bool:
    """Of the Data Manager's filters, those that are asked of it here."""
    if filters is None:
        return True
    assert filters["conjunction"] == "or"
    return any(_meets(task, item) for item in filters["items"])


def _meets(task: dict[str, Any], item: dict[str, Any]) -> bool:
    assert item["operator"] == "equal"
    column = item["filter"].removeprefix("filter:tasks:")
    value = task["id"] if column == "id" else task["data"].get(column.removeprefix("data."))
    return value == item["value"]


def _task_list(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    found = [t for t in server.tasks.values() if t["project"] == int(match[1])]
    page = _paged(found, call)
    return Answer(page) if page else problem(404, "Not found.")


def _task(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer(server.tasks[int(match[1])])


def _drafts(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer(server.tasks[int(match[1])]["drafts"])


def _annotations(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer(server.tasks[int(match[1])]["annotations"])


def _create_annotation(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    item = {
        "id": next(server._numbers), "was_cancelled": False, "updated_at": server.now(), **call.json
    }
    server.tasks[int(match[1])]["annotations"].append(item)
    return Answer(item, 201)


def _create_draft(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    item = {
        "id": next(server._numbers), "annotation": None, "user": "admin@example.com",
        "updated_at": server.now(), **call.json,
    }
    server.tasks[int(match[1])]["drafts"].append(item)
    return Answer(item, 201)


def _change(kind: str) -> Route:
    """PATCH of an annotation, a draft or a prediction of any task."""

    def change(server: LabelStudioServer, call: Call, match: Any) -> Answer:
        for task in server.tasks.values():
            for item in task[kind]:
                if item["id"] == int(match[1]):
                    item.update(call.json, updated_at=server.now())
                    return Answer(item)
        return problem(404, "Not found.")

    return change


def _predictions(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer(server.tasks[int(call.query["task"])]["predictions"])


def _create_prediction(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    body = call.json
    if body["task"] not in server.tasks:
        return refused(task=[f'Invalid pk "{body["task"]}" - object does not exist.'])
    item = {"id": next(server._numbers), "updated_at": NOW, **body}
    server.tasks[body["task"]]["predictions"].append(item)
    return Answer(item, 201)


def _delete_prediction(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    for task in server.tasks.values():
        task["predictions"] = [p for p in task["predictions"] if p["id"] != int(match[1])]
    return Answer(None, 204)


def _backends(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    number = int(call.query["project"])
    return Answer([b for b in server.backends if b["project"] == number])


def _connect(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    body = call.json
    if server.blocks_private_addresses:
        return problem(403, "URL resolves to a reserved network address (block: 127.0.0.0/8)")
    if body["project"] not in server.projects:
        return refused(project=[f'Invalid pk "{body["project"]}" - object does not exist.'])
    if not server.backend_is_up:
        return refused(non_field_errors=[
            f"Can't connect to ML backend {body['url']}, health check failed. Make sure it is up. "
            '<a href="https://labelstud.io/guide/ml.html">Learn more</a>'
        ])
    item = {"id": next(server._numbers), "state": "CO", "readable_state": "Connected",
            "error_message": None, **body}
    server.backends.append(item)
    server.webhooks.append({"id": next(server._numbers), "project": body["project"],
                            "url": f"{body['url']}/webhook", "is_active": True})
    return Answer(item, 201)


def _change_backend(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    (item,) = [b for b in server.backends if b["id"] == int(match[1])]
    for name in ("url", "project"):
        if name not in call.json:
            return problem(500, f"MLBackend.setup_() missing 1 required argument: '{name}'")
    item.update(call.json)
    return Answer(item)


def _webhooks(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    number = int(call.query["project"])
    return Answer([w for w in server.webhooks if w["project"] == number])


def _change_webhook(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    (item,) = [w for w in server.webhooks if w["id"] == int(match[1])]
    item.update(call.json)
    return Answer(item)


def _create_webhook(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    item = {"id": next(server._numbers), **call.json}
    server.webhooks.append(item)
    return Answer(item, 201)


def _create_snapshot(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    number = next(server._numbers)
    is_full = not call.json["serialization_options"]["predictions"]["only_id"]
    states = list(server.snapshot_states)
    server.snapshots[number] = {"is_full": is_full, "states": states, "project": int(match[1])}
    return Answer({"id": number, "status": states.pop(0), "title": call.json["title"]}, 201)


def _snapshot(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    return Answer({"id": int(match[2]), "status": server.snapshots[int(match[2])]["states"].pop(0)})


def _download(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    snapshot = server.snapshots[int(match[2])]
    tasks = []
    for task in server.tasks.values():
        if task["project"] == snapshot["project"]:
            shown = dict(task)
            if not snapshot["is_full"]:
                shown |= {k: [i["id"] for i in task[k]] for k in ("predictions", "drafts")}
            tasks.append(shown)
    return Answer(tasks)


def _delete_snapshot(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    del server.snapshots[int(match[2])]
    return Answer(None, 204)


def _uploaded(server: LabelStudioServer, call: Call, match: Any) -> Answer:
    for name, content in server.uploads.values():
        if name == match[1]:
            return Answer(content, headers={"Content-Type": "application/octet-stream"})
    raise KeyError(match[1])


_ROUTES: list[tuple[str, str, Route]] = [
    ("GET", "/api/current-user/whoami", _who_am_i),
    ("GET", "/api/version/", _version),
    ("GET", "/api/projects/", _projects),
    ("POST", "/api/projects/", _create_project),
    ("GET", r"/api/projects/(\d+)/", _project),
    ("PATCH", r"/api/projects/(\d+)/", _change_project),
    ("POST", r"/api/projects/(\d+)/import", _import),
    ("GET", r"/api/projects/(\d+)/file-uploads", _uploads),
    ("GET", r"/api/projects/(\d+)/tasks/", _task_list),
    ("POST", r"/api/projects/(\d+)/exports/", _create_snapshot),
    ("GET", r"/api/projects/(\d+)/exports/(\d+)", _snapshot),
    ("GET", r"/api/projects/(\d+)/exports/(\d+)/download", _download),
    ("DELETE", r"/api/projects/(\d+)/exports/(\d+)", _delete_snapshot),
    ("GET", "/api/tasks/", _task_heads),
    ("GET", r"/api/tasks/(\d+)/", _task),
    ("GET", r"/api/tasks/(\d+)/drafts", _drafts),
    ("POST", r"/api/tasks/(\d+)/drafts", _create_draft),
    ("PATCH", r"/api/drafts/(\d+)", _change("drafts")),
    ("GET", r"/api/tasks/(\d+)/annotations/", _annotations),
    ("PATCH", r"/api/annotations/(\d+)/", _change("annotations")),
    ("POST", r"/api/tasks/(\d+)/annotations/", _create_annotation),
    ("GET", "/api/predictions/", _predictions),
    ("POST", "/api/predictions/", _create_prediction),
    ("PATCH", r"/api/predictions/(\d+)/", _change("predictions")),
    ("DELETE", r"/api/predictions/(\d+)/", _delete_prediction),
    ("GET", "/api/ml/", _backends),
    ("POST", "/api/ml/", _connect),
    ("PATCH", r"/api/ml/(\d+)", _change_backend),
    ("GET", "/api/webhooks/", _webhooks),
    ("POST", "/api/webhooks/", _create_webhook),
    ("PATCH", r"/api/webhooks/(\d+)/", _change_webhook),
    ("GET", r"/data/(upload/.+)", _uploaded),
]


@contextlib.contextmanager
def serving_label_studio() -> Iterator[LabelStudioServer]:
    state = LabelStudioServer()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            call = Call(
                self.command, parts.path, query, self.headers.get("Authorization"), content
            )
            answer = state.answer(call)
            body = answer.content()
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _answer

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
