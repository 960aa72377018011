"""One bad value of an export costs itself alone, and is said."""

import copy
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters import brush_rle
from converters.label_studio.config import parse_label_config
from converters.label_studio.export import (
    ExportedVideo,
    ExportOptions,
    SkippedTask,
    export_task,
    load_export,
    read_export,
)
from converters.masks import decode_mask
from converters.report import Report
from tests.converters.cases import moving_track
from tests.converters.label_studio.test_damaged_exports import CONFIG, INFO, JUNK, PLACES, changed
from tests.converters.label_studio.test_export import (
    FRAME_URLS,
    VIDEO_CONFIG,
    as_region,
    note,
    video_task,
)

FRAMES_XML = """<View><Image name="img" valueList="$frames"/>
  <PolygonLabels name="poly" toName="img"><Label value="cat"/><Label value="dog"/></PolygonLabels>
  <BrushLabels name="brush" toName="img"><Label value="cat"/><Label value="dog"/></BrushLabels>
</View>"""
FRAMES_CONFIG = parse_label_config(FRAMES_XML)
CORNERS = [[10, 10], [50, 10], [50, 50], [10, 50]]


def polygon(id="p", *, points=CORNERS, labels=("cat",), item_index=0, **fields):
    region = {
        "id": id, "type": "polygonlabels", "from_name": "poly", "to_name": "img",
        "item_index": item_index, "original_width": 64, "original_height": 48,
        "image_rotation": 0, "value": {"points": points, "polygonlabels": list(labels)}, **fields,
    }  # fmt: skip
    return {key: value for key, value in region.items() if value is not KeyError}


def ellipse(id="e"):
    value = {"x": 1, "y": 1, "radiusX": 2, "radiusY": 2, "ellipselabels": ["cat"]}
    return {"id": id, "type": "ellipselabels", "from_name": "e", "to_name": "img", "value": value}


def erased_brush(rle):
    value = {"format": "rle", "rle": rle, "brushlabels": ["cat"]}
    return polygon("b", type="brushlabels", from_name="brush", value=value)


def frames_task(*regions, id=7, **fields):
    annotations = [{"id": 3, "result": list(regions)}]
    return {"id": id, "data": {"frames": FRAME_URLS}, "annotations": annotations, **fields}


def read(task, *, config=FRAMES_CONFIG, **options):
    """(items, report) of a task, read leniently."""
    report = Report()
    options = ExportOptions(label_config=config, **options)
    return export_task(task, options, where="tasks[0]", report=report), report


def ids_of(item):
    return [track.object_id for track in item.video.tracks]


