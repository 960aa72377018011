import numpy as np
import pytest

from converters import bitmask_png, brush_rle
from converters.label_studio import polygons
from converters.label_studio.config import parse_label_config
from converters.label_studio.results import frame_requests, video_requests
from converters.types import Box
from tests.converters.cases import DATA, blob, constant_rate_info, payload

VIDEO_CONFIG = parse_label_config((DATA / "configs/config_video_rectangle.xml").read_text())
FRAMES_XML = """<View><Image name="img" valueList="$frames"/>
    <BrushLabels name="brush" toName="img"><Label value="Car"/><Label value="Dog"/></BrushLabels>
    <BitmaskLabels name="bm" toName="img"><Label value="Car"/><Label value="Dog"/></BitmaskLabels>
    <KeyPointLabels name="kp" toName="img"><Label value="Car"/><Label value="Dog"/></KeyPointLabels>
    <RectangleLabels name="rect" toName="img"><Label value="Car"/><Label value="Dog"/></RectangleLabels>
    <PolygonLabels name="poly" toName="img"><Label value="Car"/><Label value="Dog"/></PolygonLabels>
    <VectorLabels name="vector" toName="img"><Label value="Car"/><Label value="Dog"/></VectorLabels>
    </View>"""
FRAMES_CONFIG = parse_label_config(FRAMES_XML)
INFO = constant_rate_info(100, width=640, height=360)
FRAMES = constant_rate_info(6, width=320, height=240)


def keyframe(frame, x=10, y=20, width=30, height=40, **fields):
    return {"frame": frame, "x": x, "y": y, "width": width, "height": height, **fields}


def region(sequence, **fields):
    value = {"framesCount": 100, "duration": 4, "sequence": sequence, "labels": ["Car"]}
    return {
        "id": "r1",
        "from_name": "box",
        "to_name": "video",
        "type": "videorectangle",
        "value": value,
        **fields,
    }


def read_video(*regions, framerate=25, info=INFO):
    return video_requests(regions, config=VIDEO_CONFIG, info=info, framerate=framerate)


def prompted(*regions, **options):
    (request,) = read_video(*regions, **options)
    return [(prompt.frame_index, prompt.box) for prompt in request.prompts]


def test_a_box_drawn_in_the_editor_is_one_prompt():
    context = payload("predict_interactive_videorectangle")["params"]["context"]

    (request,) = read_video(*context["result"])

    assert (request.object_id, request.labels) == ("_U9dpdxv-7", ("Dog",))
    (prompt,) = request.prompts
    assert (prompt.object_id, prompt.frame_index) == ("_U9dpdxv-7", 0)
    box = prompt.box
    assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx((129, 72, 321, 180))
    assert request.source_region is context["result"][0]


def test_a_text_area_beside_the_region_is_passed_over():
    context = payload("predict_interactive_video_textarea_perregion")["params"]["context"]
    info = constant_rate_info(1259, fps=29.97, width=1280, height=720)
    (request,) = read_video(*context["result"], info=info)
    assert [prompt.frame_index for prompt in request.prompts] == [0]


def test_key_frames_with_fields_of_another_tool_are_a_persons():
    exported = payload("export_videorectangle_with_extra_fields")
    results = exported[0]["annotations"][0]["result"]
    (request,) = read_video(*results)
    assert [p.frame_index for p in request.prompts] == [0, 4, 12, 19, 29, 49]


