"""Label Studio's API, through label-studio-sdk: the calls that the service and the commands make.

Answers are plain data as Label Studio sent them. The SDK is imported at the
first call: it takes seconds, and the service answers before.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Callable, Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from backend import log_context
from backend.deadlines import Deadline
from backend.errors import ServiceError
from backend.settings import Settings
from converters.label_studio.config import LabelConfig
from converters.label_studio.outgoing import check_prediction, check_results

if TYPE_CHECKING:
    from label_studio_sdk.client import LabelStudio

Json = dict[str, Any]

_SECONDS = 30.0
_CONNECT_SECONDS = 5.0
_TRANSFER_SECONDS = 600.0
"""For uploads and exports, which Label Studio answers when it is done."""
_PAGE_SIZE = 100
_SHOWN_CHARACTERS = 300
_POLL_SECONDS = 1.0
_SNAPSHOT = "sam2-label-studio"
_BYTES = "application/octet-stream"
_NO_PROJECT = 0
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


class LabelStudioFailure(enum.StrEnum):
    """Why Label Studio did not do what was asked."""

    TOKEN_REFUSED = "token refused"
    NOT_FOUND = "not found"
    CONTENT_REFUSED = "content refused"
    UNREACHABLE = "unreachable"
    BUSY = "busy or broken"
    ADDRESS_BLOCKED = "address blocked"
    NOT_LABEL_STUDIO = "not Label Studio"


_RETRYABLE = (LabelStudioFailure.UNREACHABLE, LabelStudioFailure.BUSY)


class LabelStudioError(ServiceError):
    """Label Studio refused, failed, or could not be reached."""

    status, name = 502, "Label Studio did not take it"

    def __init__(
        self,
        failure: LabelStudioFailure,
        detail: str,
        *,
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.failure = failure
        self.http_status = http_status
        """What Label Studio answered; None: it did not answer."""
        self.retry_after_seconds = retry_after_seconds
        """What it asked for; None: nothing."""

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later, nothing else being changed."""
        return self.failure in _RETRYABLE


class TokenKind(enum.StrEnum):
    """What a key is, told by its form."""

    LEGACY = "legacy token"
    PERSONAL_ACCESS = "personal access token"


def token_kind(api_key: str) -> TokenKind:
    """A JSON web token has three parts; a legacy token is hexadecimal."""
    return TokenKind.PERSONAL_ACCESS if api_key.count(".") == 2 else TokenKind.LEGACY


@dataclass(frozen=True)
class NewestWork:
    """A task's draft or annotation that was changed last."""

    is_draft: bool
    id: int
    result: list[Json]
    updated_at: str
    annotation_id: int | None
    """The annotation that it is, or is a draft of; None: a draft of a new one."""