# --- regions -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "place", "reason"),
    [
        (polygon("bad", points=[[1, 1], [2, 2]]), "value.points", "points: "),
        (polygon("bad", points=[]), "value.points", "points: "),
        (polygon("bad", image_rotation=90), "image_rotation", "image_rotation: … must be …"),
        (polygon("bad", item_index=9), "item_index", "item_index: … must be an integer"),
        (polygon("bad", value=7), "value", "value: must be an object"),
        (polygon("bad", labels=[7]), "value.polygonlabels", "polygonlabels: … must be a list"),
        (polygon("bad", original_width=-1), "original_height", "original_height: "),
        (polygon("bad", original_width=10**9), "original_height", "original_height: "),
        (polygon("bad", original_width=32), "original_width", "original_width: … must be …"),
        (polygon(["bad"]), "id", "id: … must be a string"),
        (erased_brush([]), "value.rle", "rle: rle has … bytes"),
        (erased_brush(brush_rle.encode(np.ones((48, 64), bool))[:-5]), "value.rle", "rle: "),
        ("region", "", "regions ("),
        (None, "", "regions ("),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_a_bad_region_costs_itself_alone(bad, place, reason, is_first):
    good = [polygon("one"), polygon("two", item_index=1)]
    regions = [bad, *good] if is_first else [*good, bad]
    (item,), report = read(frames_task(*regions))
    assert ids_of(item) == ["one", "two"] and item.dropped == ()
    ((what, count),) = report.dropped.items()
    assert what.startswith("regions (") and reason in what and count == 1
    path = f"tasks[0].annotations[0].result[{regions.index(bad)}]" + (f".{place}" if place else "")
    (said,) = report.malformed
    assert said.startswith(path + ": ")
    with pytest.raises(ValueError) as raised:
        export_task(frames_task(*regions), ExportOptions(label_config=FRAMES_CONFIG), where="tasks[0]")
    assert str(raised.value) == said


def test_the_places_are_those_of_the_regions_in_the_file(tmp_path):
    path = tmp_path / "export.json"
    tasks = [frames_task(polygon(), id=n) for n in range(4)]
    tasks[2]["annotations"][0]["result"].insert(0, polygon("bad", image_rotation=270))
    path.write_text(json.dumps([*tasks, 7, {"id": 9}]))
    report = Report()
    videos = list(load_export(path, label_config=FRAMES_XML, report=report))
    assert [v.name for v in videos] == [f"{n}-clip" for n in range(4)]
    assert [line.partition(": ")[0] for line in report.malformed] == [
        "tasks[2].annotations[0].result[0].image_rotation", "tasks[4]", "tasks[5].data",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"^tasks\[2\].*image_rotation: 270"):
        list(load_export(path, label_config=FRAMES_XML))


def test_a_bad_video_region_costs_itself_alone_and_says_nothing_of_the_video():
    good = as_region(moving_track(INFO, range(8), object_id="good"))  # of a video of 40 frames
    huge, cut, twice = (json.loads(json.dumps(good)) for _ in range(3))
    huge.update(id="huge")
    huge["value"]["framesCount"] = 9_000_000
    cut.update(id="cut")
    cut["value"]["sequence"][0]["mask"]["counts"] = "ooo"
    (item,), report = read(video_task(huge, cut, good, twice), config=VIDEO_CONFIG)
    assert ids_of(item) == ["good"] and item.video.info.frame_count == 40
    assert sum(report.dropped.values()) == 3
    assert any("speak of 9000000 frames" in line for line in report.malformed)
    assert any("'good' is that of an earlier region" in line for line in report.malformed)


def test_most_regions_say_how_large_the_pictures_are():
    others = [polygon(str(n), original_width=64) for n in range(2)]
    (item,), report = read(frames_task(polygon("odd", original_width=32), *others))
    assert ids_of(item) == ["0", "1"] and item.video.info.width == 64
    (reason,) = report.dropped
    assert reason.startswith("regions (original_width: … must be …")


@pytest.mark.parametrize("no_id", [KeyError, None, ""])
def test_a_region_without_an_id_is_given_one_that_no_other_has(no_id):
    task = frames_task(polygon("region-1"), polygon(no_id, item_index=1), polygon(no_id))
    (item,), report = read(task)
    assert ids_of(item) == ["region-1", "region-1'", "region-2"]
    assert report.changed == {"regions without an id of text, which were given one": 2}
    assert read(task)[0][0].video == item.video
    with pytest.raises(ValueError, match=r"result\[1\]\.id: "):
        export_task(task, ExportOptions(label_config=FRAMES_CONFIG))


def test_an_id_that_is_a_number_is_kept_as_text():
    (item,), report = read(frames_task(polygon(5), polygon("x"), polygon(5, item_index=1)))
    assert ids_of(item) == ["5", "x"] and list(item.video.tracks[0].masks) == [0, 1]
    assert report.changed == {"regions without an id of text, which were given one": 2}


def test_regions_of_one_id_are_one_object_and_what_is_united_is_counted():
    right = [[60, 60], [90, 60], [90, 90], [60, 90]]
    task = frames_task(polygon("a"), polygon("a", points=right), polygon("a", item_index=3))
    (item,), report = read(task)
    (track,) = item.video.tracks
    assert sorted(track.masks) == [0, 3]
    assert decode_mask(track.masks[0]).sum() > decode_mask(track.masks[3]).sum()
    assert report.changed == {"regions united with one of the same id and frame": 1}


def test_types_that_are_not_read_are_counted_once_and_answers_are_no_regions():
    answer = polygon("p", type="choices", from_name="c", value={"x": 1, "choices": ["a"]})
    key_point = polygon("k", type="keypointlabels", from_name="kp", value={"x": 1, "y": 1})
    (item,), report = read(frames_task(polygon("p"), answer, ellipse(), key_point))
    assert [(d.region_id, d.reason) for d in item.dropped] == [
        ("e", "regions of type 'ellipselabels' are not read"),
        ("k", "a key point has no mask"),
    ]
    assert report.dropped == {}


def test_a_task_with_nothing_that_is_read_says_what_it_holds():
    task = frames_task(ellipse(), data={"a": "x", "b": "y"})
    (item,), report = read(task, config=None)
    assert isinstance(item, SkippedTask) and [d.region_id for d in item.dropped] == ["e"]


def test_media_that_is_missing_costs_the_regions_on_it_alone():
    xml = FRAMES_XML.replace("</View>", """<Video name="video" value="$video" framerate="25"/>
        <Labels name="l" toName="video"><Label value="Car"/></Labels>
        <VideoRectangle name="box" toName="video"/></View>""")
    task = frames_task(polygon("p"), as_region(moving_track(INFO, range(3))))
    items, report = read(task, config=parse_label_config(xml))
    assert [ids_of(item) for item in items] == [["p"]]
    assert list(report.dropped) == ["videos (tasks: the task's data has no field … for …)"]


def test_what_the_callbacks_raise_is_no_malformed_value():
    region = as_region(moving_track(INFO, range(8)))
    region = json.loads(json.dumps(region))
    del region["value"]["sequence"][0]["mask"]

    def fail(_):
        raise ValueError("the model has gone")

    for options in ({"video_infos": fail}, {"stale": "resegment", "resegment": fail}):
        with pytest.raises(ValueError, match="^the model has gone"):
            read(video_task(region), config=VIDEO_CONFIG, **options)


# --- annotations and tasks -----------------------------------------------------


@pytest.mark.parametrize("bad", [None, 1.5, {"result": 1}, {"result": "x"}, {"result": {}}])
def test_a_bad_annotation_leaves_the_choice_to_the_others(bad):
    if isinstance(bad, dict):
        bad = {"updated_at": "2027", **bad}
    task = video_task(annotations=[note(1), bad])
    (item,), report = read(task, config=VIDEO_CONFIG)
    assert item.source == "annotations 1" and sum(report.dropped.values()) == 1
    assert report.malformed[0].startswith("tasks[0].annotations[1]")


def test_a_task_whose_annotations_are_all_bad_is_skipped_with_the_reason():
    (item,), report = read(video_task(annotations=[None]), config=VIDEO_CONFIG)
    assert isinstance(item, SkippedTask) and item.reason == "none of its annotations can be read"


def test_an_export_that_begins_with_what_is_no_task(tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([None, {}, frames_task(polygon())]))
    report = Report()
    (item,) = read_export(path, ExportOptions(label_config=FRAMES_CONFIG), report=report)
    assert ids_of(item) == ["p"] and sum(report.dropped.values()) == 2


def test_a_number_that_json_does_not_know_costs_what_it_spoils(tmp_path):
    path = tmp_path / "export.json"
    task = frames_task(polygon("a", score=float("nan")), polygon("b", points=[[float("inf"), 1]] * 3))
    path.write_text(json.dumps([task]))
    report = Report()
    (item,) = read_export(path, ExportOptions(label_config=FRAMES_CONFIG), report=report)
    assert ids_of(item) == ["a"] and "points[0][0]: None must be" in report.malformed[0]


# --- which annotation ----------------------------------------------------------

OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
ANSWER = {"type": "choices", "from_name": "c", "to_name": "video", "value": {"choices": ["x"]}}


@pytest.mark.parametrize("result", [[], None, [ANSWER], ["junk"]])
def test_an_empty_annotation_does_not_hide_an_older_one_with_work(result):
    task = video_task(annotations=[note(1, OLD), note(2, NEW, result=result), note(3, "2025")])
    (item,), report = read(task, config=VIDEO_CONFIG, video_infos=lambda _: INFO)
    assert item.source == "annotations 1" and ids_of(item) == ["of 1"]
    assert report.changed == {"tasks whose newest annotation is empty, an older one was read": 1}
    (said,) = report.notes
    assert said.startswith("task 7: annotation 2, its newest, is empty: annotation 1 was read")


@pytest.mark.parametrize(
    ("entries", "options", "source"),
    [
        # A ground truth that marks nothing says that there is nothing.
        ([note(1, OLD), note(2, NEW, result=[], ground_truth=True)], {}, "annotations 2"),
        ([note(1, OLD, ground_truth=True), note(2, NEW, result=[])], {}, "annotations 1"),
        # All empty: the newest.
        ([note(1, OLD, result=[]), note(2, NEW, result=[])], {}, "annotations 2"),
        # Cancelled work is none.
        ([note(1, OLD, was_cancelled=True), note(2, NEW, result=[])], {}, "annotations 2"),
    ],
)
def test_an_annotation_that_is_meant_to_be_empty_is_taken(entries, options, source):
    task = video_task(annotations=entries)
    (item,), report = read(task, config=VIDEO_CONFIG, video_infos=lambda _: INFO, **options)
    assert item.source == source and report.changed == {}


def test_a_models_newest_answer_counts_though_it_found_nothing():
    task = video_task(predictions=[note(1, OLD), note(2, NEW, result=[])])
    (item,), report = read(
        task, config=VIDEO_CONFIG, sources=("predictions",), video_infos=lambda _: INFO
    )
    assert item.source == "predictions 2" and report.changed == {}


# --- a label config that has changed -------------------------------------------


def image_config(controls):
    return parse_label_config(f'<View><Image name="img" valueList="$frames"/>{controls}</View>')


CAT = '<PolygonLabels name="poly" toName="img"><Label value="cat"/></PolygonLabels>'


@pytest.mark.parametrize(
    ("controls", "what"),
    [
        (CAT, "label"),
        (CAT.replace('"cat"', '"horse"'), "label"),
        (CAT.replace('"poly"', '"shapes"'), "control"),
        # Another kind of control has its name now.
        (CAT.replace("PolygonLabels", "BrushLabels"), "control"),
        (CAT.replace("PolygonLabels", "RectangleLabels").replace("poly", "r"), "control"),
    ],
)
def test_regions_are_kept_though_the_config_has_lost_their_label_or_control(controls, what):
    config = image_config(controls)
    task = frames_task(polygon("a"), polygon("b", labels=["dog"]))
    (item,), report = read(task, config=config)
    assert [(t.object_id, t.labels) for t in item.video.tracks] == [("a", ("cat",)), ("b", ("dog",))]
    ((said, count),) = report.changed.items()
    assert f"a {what} that the label config no longer has" in said and report.dropped == {}
    with pytest.raises(ValueError, match="label config has no|not in the label config|is a "):
        export_task(task, ExportOptions(label_config=config))


def test_regions_follow_a_tag_that_was_renamed():
    config = parse_label_config(FRAMES_XML.replace('"img"', '"frames"'))
    task = frames_task(polygon("old"), polygon("new", to_name="frames", item_index=1))
    (item,), report = read(task, config=config)
    assert ids_of(item) == ["old", "new"] and sum(report.changed.values()) == 1


def test_regions_on_a_tag_that_is_gone_and_may_be_one_of_two_are_left_out():
    xml = """<View><Image name="a" value="$a"/><Image name="b" value="$b"/>
        <PolygonLabels name="poly" toName="a"><Label value="cat"/></PolygonLabels>
        <PolygonLabels name="poly2" toName="b"><Label value="cat"/></PolygonLabels></View>"""
    here = polygon("here", to_name="a")
    task = frames_task(polygon("gone"), here, data={"a": "a.png", "b": "b.png"})
    items, report = read(task, config=parse_label_config(xml))
    assert [ids_of(item) for item in items] == [["here"]]
    (dropped,) = report.dropped
    assert dropped == "videos (tasks: the label config has no tag named … for these regions)"


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        # By the value, as before the alias was there; by the alias; by both.
        (["cat"], ("c",)), (["c"], ("c",)), (["cat", "c"], ("c",)), (["dog"], ("dog",)),
        # A value that stands under two aliases means neither.
        (["bird"], ("bird",)),
    ],
)
def test_labels_from_before_an_alias_are_those_of_the_alias(labels, found):
    config = image_config(
        '<PolygonLabels name="poly" toName="img"><Label value="cat" alias="c"/>'
        '<Label value="dog"/><Label value="bird" alias="b1"/><Label value="bird" alias="b2"/>'
        "</PolygonLabels>"
    )
    (item,), report = read(frames_task(polygon(labels=labels)), config=config)
    assert item.video.tracks[0].labels == found
    assert report.changed.get("labels, written as their aliases of the label config", 0) == labels.count("cat")


