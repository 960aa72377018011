"""The JSON of a request."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from flask import request
from werkzeug.exceptions import ClientDisconnected

from backend.errors import BadRequest, OverLimit, RequestTooSlow


_MAX_VALUES = 8_000_000
"""Objects, arrays, texts and numbers of a body: each takes some 60 bytes or more once it is
read, however short it is written."""


def json_body(*, default: Any = None) -> Any:
    """The request's JSON; what its Content-Type says, `access.guard` looks at.

    Args:
        default: for an empty body; None: there must be one.

    Raises BadRequest for what is no JSON, NaN and the infinities included, which
    Python reads and could not be answered with; OverLimit for one of too many
    values, RequestTooSlow for one that did not come in time.
    """
    try:
        text = request.get_data(cache=False)
    except ClientDisconnected:
        # The one who dripped is told why; one who has gone hears nothing.
        raise RequestTooSlow("the body did not come, or not in time") from None
    if default is not None and not text.strip():
        return default
    # Commas within texts count too: seldom so many.
    values = text.count(b",") + text.count(b"{") + text.count(b"[")
    if values > _MAX_VALUES:
        raise OverLimit(f"the body holds some {values} values, may hold {_MAX_VALUES}")
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body must be JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
