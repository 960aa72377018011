"""Everything that the OpenAPI document allows, and much that it forbids, is asked.

No answer is a server error, and each is one that the document tells of. The requests
are the same from run to run; `make fuzz` asks many more, other ones each time.
"""

from __future__ import annotations

import contextlib

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings, strategies
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from backend.app import create_app
from backend.link_keys import KeyPurpose, make_key
from backend.openapi import openapi_document
from backend.settings import Settings
from tests.backend.conftest import payload
from tests.backend.test_enterprise import CONFIG

IS_LONG = settings.get_current_profile_name() == "fuzz"
EXAMPLES = settings.default.max_examples if IS_LONG else 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    unsupported_method,
]
MAY_BE_UNREADY = {502, 503}
"""No failure of ours: the media is nowhere, or all places are taken."""
OPERATIONS = [
    (path, method)
    for path, item in openapi_document()["paths"].items()
    for method in item
    if method != "parameters"
]


class Service:
    """The app, and things in it that requests may name."""

    def __init__(self, used_settings, model, video) -> None:
        self._settings = used_settings
        self._video = str(video)
        self.app = create_app(used_settings, load=lambda _: model)
        self.client = self.app.test_client()
        self.schema = schemathesis.openapi.from_wsgi("/api/openapi.json", self.app)
        self._session_id = ""
        self._job_id = self._submit()
        self._panel_key = make_key(used_settings, 1, KeyPurpose.PANEL)

    def _submit(self) -> str:
        call = payload("predict_interactive_videorectangle")
        task = call["tasks"][0] | {"data": {"video": self._video}}
        answer = self.client.post(
            "/api/jobs",
            json={
                "task": task,
                "label_config": call["label_config"],
                "results": call["params"]["context"]["result"],
            },
        )
        assert answer.status_code == 202, answer.json
        return answer.json["id"]

    def session_id(self) -> str:
        """One that is there, with an object that has a prompt."""
        if self.client.get(f"/api/sessions/{self._session_id}").status_code == 404:
            body = {"data": {"video": self._video}, "label_config": CONFIG}
            answer = self.client.post("/api/sessions", json=body)
            assert answer.status_code == 201, answer.json
            self._session_id = answer.json["id"]
            place = f"{answer.headers['Location']}/objects/a/prompts/0"
            box = {"box": [100, 80, 140, 120]}
            assert self.client.put(place, json=box).status_code == 200
        return self._session_id

    def bring_near(self, case, chance) -> None:
        """Names things that there are in most of the requests, which else would all be 404."""
        parameters = case.path_parameters or {}
        if "session_id" in parameters and chance > 1:
            parameters["session_id"] = self.session_id()
        if "job_id" in parameters and chance > 1:
            parameters["job_id"] = self._job_id
        if isinstance(parameters.get("frame_index"), int) and chance > 2:
            parameters["frame_index"] %= 8
        if "object_id" in parameters and chance > 2:
            parameters["object_id"] = "a"
        if isinstance(case.body, dict) and "label_config" in case.body and chance > 1:
            case.body["label_config"] = CONFIG
            if isinstance(case.body.get("data"), dict) and chance > 2:
                case.body["data"]["video"] = self._video
        if case.path == "/preview.mp4" and chance > 1:
            case.query = {**(case.query or {}), "key": make_key(self._settings, 1, KeyPurpose.PREVIEW)}
        if case.path.startswith(("/api/sessions", "/api/panel")) and chance == 4:
            case.headers = {**(case.headers or {}), "X-SAM2-Key": self._panel_key}
        if case.path.endswith("/events"):
            case.query = {**(case.query or {}), "until": "done"}  # it would go on for minutes


@pytest.fixture(scope="module")
def service(tmp_path_factory, media_root, model):
    folder = tmp_path_factory.mktemp("fuzz")
    used = Settings(
        media_roots=(media_root,), media_cache=folder / "cache", data_folder=folder / "service",
        label_studio_url="http://127.0.0.1:9", label_studio_api_key="key-of-nobody",
        device="cpu", dtype="float32", answer_seconds=5.0, max_objects=3,
        key_requests_per_second=1e6,
    )
    found = Service(used, model, media_root / "n25.mp4")
    yield found
    found.app.extensions["sam2"].stop()


def cases(operation):
    kinds = [GenerationMode.POSITIVE]
    with contextlib.suppress(Exception):  # there is nothing to be wrong about
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE).example
        kinds.append(GenerationMode.NEGATIVE)
    return strategies.one_of(
        *(operation.as_strategy(generation_mode=kind) for kind in kinds)
    )


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda value: value)
def test_no_request_is_a_server_error_and_answers_are_as_described(service, path, method):
    @settings(
        max_examples=EXAMPLES, derandomize=not IS_LONG, deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(service.schema[path][method]), chance=strategies.integers(0, 4))
    def ask(case, chance):
        service.bring_near(case, chance)
        answer = case.call()
        is_unready = answer.status_code in MAY_BE_UNREADY
        case.validate_response(answer, checks=CHECKS[1:] if is_unready else CHECKS)

    ask()