def test_a_video_region_keeps_a_label_and_a_control_that_are_gone():
    region = as_region(moving_track(INFO, range(4), object_id="a"))
    for old, new in (('"Car"', '"Lorry"'), ('name="box"', 'name="other"')):
        xml = VIDEO_XML.replace(old, new)
        assert xml != VIDEO_XML
        (item,), report = read(video_task(region), config=parse_label_config(xml))
        assert item.video.tracks[0].labels == ("Car",) and sum(report.changed.values()) == 1


# --- JSON_MIN --------------------------------------------------------------------


def record(id, annotation, *, updated=OLD, image="a.png", **controls):
    return {
        "id": id, "image": image, "annotation_id": annotation, "annotator": 1,
        "created_at": OLD, "updated_at": updated, **controls,
    }  # fmt: skip


def min_value(**fields):
    return {**polygon()["value"], "original_width": 64, "original_height": 48, **fields}


IMAGE_XML = FRAMES_XML.replace('valueList="$frames"', 'value="$image"')


def read_min(tmp_path, *records, xml=IMAGE_XML):
    path = tmp_path / "min.json"
    path.write_text(json.dumps(records))
    report = Report()
    config = None if xml is None else parse_label_config(xml)
    return list(read_export(path, ExportOptions(label_config=config), report=report)), report


