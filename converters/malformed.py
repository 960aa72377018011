"""What every reader raises for a value that breaks a rule: where it stands, and which rule."""

from __future__ import annotations

import re

# Values within a rule's text: quoted texts, lists and numbers; the names of fields are kept.
_VALUES = re.compile(
    r"(has no '[^']*')|(?<!\w)'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\[[^\[\]]*\]|-?\b\d[\w.+-]*"
)


class MalformedValue(ValueError):
    """A value of a file or request breaks a rule.

    Reads "annotations[12].segmentation: must be an array, is 7".
    """

    def __init__(self, place: str, rule: str) -> None:
        super().__init__(f"{place}: {rule}" if place else rule)
        self.place = place
        """The value's path; empty where there is no way to say it."""
        self.rule = rule
        """What is wrong with the value, the value included."""

    @property
    def reason(self) -> str:
        """The rule without the values, the same for all that break it alike.

        Begins with the field: "segmentation: must be an array, is …".
        """
        rule = _VALUES.sub(lambda found: found.group(1) or "…", self.rule)
        # Files of a folder may stand in brackets, as items do.
        place = re.sub(r"\[[^\]]*\]", "", self.place)
        is_path = re.search(r"[/\\\s]", place) is None  # of fields; no file's, and no sentence
        field = place.rpartition(".")[2] if is_path else ""
        return f"{field}: {rule}" if field else rule