BOX = Box(64, 72, 256, 216)


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        # Neither enabled, rotation nor time.
        ([keyframe(1)], [(0, BOX)]),
        # The key frame that disables is itself visible.
        ([keyframe(1, enabled=True), keyframe(9, enabled=False)], [(0, BOX), (8, BOX)]),
        # Unsorted.
        ([keyframe(9), keyframe(3)], [(2, BOX), (8, BOX)]),
        # Duplicate: the editor shows the first in stored order.
        ([keyframe(3), keyframe(3, x=50)], [(2, BOX)]),
        # Past framesCount: no picture, no prompt.
        ([keyframe(1), keyframe(150)], [(0, BOX)]),
        # Whole numbers as JavaScript may write them.
        ([keyframe(3.0)], [(2, BOX)]),
        # Over the edge: what lies inside the picture.
        ([keyframe(1, x=-10, width=50)], [(0, Box(0, 72, 256, 216))]),
        # Turned: the box around it, in pixels.
        ([keyframe(1, x=50, y=50, rotation=90)], [(0, Box(176, 180, 320, 360))]),
        # Nothing at all.
        ([], []),
    ],
)
def test_prompts_are_the_key_frames_as_the_editor_shows_them(sequence, expected):
    got = prompted(region(sequence))
    assert [index for index, _ in got] == [index for index, _ in expected]
    for (_, box), (_, wanted) in zip(got, expected):
        assert (box.x_min, box.y_min, box.x_max, box.y_max) == pytest.approx(
            (wanted.x_min, wanted.y_min, wanted.x_max, wanted.y_max)
        )


def test_of_two_key_frames_on_one_picture_the_later_counts():
    # At 50 frames a second of config, frames 5 and 6 both show picture 2.
    got = prompted(region([keyframe(5), keyframe(6, x=0, width=40)]), framerate=50)
    assert got == [(2, Box(0, 72, 256, 216))]


MASK = {"frame": 5, "box": [10, 20, 30, 40], "size": [360, 640], "counts": "x"}


@pytest.mark.parametrize(
    ("fields", "is_prompt"),
    [
        # Ours, untouched; lifespan toggled; rounded on its way through the browser.
        (dict(frame=5, mask=MASK, rotation=0), False),
        (dict(frame=5, mask=MASK, enabled=False), False),
        (dict(frame=5, mask=MASK, x=10.0000001, rotation=360), False),
        # Moved, resized, turned: the mask went stale.
        (dict(frame=5, mask=MASK, x=10.1), True),
        (dict(frame=5, mask=MASK, height=41), True),
        (dict(frame=5, mask=MASK, rotation=1), True),
        # A new one between two of ours, which inherited the next one's mask.
        (dict(frame=4, mask=MASK), True),
        # No mask, another tool's, or a broken one.
        (dict(frame=5), True),
        (dict(frame=5, mask={"a": 1}), True),
        (dict(frame=5, mask=None), True),
        (dict(frame=5, mask={**MASK, "box": "abcd"}), True),
        (dict(frame=5, mask={**MASK, "box": [10, 20, 30]}), True),
        (dict(frame=5, mask={**MASK, "box": [10, 20, 30, None]}), True),
        # A person's, already answered: still a prompt.
        (dict(frame=5, prompt={"frame": 5, "box": [10, 20, 30, 40, 0]}), True),
    ],
)
def test_a_key_frame_is_ours_only_while_its_mask_fits_frame_and_box(fields, is_prompt):
    (request,) = read_video(region([keyframe(**fields)]))
    assert bool(request.prompts) is is_prompt


def test_labels_in_a_result_of_their_own_are_found():
    box = region([keyframe(1)])
    del box["value"]["labels"]
    labels = {"id": "r1", "from_name": "videoLabels", "type": "labels", "value": {"labels": ["Dog"]}}
    (request,) = read_video(box, labels)
    assert request.labels == ("Dog",)
    (unlabelled,) = read_video(box)
    assert unlabelled.labels == ()


def test_several_labels_on_a_region_are_kept():
    box = region([keyframe(1)])
    box["value"]["labels"] = ["Dog", "Car"]
    assert read_video(box)[0].labels == ("Dog", "Car")