def test_bad_values_of_json_min_cost_themselves_alone(tmp_path):
    bad = [7, min_value(points=[[1, 1]]), min_value(original_height="x"), min_value()]
    (item,), report = read_min(tmp_path, record(1, 1, poly=bad))
    assert ids_of(item) == ["poly-3"]
    assert [line.partition(": ")[0] for line in report.malformed] == [
        "tasks[0].poly[0]", "tasks[0].poly[2].original_height", "tasks[0].poly[1].points",
    ]  # fmt: skip


def test_json_min_takes_the_newest_record_with_regions(tmp_path):
    records = [
        record(1, 1, poly=[min_value()]), record(1, 2, updated=NEW),
        record(2, 3, image="b.png", poly=[min_value()]),
    ]  # fmt: skip
    items, report = read_min(tmp_path, *records)
    assert [item.source for item in items] == ["annotations 1", "annotations 3"]
    assert report.changed == {"tasks whose newest annotation is empty, an older one was read": 1}


def test_records_of_one_id_on_other_media_are_two_tasks(tmp_path):
    records = [record(1, n, image=f"{n}.png", poly=[min_value()]) for n in (1, 2)]
    for xml in (IMAGE_XML, None):
        items, report = read_min(tmp_path, *records, xml=xml)
        assert [item.video.name for item in items] == ["1-1", "1-2"] and not report.changed


