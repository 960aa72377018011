"""The words that the descriptions of routes are made of."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, Sequence

Json = dict[str, Any]

JSON = "application/json"

_REASONS = {
    400: "A value breaks a rule.",
    401: "A password or token is needed.",
    403: "The request, or the media that it names, is refused.",
    404: "There is nothing of that name.",
    409: "Not in the state that things are in.",
    413: "The request, or the media that it names, is too large.",
    415: "A change must be said to be JSON.",
    416: "The file has no such range.",
    422: "Well-formed, but this service cannot work on it.",
    429: "Too much is waiting or open; try again later.",
    502: "The media, or Label Studio, cannot be reached.",
    503: "The model is loading, has failed, or is busy; the service stops; the storage is away.",
    507: "The disk is full: nothing can be kept.",
}
CREDENTIALS: list[Json] = [{}, {"password": []}, {"token": []}]
"""None where the settings ask for none; else either."""
KEYED: list[Json] = [*CREDENTIALS, {"panel": []}]
"""The same of routes that a panel's key opens, for its project."""
_ALWAYS = (400, 401, 403, 413, 503, 507)
MEDIA_ERRORS = (404, 422, 429, 502, 503)
"""Of whatever opens a video: 403 and 413 may be about it too."""


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def obj(
    properties: Mapping[str, Any] | None = None,
    required: Iterable[str] = (),
    *,
    others: bool = False,
    **more: Any,
) -> Json:
    """An object. `others`: members that are not named may be there too."""
    found: Json = {"type": "object", "properties": dict(properties or {}), **more}
    if required := list(required):
        found["required"] = required
    if not others:
        found["additionalProperties"] = False
    return found


def answer_obj(**properties: Any) -> Json:
    """An object with all of these members and no others."""
    return obj(properties, properties)


def array(items: Json, **more: Any) -> Json:
    return {"type": "array", "items": items, **more}


def nullable(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def enum(*values: str) -> Json:
    return {"type": "string", "enum": list(values)}


def whole(minimum: int = 0, **more: Any) -> Json:
    return {"type": "integer", "minimum": minimum, **more}


TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}
TIME: Json = {"type": ["string", "null"], "format": "date-time"}


def path_parameter(name: str, schema: Json, description: str) -> Json:
    return {
        "name": name, "in": "path", "required": True, "schema": schema,
        "description": description,
    }


def query(name: str, schema: Json, description: str, **more: Any) -> Json:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


def body(schema: Json, *, required: bool = True) -> Json:
    return {"required": required, "content": {JSON: {"schema": schema}}}


def json_answer(schema: Json, description: str, headers: Json | None = None) -> Json:
    found: Json = {"description": description, "content": {JSON: {"schema": schema}}}
    if headers:
        found["headers"] = headers
    return found


def binary_answer(content_type: str, description: str) -> Json:
    return {"description": description, "content": {content_type: {"schema": {}}}}


def operation(
    name: str,
    summary: str,
    answers: Mapping[int, Json],
    *,
    tag: str,
    errors: Sequence[int] = (),
    parameters: Sequence[Json] = (),
    request: Json | None = None,
    security: Sequence[Json] | None = None,
) -> Json:
    """An operation.

    Args:
        name: the `operationId`.
        answers: by status, those that are no error.
        errors: statuses beside those that every route may answer.
        security: None: as for the whole document.
    """
    responses: Json = {str(status): answer for status, answer in answers.items()}
    for status in sorted({*_ALWAYS, *errors}):
        responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}
    found: Json = {
        "operationId": name, "summary": summary, "tags": [tag], "responses": responses,
    }
    if parameters:
        found["parameters"] = list(parameters)
    if request is not None:
        found["requestBody"] = request
    if security is not None:
        found["security"] = list(security)
    return found


SCHEMAS: Json = {
    "Error": answer_obj(
        error={**TEXT, "description": "A short name."},
        detail={**TEXT, "description": "The value and the rule."},
        request_id={**TEXT, "description": "As in `X-Request-ID` and in the service's log."},
    ),
    "Region": obj(
        {"id": {}, "type": {}, "value": {}, "from_name": {}, "to_name": {}, "meta": {}},
        others=True,
        description="A result item of Label Studio.",
    ),
    "Mask": obj(
        {"size": array(whole(1), minItems=2, maxItems=2), "counts": TEXT},
        ["size", "counts"],
        description="COCO compressed run lengths; the size is height, width.",
    ),
}
RESPONSES: Json = {
    f"Error{status}": json_answer(ref("Error"), reason) for status, reason in _REASONS.items()
}