def changed(**fields):
    return region([keyframe(1)], **fields)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("text", "result 'text' must be an object"),
        (changed(id=None), "id: .* must be a string"),
        (changed(id=""), "id: .* must be a string"),
        (changed(value=None), "region 'r1': value: must be an object"),
        (changed(value={}), r"region 'r1': value\.sequence: must be a list"),
        (changed(from_name="gone"), "region 'r1': .*no VideoRectangle named 'gone'"),
        (region([7]), r"region 'r1': value\.sequence\[0\]: 7 must be an object"),
        (region([keyframe(0)]), r"value\.sequence\[0\]\.frame: 0 must be an integer from 1"),
        (region([keyframe(1.5)]), "frame: 1.5"),
        (region([keyframe("1")]), "frame: '1'"),
        (region([keyframe(True)]), "frame: True"),
        (region([keyframe(1, x=None)]), r"sequence\[0\]\.x: x None, must be a finite number"),
        (region([keyframe(1, y="2")]), "y: y '2', must be"),
        (region([keyframe(1, width=float("nan"))]), "width: width nan, must be"),
        (region([keyframe(1, rotation="up")]), "rotation: rotation 'up', must be"),
        (region([keyframe(1, width=0)]), "must have an area inside the picture"),
        (region([keyframe(1, width=-5)]), "must have an area inside the picture"),
        (region([keyframe(1, x=120)]), "must have an area inside the picture"),
        (changed(value={"sequence": [], "labels": "Car"}), "must be a list of strings"),
        (changed(value={"sequence": [], "labels": ["Cat"]}), "region 'r1': label 'Cat' is not"),
    ],
)
def test_malformed_video_results_name_the_region_and_the_rule(bad, message):
    with pytest.raises(ValueError, match=message):
        read_video(bad)


def test_two_regions_of_one_id_are_refused():
    with pytest.raises(ValueError, match="more than one videorectangle of this id"):
        read_video(changed(), changed())


# --- frames as images --------------------------------------------------------


def mark(kind, value, *, id="m1", item_index=0, labels=("Car",), **fields):
    names = {
        "keypointlabels": "kp", "rectanglelabels": "rect", "brushlabels": "brush",
        "bitmasklabels": "bm", "polygonlabels": "poly", "vectorlabels": "vector",
    }  # fmt: skip
    return {
        "id": id,
        "type": kind,
        "from_name": names[kind],
        "to_name": "img",
        "original_width": 320,
        "original_height": 240,
        "image_rotation": 0,
        "item_index": item_index,
        "origin": "manual",
        "value": {**value, kind: list(labels)},
        **fields,
    }


def point(x, y, **fields):
    return mark("keypointlabels", {"x": x, "y": y, "width": 0.4}, **fields)


def rectangle(x=10, y=10, width=20, height=20, rotation=0, **fields):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return mark("rectanglelabels", value, **fields)


def brush(mask, **fields):
    return mark("brushlabels", {"format": "rle", "rle": brush_rle.encode(mask)}, **fields)


def bitmask(mask, **fields):
    return mark("bitmasklabels", {"imageDataURL": bitmask_png.encode(mask)}, **fields)


def polygon(mask, **fields):
    points = polygons.to_percent(polygons.mask_outline(mask), mask.shape)
    return mark("polygonlabels", {"points": [list(p) for p in points]}, **fields)


def vector(mask, **fields):
    points = polygons.to_percent(polygons.mask_outline(mask), mask.shape)
    return mark("vectorlabels", {"vertices": polygons.vertices_of(points)}, **fields)


def read_frames(*results):
    return frame_requests(results, config=FRAMES_CONFIG, info=FRAMES)


def test_key_points_of_one_label_on_two_frames_are_one_object():
    name = "predict_interactive_image_valuelist_keypoints_pos_neg_two_frames"
    context = payload(name)["params"]["context"]

    (request,) = read_frames(*context["result"])

    assert (request.object_id, request.labels) == ("uQxbPbflN3", ("Car",))
    first, second = request.prompts
    assert (first.frame_index, second.frame_index) == (0, 2)
    np.testing.assert_allclose(
        first.points_xy, [[96, 96], [160, 120.32], [32, 24.32]], rtol=1e-6
    )
    assert first.point_labels.tolist() == [1, 1, 0]
    np.testing.assert_allclose(second.points_xy, [[192, 144]])
    assert first.box is None and request.source_region is None