def test_json_min_keeps_regions_of_a_control_that_is_gone(tmp_path):
    question = [{"x": 1, "y": 1, "choices": ["a"]}]
    round_one = [{"x": 1, "y": 1, "radiusX": 2, "ellipselabels": ["cat"]}]
    (item,), report = read_min(
        tmp_path, record(1, 1, old=[min_value()], poly=[min_value()], q=question, e=round_one)
    )
    assert sorted(ids_of(item)) == ["old-0", "poly-0"]
    assert [d.reason for d in item.dropped] == ["regions of type 'ellipselabels' are not read"]
    assert report.changed == {"regions of a control that the label config no longer has, kept": 1}


# --- tasks of one id -------------------------------------------------------------


def test_two_projects_tasks_of_one_id_are_both_kept_and_named(tmp_path):
    path = tmp_path / "both.json"
    tasks = [frames_task(polygon(f"{n}{id}"), id=id) for n in "ab" for id in (1, 2)]
    tasks[3]["data"] = {"frames": [url.replace("clip", "other") for url in FRAME_URLS]}
    path.write_text(json.dumps(tasks))
    report = Report()
    videos = list(load_export(path, label_config=FRAMES_XML, report=report))
    assert [v.name for v in videos] == ["1-clip", "2-clip", "1-clip-2", "2-other"]
    assert [v.tracks[0].object_id for v in videos] == ["a1", "a2", "b1", "b2"]
    assert [v.file_names[0] for v in videos[::2]] == ["1-clip/f0.jpg", "1-clip-2/f0.jpg"]
    assert sum(report.changed.values()) == 1 and sum(report.dropped.values()) == 0
    (said,) = report.notes
    assert said.startswith("task 1 comes more than once") and "'1-clip-2'" in said


