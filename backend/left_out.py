"""What of a request is left out as it is malformed, so that the rest of it is answered."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator, Mapping

from backend.errors import BadRequest
from converters.malformed import MalformedValue
from converters.report import Report

LeftOutJson = Mapping[str, Any]
"""`counts`: what and why -> how many; `regions`: the first twenty, each with its id, the
place of the value and the rule. As jobs, results and answers keep it."""

_REGIONS = "regions"


class LeftOut(Report):
    """The regions that cannot be prompts. For one thread."""

    first_error: Exception | None = None
    """What the request fails with when nothing is left of it."""

    @contextlib.contextmanager
    def leaving_out(self, what: str) -> Iterator[None]:
        """As `Report.leaving_out`; the first error is kept."""
        with super().leaving_out(what):
            try:
                yield
            except MalformedValue as error:
                self.first_error = self.first_error or error
                raise

    @contextlib.contextmanager
    def region(self, name: object) -> Iterator[None]:
        """The same for a region, whatever kind of error says what is wrong with it."""
        with super().leaving_out(_REGIONS):
            try:
                yield
            except (BadRequest, ValueError) as error:
                self.first_error = self.first_error or error
                raise MalformedValue(f"region {name!r:.80}", str(error)) from error

    def check_rest(self, is_any_left: bool) -> None:
        """Raises the first error when nothing of the request is left."""
        if self.first_error is not None and not is_any_left:
            raise self.first_error

    def to_json(self) -> LeftOutJson | None:
        """None when nothing was left out."""
        if not self.dropped:
            return None
        return {"counts": dict(self.dropped), "regions": list(self.malformed)}


def sentence(left_out: LeftOutJson) -> str:
    """For people: "2 regions are left out: region 'b': value.x: ..."."""
    count = sum(left_out["counts"].values())
    verb = "region is" if count == 1 else "regions are"
    more = count - len(left_out["regions"])
    return f"{count} {verb} left out: {'; '.join(left_out['regions'])}" + (
        f"; and {more} more" if more > 0 else ""
    )
