"""The categories of COCO and YouTube-VIS files, and what an annotation says of its labels."""

from __future__ import annotations

from typing import Any, Mapping

from converters.json_stream import Location, Part
from converters.json_values import BadValue, data_set_id, member, text, texts
from converters.report import Report
from converters.types import Category


class CategoryReader:
    """Takes the parts `categories[]` of a file one by one, then knows what its ids mean."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._by_id: dict[int | str, Category | BadValue] = {}

    @property
    def categories(self) -> tuple[Category, ...]:
        """In the order of the file; of those that share a name, the first."""
        named: dict[str, Category] = {}
        for category in self._by_id.values():
            if isinstance(category, Category):
                named.setdefault(category.name, category)
        return tuple(named.values())

    def add(self, part: Part) -> None:
        """One without a name is no hindrance, strict or not, until an annotation has its id."""
        with self._report.leaving_out("categories"):
            where = part.location
            number = data_set_id(member(part.value, "id", where), (*where, "id"))
            if number in self._by_id:
                raise BadValue((*where, "id"), f"{number!r} is used twice")
            try:
                name = member(part.value, "name", where)
                # Names that are numbers are common where classes came from a list.
                name = str(name) if type(name) is int else text(name, (*where, "name"))
            except BadValue as error:
                self._by_id[number] = error
                self._report.drop(f"categories ({error.reason})")
                return
            above = part.value.get("supercategory")
            self._by_id[number] = Category(number, name, above if isinstance(above, str) else "")

    def count_shared_names(self) -> None:
        """Say of how many categories the objects are written as another's."""
        good = sum(isinstance(category, Category) for category in self._by_id.values())
        count = good - len(self.categories)
        self._report.change("categories of one name, written as the first of them", count)

    def labels_of(self, annotation: Mapping[str, Any], where: Location) -> tuple[str, ...]:
        """The name of its category, then those in its `attributes.labels`. Raises BadValue."""
        place = (*where, "category_id")
        key = data_set_id(member(annotation, "category_id", where), place)
        category = self._by_id.get(key)
        if category is None:
            raise BadValue(place, f"{key!r} is not the id of a category")
        if isinstance(category, BadValue):
            raise BadValue(place, f"{key!r} is the id of a category without a name ({category})")
        attributes = annotation.get("attributes")
        more = attributes.get("labels") if isinstance(attributes, dict) else None
        labels: tuple[str, ...] = ()
        # Other tools' attributes may have the name too.
        with self._report.making_do("labels beside the category left out"):
            labels = texts(more or [], (*where, "attributes", "labels"))
        return tuple(dict.fromkeys((category.name, *labels)))


def is_crowd(annotation: Mapping[str, Any], where: Location) -> bool:
    """Its `iscrowd`; False where it has none. Raises BadValue for neither 0 nor 1."""
    value = annotation.get("iscrowd")
    if value not in (None, 0, 1, "0", "1"):
        raise BadValue((*where, "iscrowd"), f"must be 0 or 1, is {value!r:.60}")
    return value in (1, "1")