def test_a_name_that_is_given_is_no_one_elses(tmp_path):
    path = tmp_path / "many.json"
    named = frames_task(polygon(), id="1-clip", data={"frames": [f"2/{n}.png" for n in range(6)]})
    path.write_text(json.dumps([frames_task(polygon(), id=1), named, *[frames_task(polygon(), id=1)] * 2]))
    names = [v.name for v in load_export(path, label_config=FRAMES_XML)]
    assert names == ["1-clip", "1-clip-2", "1-clip-3", "1-clip-4"]


# --- anything at all -------------------------------------------------------------


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([*JUNK, KeyError])), max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_nothing_in_a_task_stops_the_reading(damages, with_config, with_info):
    task = changed(("id",), 1)
    for place, junk in damages:
        holder = task
        try:
            for key in place[:-1]:
                holder = holder[key]
            if junk is KeyError:
                del holder[place[-1]]
            else:
                holder[place[-1]] = copy.deepcopy(junk)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier damage took the place away
    report = Report()
    options = ExportOptions(
        label_config=CONFIG if with_config else None,
        video_infos=(lambda _: INFO) if with_info else None,
    )
    found = export_task(task, options, where="tasks[0]", report=report)
    for item in found:
        if isinstance(item, ExportedVideo):
            for track in item.video.tracks:
                assert all(0 <= index < item.video.info.frame_count for index in track.masks)
    assert found or report.malformed
    for line in report.malformed:
        assert line.startswith("tasks[0]")


VIDEO_XML = """<View><Video name="video" value="$video" framerate="25"/>
  <Labels name="labels" toName="video"><Label value="Car"/><Label value="Dog"/></Labels>
  <VideoRectangle name="box" toName="video"/></View>"""