@pytest.mark.parametrize(
    ("result", "label"),
    [
        (point(1, 1), 1),
        (point(1, 1, is_positive=True), 1),
        (point(1, 1, is_positive=False), 0),
        # As Enterprise writes it.
        (mark("keypointlabels", {"x": 1, "y": 1, "positive": False}), 0),
        (mark("keypointlabels", {"x": 1, "y": 1, "positive": True}), 1),
    ],
)
def test_a_point_says_whether_it_is_on_the_object(result, label):
    (request,) = read_frames(result)
    assert request.prompts[0].point_labels.tolist() == [label]


def test_a_rectangle_and_points_of_one_label_go_together():
    (request,) = read_frames(point(15, 15, id="p"), rectangle(id="b"))
    (prompt,) = request.prompts
    assert prompt.box == Box(32, 24, 96, 72)
    assert len(prompt.points_xy) == 1


def test_labels_keep_objects_apart():
    requests = read_frames(point(1, 1, id="a"), point(2, 2, id="b", labels=["Dog"]))
    assert [(r.object_id, r.labels) for r in requests] == [("a", ("Car",)), ("b", ("Dog",))]


def test_two_rectangles_of_one_label_on_a_frame_are_two_objects():
    requests = read_frames(
        point(75, 75, id="in second"),
        rectangle(id="first"),
        rectangle(70, 70, id="second"),
        rectangle(12, 12, id="first, later", item_index=3),
        point(50, 50, id="in neither"),
    )
    assert [r.object_id for r in requests] == ["first", "second"]
    first, second = requests
    assert [p.frame_index for p in first.prompts] == [0, 3]
    np.testing.assert_allclose(first.prompts[0].points_xy, [[160, 120]])
    np.testing.assert_allclose(second.prompts[0].points_xy, [[240, 180]])


def test_regions_that_share_our_track_are_one_object():
    requests = read_frames(
        point(1, 1, id="a", meta={"track": "t"}),
        point(2, 2, id="b", item_index=1, meta={"track": "t"}),
        point(3, 3, id="c"),
    )
    assert [(r.object_id, len(r.prompts)) for r in requests] == [("t", 2), ("c", 1)]


@pytest.mark.parametrize("draw", [brush, bitmask, polygon, vector])
def test_a_mask_drawn_by_hand_is_a_mask_prompt(draw):
    mask = blob(240, 320)
    (request,) = read_frames(draw(mask, item_index=4))
    (prompt,) = request.prompts
    assert (request.object_id, prompt.frame_index) == ("m1", 4)
    np.testing.assert_array_equal(prompt.mask, mask)


def test_strokes_on_one_frame_of_a_track_are_one_mask():
    a, b = blob(240, 320, centre=(0.3, 0.3)), blob(240, 320, centre=(0.7, 0.7))
    meta = {"track": "t"}
    (request,) = read_frames(brush(a, id="a", meta=meta), bitmask(b, id="b", meta=meta))
    np.testing.assert_array_equal(request.prompts[0].mask, a | b)


@pytest.mark.parametrize(
    ("origin", "is_prompt"),
    [("prediction", False), ("prediction-changed", True), ("manual", True)],
)
def test_our_own_masks_are_prompts_only_once_changed(origin, is_prompt):
    ours = brush(blob(240, 320), meta={"track": "t"}, origin=origin)
    assert bool(read_frames(ours)) is is_prompt