class LabelStudioClient:
    """One Label Studio server and the key for it. Thread safe.

    Calls raise LabelStudioError, and ValueError for content that is refused
    before it is sent. Nothing is retried here. Redirects are not followed, so
    that the key stays with the server that it was given for.
    """

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float = _SECONDS) -> None:
        self.url = url.rstrip("/")
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> LabelStudioClient:
        """Raises ValueError when the settings name no Label Studio or no key."""
        if not settings.label_studio_url or not settings.label_studio_api_key:
            raise ValueError(
                "Label Studio's address and a key are needed: set LABEL_STUDIO_URL and "
                "LABEL_STUDIO_API_KEY (in Label Studio: Account & Settings)"
            )
        return cls(settings.label_studio_url, settings.label_studio_api_key)

    @property
    def token_kind(self) -> TokenKind:
        return token_kind(self._api_key)

    # --- the server ----------------------------------------------------------

    def who_am_i(self) -> Json:
        """The user that the key belongs to: id, email, ..."""
        with self._asking("who the key belongs to") as sdk:
            return _body(sdk.users.with_raw_response.whoami())

    def version(self) -> Json:
        """`release` and the versions of the parts."""
        with self._asking("for the version") as sdk:
            return _body(sdk.versions.with_raw_response.get())

    # --- projects ------------------------------------------------------------

    def project(self, project_id: int) -> Json:
        """The project: title, label_config, model_version, ..."""
        with self._asking(f"for project {project_id}") as sdk:
            return _body(sdk.projects.with_raw_response.get(project_id))

    def projects(self) -> Iterator[Json]:
        """All projects that the key may see."""
        return self._pages("for the projects", "api/projects/", {}, "results")

    def create_project(self, title: str, label_config: str, **fields: Any) -> Json:
        """The new project. `fields` are more of Label Studio's own names."""
        with self._asking(f"to create project {title!r}") as sdk:
            return _body(
                sdk.projects.with_raw_response.create(
                    title=title, label_config=label_config, **fields
                )
            )

    def update_project(self, project_id: int, **fields: Any) -> Json:
        """The project after the change."""
        with self._asking(f"to change project {project_id}") as sdk:
            return _body(sdk.projects.with_raw_response.update(project_id, **fields))

    def export_json(
        self,
        project_id: int,
        file: BinaryIO,
        *,
        in_full: bool = False,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """Write Label Studio's JSON export of all tasks into the file.

        Through a snapshot, which is removed afterwards: the one way that holds
        for large projects and for Enterprise.

        Args:
            in_full: predictions and drafts too; else their ids alone.
            wait: is called with the seconds to wait while it is being made.
        """
        only_id = {"only_id": not in_full}
        fields = {"predictions": only_id, "drafts": only_id, "interpolate_key_frames": False}
        limits: Any = {"timeout": _TRANSFER_SECONDS}
        with self._asking(f"to export project {project_id}") as sdk:
            exports = sdk.projects.exports
            snapshot = _body(
                exports.with_raw_response.create(
                    project_id, title=_SNAPSHOT, serialization_options=fields,
                    request_options=limits,
                )
            )
            snapshot_id = _field(snapshot, "id", int)
            try:
                deadline = Deadline(_TRANSFER_SECONDS)
                while snapshot.get("status") != "completed":
                    if snapshot.get("status") == "failed" or deadline.has_passed():
                        raise self._not_exported(project_id, snapshot.get("status"))
                    wait(_POLL_SECONDS)
                    snapshot = _body(exports.with_raw_response.get(project_id, snapshot_id))
                chunks = exports.download(
                    project_id, snapshot_id, export_type="JSON", request_options=limits
                )
                for chunk in chunks:
                    file.write(chunk)
            finally:
                exports.delete(project_id, snapshot_id)

    def _not_exported(self, project_id: int, state: object) -> LabelStudioError:
        return LabelStudioError(
            LabelStudioFailure.BUSY,
            f"{self.url} was asked to export project {project_id}, and the export is {state!r}: "
            "see the project's export page, and Label Studio's log",
        )

    # --- tasks ---------------------------------------------------------------

    def task_heads(self, project_id: int) -> Iterator[Json]:
        """Id and data of all tasks of the project, by id; asks no model for anything."""
        # Without `review` Label Studio has the model predict a page's tasks before it answers.
        parameters = {"project": project_id, "review": "true"}
        return self._pages(
            f"for the tasks of project {project_id}", "api/tasks/", parameters, "tasks"
        )

    def find_tasks(
        self,
        project_id: int,
        conditions: Sequence[tuple[str, object]] = (),
        *,
        page: int = 1,
        page_size: int = _PAGE_SIZE,
    ) -> tuple[list[Json], int]:
        """A page of the tasks of which one of the conditions holds, and how many there are.

        Id, data as it was imported, and counts; asks no model for anything.

        Args:
            conditions: (column of the Data Manager, value that it must have): "id",
                "data.video"; none: all tasks.
        """
        items = [
            {
                "filter": f"filter:tasks:{column}",
                "operator": "equal",
                "type": "Number" if isinstance(value, int) else "String",
                "value": value,
            }
            for column, value in conditions
        ]
        query = {"filters": {"conjunction": "or", "items": items}} if items else {}
        parameters = {
            "project": project_id,
            # Without `review` Label Studio has the model predict the tasks before it answers.
            "review": "true",
            "resolve_uri": "false",
            "page": page,
            "page_size": page_size,
            # Label Studio unquotes it once more than the parameter that it is.
            "query": quote(json.dumps(query)),
        }
        with self._asking(f"for tasks of project {project_id}") as sdk:
            response = sdk._client_wrapper.httpx_client.request(
                "api/tasks/", method="GET", params=parameters
            )
            if response.status_code == 404 and page > 1:
                return [], 0  # past the end
            answer = _checked(response, dict)
            return _field(answer, "tasks", list), _field(answer, "total", int)

    def tasks(self, project_id: int) -> Iterator[Json]:
        """All tasks with data, annotations and predictions, the last changed first.

        Asks no model for anything. Drafts: see `drafts`.
        """
        self.project(project_id)  # "not found" below may also mean that it has no task
        yield from self._pages(
            f"for the tasks of project {project_id}", f"api/projects/{project_id}/tasks/", {}, None
        )

    def drafts(self, task_id: int) -> list[Json]:
        """The task's drafts, in full: of new annotations and of stored ones."""
        with self._asking(f"for the drafts of task {task_id}") as sdk:
            # The SDK has no call for drafts.
            response = sdk._client_wrapper.httpx_client.request(
                f"api/tasks/{task_id}/drafts", method="GET"
            )
            return _checked(response, list)

    def create_draft(self, task_id: int, result: Sequence[Mapping[str, Any]]) -> int:
        """Store a draft of a new annotation, which the key's user alone sees; its id.

        Raises ValueError as `check_results` does.
        """
        check_results(result)
        return self._send_draft(f"api/tasks/{task_id}/drafts", "POST", task_id, result)

    def update_draft(
        self, draft_id: int, task_id: int, result: Sequence[Mapping[str, Any]]
    ) -> int:
        """Give a draft another result, which is sent as it is; its id."""
        return self._send_draft(f"api/drafts/{draft_id}", "PATCH", task_id, result)

    def _send_draft(
        self, path: str, method: str, task_id: int, result: Sequence[Mapping[str, Any]]
    ) -> int:
        with self._asking(f"to store a draft for task {task_id}") as sdk:
            # The SDK has no call for drafts.
            response = sdk._client_wrapper.httpx_client.request(
                path, method=method, json={"result": list(result), "lead_time": 0}
            )
            return _field(_checked(response, dict), "id", int)

    def newest_draft_or_annotation(self, task_id: int) -> NewestWork | None:
        """What a person changed last on the task; None: nobody has begun.

        Cancelled (skipped) annotations do not count. Asks no model for anything.
        """
        return newest_work(
            {"drafts": self.drafts(task_id), "annotations": self.annotations(task_id)}
        )

    def import_tasks(self, project_id: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Create tasks ({"data": ..., "predictions": ...}); their ids, in order."""
        with self._asking(f"to import {len(tasks)} tasks into project {project_id}") as sdk:
            answer = _body(
                sdk.projects.with_raw_response.import_tasks(
                    project_id, request=list(tasks), return_task_ids=True,
                    request_options={"timeout": _TRANSFER_SECONDS},
                )
            )
            return _field(answer, "task_ids", list)

    def upload_file(self, project_id: int, path: Path) -> str:
        """Store a file in the project without making a task of it; its URL for task data.

        Relative to Label Studio: "/data/upload/1/9e5fd2-clip.mp4". Raises
        OSError when it cannot be read.
        """
        return self.upload_files(project_id, [path])[0]

    def upload_files(self, project_id: int, paths: Sequence[Path]) -> list[str]:
        """`upload_file` of several in one request, in their order.

        Label Studio holds all of a request in memory: few large ones at a time.
        """
        what = paths[0].name if len(paths) == 1 else f"{len(paths)} files"
        with contextlib.ExitStack() as stack:
            files = [
                (f"file{number}", (path.name, stack.enter_context(path.open("rb")), _BYTES))
                for number, path in enumerate(paths)
            ]
            sdk = stack.enter_context(self._asking(f"to upload {what} to project {project_id}"))
            # The SDK has no call for uploads; its client has the headers and timeouts.
            response = sdk._client_wrapper.httpx_client.request(
                f"api/projects/{project_id}/import",
                method="POST",
                params={"commit_to_project": "false"},
                files=dict(files),
                request_options={"timeout": _TRANSFER_SECONDS},
            )
            upload_ids = _field(_checked(response, dict), "file_upload_ids", list)
            # The SDK sends the ids in a form that the server fails on.
            response = sdk._client_wrapper.httpx_client.request(
                f"api/projects/{project_id}/file-uploads",
                method="GET",
                params={"ids": json.dumps(upload_ids)},
            )
            uploads = {
                _field(upload, "id", int): _field(upload, "file", str)
                for upload in _checked(response, list)
            }
            if len(upload_ids) != len(paths) or not uploads.keys() >= set(upload_ids):
                raise _Unexpected
            return [f"/data/{uploads[upload_id]}" for upload_id in upload_ids]

    # --- predictions and annotations -----------------------------------------

    def predictions(self, task_id: int) -> list[Json]:
        """The task's predictions, in full."""
        with self._asking(f"for the predictions of task {task_id}") as sdk:
            return _body(sdk.predictions.with_raw_response.list(task=task_id))

    def create_prediction(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        score: float,
        model_version: str,
        config: LabelConfig | None = None,
        frame_count: int | None = None,
    ) -> int:
        """Store a prediction; its id.

        Raises ValueError as `check_prediction` does, to which `config` and
        `frame_count` go.
        """
        check_prediction(
            result, score=score, model_version=model_version, config=config,
            frame_count=frame_count,
        )
        with self._asking(f"to store a prediction for task {task_id}") as sdk:
            answer = _body(
                sdk.predictions.with_raw_response.create(
                    task=task_id, result=list(result), score=score, model_version=model_version
                )
            )
            return _field(answer, "id", int)

    def update_prediction(
        self,
        prediction_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        score: float,
        model_version: str,
    ) -> int:
        """Give a prediction another result; its id. Raises ValueError as `check_prediction`."""
        check_prediction(result, score=score, model_version=model_version)
        with self._asking(f"to change prediction {prediction_id}") as sdk:
            answer = _body(
                sdk.predictions.with_raw_response.update(
                    prediction_id, result=list(result), score=score, model_version=model_version
                )
            )
            return _field(answer, "id", int)

    def delete_prediction(self, prediction_id: int) -> None:
        with self._asking(f"to delete prediction {prediction_id}") as sdk:
            sdk.predictions.delete(prediction_id)

    def annotations(self, task_id: int) -> list[Json]:
        """The task's annotations, in full."""
        with self._asking(f"for the annotations of task {task_id}") as sdk:
            return _body(sdk.annotations.with_raw_response.list(task_id))

    def create_annotation(
        self,
        task_id: int,
        result: Sequence[Mapping[str, Any]],
        *,
        config: LabelConfig | None = None,
        frame_count: int | None = None,
    ) -> int:
        """Store an annotation in the name of the key's user; its id.

        Raises ValueError as `check_results` does.
        """
        check_results(result, config=config, frame_count=frame_count)
        with self._asking(f"to store an annotation for task {task_id}") as sdk:
            answer = _body(
                sdk.annotations.with_raw_response.create(task_id, result=list(result))
            )
            return _field(answer, "id", int)

    def update_annotation(self, annotation_id: int, result: Sequence[Mapping[str, Any]]) -> int:
        """Give an annotation another result, which is sent as it is; its id."""
        with self._asking(f"to change annotation {annotation_id}") as sdk:
            answer = _body(
                sdk.annotations.with_raw_response.update(annotation_id, result=list(result))
            )
            return _field(answer, "id", int)

    # --- model connections and webhooks --------------------------------------

    def ml_backends(self, project_id: int) -> list[Json]:
        """The project's model connections; Label Studio asks each for its health first."""
        with self._asking(f"for the model connections of project {project_id}") as sdk:
            return _body(sdk.ml.with_raw_response.list(project=project_id))

    def connect_backend(
        self,
        project_id: int,
        url: str,
        title: str,
        *,
        is_interactive: bool = True,
        basic_auth: tuple[str, str] | None = None,
    ) -> Json:
        """Connect a model; Label Studio calls its /health and /setup before it answers."""
        fields = _basic_auth_fields(basic_auth)
        with self._asking(f"to connect {url} to project {project_id}") as sdk:
            return _body(
                sdk.ml.with_raw_response.create(
                    project=project_id, url=url, title=title, is_interactive=is_interactive,
                    **fields,
                )
            )

    def update_backend(
        self,
        backend: Mapping[str, Any],
        *,
        is_interactive: bool = True,
        basic_auth: tuple[str, str] | None = None,
    ) -> Json:
        """A model connection, as `ml_backends` has it, after the change.

        Label Studio calls its /health and /setup before it answers: where they need a
        password, it must be given with every change.
        """
        with self._asking(f"to change model connection {backend['id']}") as sdk:
            return _body(
                sdk.ml.with_raw_response.update(
                    # Without these two, which do not change, the server fails (1.23.2).
                    backend["id"], url=backend["url"], project=backend["project"],
                    is_interactive=is_interactive, **_basic_auth_fields(basic_auth),
                )
            )

    def blocks_address(self, url: str) -> bool:
        """Whether Label Studio refuses to connect a model at this URL, because it is private.

        Nothing is connected: the project that is named does not exist, and the
        address is looked at first.
        """
        try:
            self.connect_backend(_NO_PROJECT, url, "address check")
        except LabelStudioError as error:
            if error.http_status not in (400, 403):
                raise
            return error.failure is LabelStudioFailure.ADDRESS_BLOCKED
        return False

    def webhooks(self, project_id: int) -> list[Json]:
        """The project's webhooks."""
        with self._asking(f"for the webhooks of project {project_id}") as sdk:
            return _body(sdk.webhooks.with_raw_response.list(project=str(project_id)))

    def create_webhook(
        self,
        project_id: int,
        url: str,
        actions: Iterable[str] = (),
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """A webhook with payloads, for these actions, or for all.

        Args:
            headers: are sent with each; Label Studio's administrators can read them.
        """
        names = list(actions)
        with self._asking(f"to make a webhook to {url} in project {project_id}") as sdk:
            fields: Json = {"actions": names} if names else {}
            fields |= {"headers": dict(headers)} if headers else {}
            return _body(
                sdk.webhooks.with_raw_response.create(
                    project=project_id, url=url, is_active=True, send_payload=True,
                    send_for_all_actions=not names, **fields,
                )
            )

    def update_webhook(self, webhook: Mapping[str, Any], *, headers: Mapping[str, str]) -> None:
        """Give a webhook, as `webhooks` has it, other headers."""
        with self._asking(f"to change webhook {webhook['id']}") as sdk:
            # The SDK's own call puts its fields into the URL, where logs would have them.
            response = sdk._client_wrapper.httpx_client.request(
                f"api/webhooks/{webhook['id']}/", method="PATCH", json={"headers": dict(headers)}
            )
            _checked(response, dict)

    # --- the way there -------------------------------------------------------

    @cached_property
    def _sdk(self) -> LabelStudio:
        import httpx
        from label_studio_sdk.client import LabelStudio

        timeout = httpx.Timeout(self._timeout_seconds, connect=_CONNECT_SECONDS)
        http = httpx.Client(
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
            event_hooks={"request": [_name_request]},
        )
        # With the slash the SDK keeps the address's path when it refreshes a token.
        return LabelStudio(
            base_url=self.url + "/",
            api_key=self._api_key,
            httpx_client=http,
            timeout=self._timeout_seconds,
            max_retries=0,
        )

    def _pages(
        self, asked: str, path: str, parameters: Mapping[str, Any], key: str | None
    ) -> Iterator[Json]:
        """The items under `key` of each page, or the page's own where it is a list."""
        page = 1
        while True:
            with self._asking(asked) as sdk:
                # The SDK's pager gives models that have lost what it does not know.
                response = sdk._client_wrapper.httpx_client.request(
                    path, method="GET",
                    params={**parameters, "page": page, "page_size": _PAGE_SIZE},
                    request_options={"timeout": _TRANSFER_SECONDS},
                )
                if response.status_code == 404 and (page > 1 or key is None):
                    return  # past the end
                body = _checked(response, list if key is None else dict)
                items = body if key is None else _field(body, key, list)
            yield from items
            if len(items) < _PAGE_SIZE:
                return
            page += 1

    @contextlib.contextmanager
    def _asking(self, asked: str) -> Iterator[LabelStudio]:
        """The SDK; whatever it raises comes out as a LabelStudioError that says what was asked."""
        import httpx
        from label_studio_sdk.core.api_error import ApiError
        from label_studio_sdk.core.parse_error import ParsingError

        try:
            with self._lock:  # built once
                sdk = self._sdk
            yield sdk
        except ApiError as error:
            raise self._refused(asked, error) from None
        except httpx.TimeoutException:
            raise self._unreachable(asked, "it took too long to answer") from None
        except httpx.TransportError as error:
            raise self._unreachable(asked, str(error) or type(error).__name__) from None
        except (ParsingError, json.JSONDecodeError, _Unexpected):
            raise LabelStudioError(
                LabelStudioFailure.NOT_LABEL_STUDIO,
                f"{self.url} was asked {asked} and gave an answer of another form than Label "
                "Studio's: check LABEL_STUDIO_URL and the version (1.20 or newer)",
            ) from None

    def _unreachable(self, asked: str, why: str) -> LabelStudioError:
        return LabelStudioError(
            LabelStudioFailure.UNREACHABLE,
            f"{self.url} was asked {asked} and cannot be reached ({self._shown(why)}): is Label "
            "Studio running, and LABEL_STUDIO_URL its address as this machine sees it?",
        )

    def _refused(self, asked: str, error: Any) -> LabelStudioError:
        status = error.status_code
        if status == 401:  # the next call begins with a new access token
            self.__dict__.pop("_sdk", None)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        failure, what_to_do = _meaning(status, error.body, headers)
        said = self._shown(_said(error.body))
        detail = f"{self.url} was asked {asked} and answered {status}"
        return LabelStudioError(
            failure,
            detail + (f" ({said})" if said else "") + f": {what_to_do}",
            http_status=status,
            retry_after_seconds=_retry_after_seconds(
                headers.get("retry-after"), headers.get("date")
            ),
        )

    def _shown(self, text: str) -> str:
        """Shortened, and without the key, whoever repeats it."""
        text = text.replace(self._api_key, "***")
        return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


def _name_request(request: Any) -> None:
    """So that Label Studio's own log has the id too."""
    if (request_id := log_context.request_id()) is not None:
        request.headers["X-Request-ID"] = request_id


def _basic_auth_fields(basic_auth: tuple[str, str] | None) -> Json:
    if basic_auth is None:
        return {}
    user, password = basic_auth
    return {"auth_method": "BASIC_AUTH", "basic_auth_user": user, "basic_auth_pass": password}


class _Unexpected(Exception):
    """An answer of another form than Label Studio's."""


def _field(answer: object, name: str, kind: type) -> Any:
    value = answer.get(name) if isinstance(answer, Mapping) else None
    if not isinstance(value, kind):
        raise _Unexpected
    return value


def _body(answer: Any) -> Any:
    """The JSON as it was sent; the SDK's models change times and lose fields."""
    return answer.response.json()


def _checked(response: Any, kind: type) -> Any:
    """The JSON of an answer that the SDK did not look at."""
    from label_studio_sdk.core.api_error import ApiError

    try:
        body = response.json()
    except json.JSONDecodeError:
        body = response.text
        if response.is_success:
            raise
    if not response.is_success:
        raise ApiError(
            status_code=response.status_code, headers=dict(response.headers), body=body
        )
    if not isinstance(body, kind):
        raise _Unexpected
    return body


def newest_work(task: Mapping[str, Any]) -> NewestWork | None:
    """`LabelStudioClient.newest_draft_or_annotation` of a task that is here already."""
    found = [_work(draft, is_draft=True) for draft in task.get("drafts") or ()]
    found += [
        _work(annotation, is_draft=False)
        for annotation in task.get("annotations") or ()
        if not annotation.get("was_cancelled")
    ]
    # ISO times of one server compare as text.
    return max(found, key=lambda work: (work.updated_at, work.is_draft), default=None)


def _work(work: Mapping[str, Any], *, is_draft: bool) -> NewestWork:
    updated_at = work.get("updated_at") or work.get("created_at") or ""
    return NewestWork(
        is_draft, work["id"], list(work.get("result") or ()), str(updated_at),
        work.get("annotation") if is_draft else work["id"],
    )


def _meaning(
    status: int | None, body: object, headers: Mapping[str, str]
) -> tuple[LabelStudioFailure, str]:
    """What an answer means, and what to do about it."""
    said = _said(body).lower()
    if status == 403 and "reserved network" in said:
        return LabelStudioFailure.ADDRESS_BLOCKED, (
            "Label Studio blocks this address: start it with ML_BLOCK_LOCAL_IP=false (models) "
            "and SSRF_PROTECTION_ENABLED=false (webhooks)"
        )
    if status == 401 and "legacy" in said:
        return LabelStudioFailure.TOKEN_REFUSED, (
            "legacy tokens are switched off there: use a personal access token, or allow legacy "
            "tokens in Organization, Access Token Settings"
        )
    if status in (401, 403):
        return LabelStudioFailure.TOKEN_REFUSED, (
            "LABEL_STUDIO_API_KEY is not valid there, or its user may not do this: make a new "
            "key in Account & Settings"
        )
    if status == 404 and not isinstance(body, Mapping):
        return LabelStudioFailure.NOT_LABEL_STUDIO, (
            "there is no Label Studio at this address: check LABEL_STUDIO_URL, its path included"
        )
    if status == 400 and "can't connect to ml backend" in said:
        return LabelStudioFailure.CONTENT_REFUSED, (
            "start the service, and give its address as Label Studio's machine sees it"
        )
    if status in (404, 410):
        return LabelStudioFailure.NOT_FOUND, "it does not exist, or the key's user may not see it"
    if status is not None and 300 <= status < 400:
        return LabelStudioFailure.NOT_LABEL_STUDIO, (
            f"it sends on to {_without_query(headers.get('location', ''))!r}: set "
            "LABEL_STUDIO_URL to the address that it sends on to"
        )
    if status in (408, 429) or (status is not None and status >= 500):
        return LabelStudioFailure.BUSY, "try again later, and look into Label Studio's log"
    if status is not None and 400 <= status < 500:
        return LabelStudioFailure.CONTENT_REFUSED, "it must be changed before it is sent again"
    return LabelStudioFailure.NOT_LABEL_STUDIO, (
        "that is no answer of Label Studio's: check LABEL_STUDIO_URL"
    )


def _said(body: object) -> str:
    """The reasons that a body gives, in a line."""
    if isinstance(body, Mapping):
        body = body.get("validation_errors") or body.get("detail") or body
    if isinstance(body, Mapping):
        parts = (
            (_said(reason) if name == "non_field_errors" else f"{name}: {_said(reason)}")
            for name, reason in body.items()
        )
        return "; ".join(parts)
    if isinstance(body, (list, tuple)):
        return "; ".join(map(_said, body))
    text = "" if body is None else str(body)
    # A page tells a person with a browser something, a log nothing.
    return "" if text.lstrip().startswith("<") else " ".join(_TAG.sub("", text).split())


def _retry_after_seconds(text: str | None, date: str | None) -> float | None:
    """Of `Retry-After`, seconds or a date, beside the answer's own `Date`; None: nothing
    that can be read."""
    text = "" if text is None else text.strip()
    if text.isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, (parsedate_to_datetime(text) - _date(date)).total_seconds())
    except (ValueError, TypeError):  # none, or one without a zone
        return None


def _date(header: str | None) -> datetime:
    """Now, by the clock of the one who answered, if it says so."""
    try:
        return parsedate_to_datetime(header or "")
    except ValueError:
        return datetime.now(timezone.utc)


def _without_query(url: str) -> str:
    return url.partition("?")[0].partition("#")[0]
