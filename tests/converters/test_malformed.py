"""One malformed value costs what it spoils, and is said."""

import json

import pytest

from converters.coco import load_coco
from converters.json_values import BadValue
from converters.label_studio.paths import InputError
from converters.malformed import MalformedValue
from converters.report import PLACES_KEPT, Report


@pytest.mark.parametrize(
    "error, reason",
    [
        (BadValue(("annotations", 12, "segmentation"), "must be an array, is 7"),
         "segmentation: must be an array, is …"),
        (BadValue(("annotations", 3), "has no 'segmentation'"), "annotations: has no 'segmentation'"),
        (BadValue((), "is 'it\\'s', must be one of ['a', 'b']"), "is …, must be one of …"),
        (InputError("tasks[0].result[3].value.x", "x nan, must be a finite number"),
         "x: x nan, must be a finite number"),
        (InputError("tasks[sub/12].data", "the task's data has no field 'video'"),
         "data: the task's data has no field …"),
        (BadValue(("/data/clip/00000.png",), "has 3 x 4 pixels"), "has … x … pixels"),
    ],
)
def test_values_that_break_a_rule_alike_have_one_reason(error, reason):
    assert error.reason == reason


def test_what_is_left_out_is_counted_by_reason_and_its_first_places_are_kept():
    report = Report()
    for number in range(PLACES_KEPT + 5):
        with report.leaving_out("annotations"):
            raise BadValue(("annotations", number, "area"), f"must be a number, is {number!r}")
    assert report.dropped == {"annotations (area: must be a number, is …)": PLACES_KEPT + 5}
    assert len(report.malformed) == PLACES_KEPT
    assert report.malformed[3] == "annotations[3].area: must be a number, is 3"


def test_a_strict_report_stops_at_the_first():
    with pytest.raises(MalformedValue, match="area: must be"):
        with Report(strict=True).leaving_out("annotations"):
            raise BadValue(("annotations", 0, "area"), "must be a number")


def test_errors_that_are_no_malformed_values_are_not_swallowed():
    with pytest.raises(ValueError, match="a mistake of ours"):
        with Report().leaving_out("annotations"):
            raise ValueError("a mistake of ours")


def test_a_bad_annotation_of_coco_costs_itself_alone(tmp_path):
    square = [[1, 1, 5, 1, 5, 5, 1, 5]]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": square},
        {"id": 2, "image_id": 1, "category_id": 9, "segmentation": square},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": 7},
    ]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
        "annotations": annotations, "categories": [{"id": 1, "name": "dog"}],
    }))  # fmt: skip
    report = Report()
    (video,) = load_coco(path, report=report)
    assert [track.object_id for track in video.tracks] == ["annotation 1"]
    assert sum(report.dropped.values()) == 2
    assert report.malformed[0].startswith("annotations[1].category_id: 9 ")
    with pytest.raises(ValueError, match="category_id"):
        list(load_coco(path))
