"""One malformed value costs what it spoils, and is said."""

import json

import pytest

from converters.coco import load_coco
from converters.json_values import BadValue
from converters.label_studio.paths import InputError
from converters.malformed import MalformedValue
from converters.report import PLACES_KEPT, Report
from converters.tracks_json import load_tracks, save_tracks
from tests.converters.cases import annotated_video


@pytest.mark.parametrize(
    "error, reason",
    [
        (BadValue(("annotations", 12, "segmentation"), "must be an array, is 7"),
         "segmentation: must be an array, is …"),
        (BadValue(("annotations", 3), "has no 'segmentation'"), "annotations: has no 'segmentation'"),
        (BadValue((), "is 'it\\'s', must be one of ['a', 'b']"), "is …, must be one of …"),
        (InputError("tasks[0].result[3].value.x", "x nan, must be a finite number"),
         "x: x nan, must be a finite number"),
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


def test_where_nothing_is_lost_but_the_value_it_is_counted_as_changed():
    report = Report()
    with report.making_do("frame rates taken for unknown"):
        raise BadValue(("videos", 0, "fps"), "must be >= 0, is -1")
    assert report.changed == {"frame rates taken for unknown (fps: must be >= …, is …)": 1}
    assert report.malformed == ["videos[0].fps: must be >= 0, is -1"] and report.malformed_count == 1
    with pytest.raises(MalformedValue):
        with Report(strict=True).making_do("frame rates taken for unknown"):
            raise BadValue(("videos", 0, "fps"), "must be >= 0, is -1")


def test_a_tracks_json_is_read_but_for_what_is_malformed(tmp_path):
    path = tmp_path / "t.json"
    save_tracks(path, [annotated_video(name) for name in ("one", "two", "three", "four")])
    document = json.loads(path.read_text())
    one, two, three, four = document["videos"]
    one["tracks"][0]["masks"][1] = [1, "?"]
    one["tracks"][0]["masks"][2] = 7
    one["tracks"][0]["scores"][0] = [0, None]
    one["tracks"][1]["labels"] = "Car"
    two["info"]["height"] = None
    three["name"], three["file_names"], three["tracks"][0]["masks"] = 5, ["x"], None
    four["tracks"] = None
    document["videos"] += [5, None]
    path.write_text(json.dumps(document))
    report = Report()
    first, third, fourth = load_tracks(path, report=report)
    assert [(t.object_id, sorted(t.masks)) for t in first.tracks] == [("a", [0, 6, 7, 8, 9])]
    assert sorted(first.tracks[0].scores) == [1, 2, 6, 7, 8, 9]
    assert (third.name, third.file_names, [len(t.masks) for t in third.tracks]) == ("video-2", (), [0, 1])
    assert (fourth.name, fourth.tracks) == ("four", ())
    counts = {}
    for what, count in report.dropped.items():
        kind = what.partition(" ")[0]
        counts[kind] = counts.get(kind, 0) + count
    # The objects: one of its own, two of the video without a size.
    assert counts == {"masks": 2, "scores": 1, "objects": 3, "videos": 3}
    assert len(report.changed) == 2 and report.malformed_count == 9
    # What it is at all is not to be guessed.
    path.write_text(json.dumps(document | {"version": 2}))
    with pytest.raises(ValueError, match="version: is 2, must be 1"):
        list(load_tracks(path, report=Report()))