def test_a_missing_item_index_is_the_first_frame():
    result = point(1, 1)
    for missing in ({}, {"item_index": None}):
        del result["item_index"]
        result.update(missing)
        assert read_frames(result)[0].prompts[0].frame_index == 0
        result.setdefault("item_index", 0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (point(1, 1, item_index=6), r"'m1': item_index: 6 must be an integer in \[0, 6\)"),
        (point(1, 1, item_index=-1), "item_index: -1"),
        (point(1, 1, item_index=1.0), "item_index: 1.0"),
        (point(1, 1, item_index="1"), "item_index: '1'"),
        (point(1, 1, item_index=True), "item_index: True"),
        (point(101, 1), "value.x: 101 must be from 0 to 100"),
        (point(None, 1), "value.x: None must be a finite number"),
        (point(1, 1, is_positive="no"), "is_positive: 'no' must be true or false"),
        (point(1, 1, labels=["Cat"]), "'m1': label 'Cat' is not"),
        (point(1, 1, from_name="gone"), "no labels control on <Image> named 'gone'"),
        (point(1, 1, image_rotation=90), "image_rotation: 90 must be 0"),
        (point(1, 1, meta={"track": []}), r"meta.track: \[\]"),
        (rectangle(width=0), "must have an area"),
        (rectangle(width=-1), "value.width: -1 must be >= 0"),
        (rectangle(x=100), "must have an area"),
        (brush(blob(240, 321)), "must hold 4"),
        (brush(blob(240, 320), original_width=640), "original_width: 640 must be 320"),
        (brush(np.zeros((240, 320), bool)), "its mask is empty"),
        (mark("brushlabels", {"format": "png", "rle": []}), "value.format: 'png' must be 'rle'"),
        (mark("brushlabels", {"format": "rle", "rle": []}), "'m1': value.rle: rle has 0 bytes"),
        (mark("brushlabels", {"format": "rle"}), "'m1': value.rle: rle of type NoneType"),
        (mark("polygonlabels", {}), "'m1': value.points: None must be a list of three"),
        (mark("polygonlabels", {"points": [[0, 0], [1e-9, 0], [0, 1e-9]]}), "its mask is empty"),
        (mark("vectorlabels", {"vertices": [7, 7, 7]}), r"value.vertices\[0\]: 7 must be an object"),
        (mark("bitmasklabels", {}), "'m1': value.imageDataURL: bitmask .*must be a data URL"),
    ],
)
def test_malformed_frame_results_name_the_region_and_the_rule(bad, message):
    with pytest.raises(ValueError, match=message):
        read_frames(bad)


SQUARE = blob(240, 320)


@pytest.mark.parametrize(
    "make", [lambda **f: point(50, 50, **f), rectangle, lambda **f: brush(SQUARE, **f),
             lambda **f: polygon(SQUARE, **f), lambda **f: vector(SQUARE, **f)],
    ids=["point", "rectangle", "brush", "polygon", "vector"],
)  # fmt: skip
@pytest.mark.parametrize(
    "width, height, message",
    [
        (240, 320, r"original_width: 240 must be 320: .*240 x 320.*has 320 x 240 .*turned"),
        (320, 241, r"original_height: 241 must be 240: .*320 x 241 pixels.*has 320 x 240"),
        (640, 480, r"original_width: 640 must be 320: .*640 x 480"),
        ("320", 240, r"original_width: '320' must be 320"),
    ],
)
def test_a_region_drawn_on_a_picture_of_another_size_is_refused(make, width, height, message):
    with pytest.raises(ValueError, match=message):
        read_frames(make(original_width=width, original_height=height))


@pytest.mark.parametrize("size", [None, 320.0])
def test_points_boxes_and_outlines_need_not_say_the_pictures_size(size):
    for make in (lambda **f: point(50, 50, **f), rectangle, lambda **f: polygon(SQUARE, **f)):
        marked = make(original_width=size, original_height=None)
        assert len(read_frames(marked)) == 1
        del marked["original_width"], marked["original_height"]
        assert len(read_frames(marked)) == 1


def test_a_box_on_a_video_of_another_size_is_refused():
    fits, turned = (dict(original_width=w, original_height=h) for w, h in ((640, 360), (360, 640)))
    assert len(read_video(region([keyframe(1)], **fits))) == 1
    with pytest.raises(ValueError, match="'r1': original_width: 360 must be 640: .* turned"):
        read_video(region([keyframe(1)], **turned))


def test_a_mask_cannot_go_with_points_on_its_frame():
    meta = {"track": "t"}
    with pytest.raises(ValueError, match="a mask stands alone"):
        read_frames(brush(blob(240, 320), meta=meta), point(1, 1, id="p", meta=meta))
