"""What must not reach Label Studio: PROTOCOL sections 5, 6 and 13."""

import copy

import pytest

from converters.label_studio.config import parse_label_config
from converters.label_studio.outgoing import check_prediction, check_results

CONFIG = parse_label_config("""<View>
  <Labels name="labels" toName="video"><Label value="Car"/></Labels>
  <Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/>
  <BrushLabels name="brush" toName="img"><Label value="Car"/></BrushLabels>
  <RectangleLabels name="rect" toName="img"><Label value="Car"/></RectangleLabels>
  <Image name="img" valueList="$frames"/></View>""")

VIDEO = {
    "id": "a", "from_name": "box", "to_name": "video", "type": "videorectangle", "score": 0.5,
    "value": {"labels": ["Car"], "framesCount": 9, "duration": 0.4, "sequence": [
        {"frame": 1, "x": 1, "y": 1.5, "width": 5, "height": 5, "rotation": 0, "enabled": True,
         "time": 0.04, "mask": {"frame": 1}}]},
}
BRUSH = {
    "id": "b", "from_name": "brush", "to_name": "img", "type": "brushlabels", "item_index": 2,
    "value": {"brushlabels": ["Car"], "format": "rle", "rle": [1]},
}


def changed(region, path, value):
    """The region with the value at the path; ... for none."""
    region = copy.deepcopy(region)
    *steps, last = path
    place = region
    for step in steps:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return region


def test_good_ones_pass():
    check_prediction([VIDEO, BRUSH], score=0, model_version="m", config=CONFIG, frame_count=3)
    check_prediction([], score=1.0, model_version="m")
    text = {"id": "t", "from_name": "sam2", "to_name": "video", "type": "textarea",
            "value": {"text": ["go"]}}
    check_results([text, changed(BRUSH, ["item_index"], ...)], config=CONFIG)


KEYFRAME = ["value", "sequence", 0]


@pytest.mark.parametrize(
    ("region", "path", "value", "message"),
    [
        (VIDEO, ["id"], "", "result[0].id: ''"),
        (VIDEO, ["type"], ..., "type: None"),
        (VIDEO, ["type"], "brushlabels", "no labels control on <Image>"),
        (BRUSH, ["from_name"], "rect", "type: 'brushlabels' must be 'rectanglelabels'"),
        (VIDEO, ["from_name"], "zzz", "zzz"),
        (VIDEO, ["to_name"], "img", "to_name: 'img' must be one of ['video']"),
        (VIDEO, ["value"], None, "value: must be an object"),
        (VIDEO, ["value", "labels"], ["Dog"], "label 'Dog' is not in the label config"),
        (VIDEO, ["value", "labels"], "Car", "must be a list of strings"),
        (VIDEO, ["score"], "0.5", "score: '0.5'"),
        (VIDEO, ["score"], None, "score: None"),
        (VIDEO, ["score"], float("nan"), "score: nan"),
        (VIDEO, ["value", "sequence"], [], "value.sequence: must be a list of at least one"),
        (VIDEO, ["value", "sequence"], ..., "value.sequence"),
        (VIDEO, KEYFRAME, 3, "value.sequence[0]: int must be an object"),
        (VIDEO, [*KEYFRAME, "frame"], 0, "sequence[0].frame: 0 must be an integer from 1"),
        (VIDEO, [*KEYFRAME, "frame"], 1.5, "frame: 1.5"),
        (VIDEO, [*KEYFRAME, "frame"], "1", "frame: '1'"),
        (VIDEO, [*KEYFRAME, "frame"], True, "frame: True"),
        (VIDEO, [*KEYFRAME, "x"], 150, "x: 150 must be at most 100"),
        (VIDEO, [*KEYFRAME, "width"], -1, "width: -1 must be at least 0"),
        (VIDEO, [*KEYFRAME, "y"], ..., "y: None must be a finite number"),
        (VIDEO, [*KEYFRAME, "rotation"], ..., "rotation: None"),
        (VIDEO, [*KEYFRAME, "enabled"], 1, "enabled: 1 must be true or false"),
        (VIDEO, [*KEYFRAME, "time"], ..., "time: None"),
        (BRUSH, ["item_index"], 3, "item_index: 3 must be an integer in [0, 3)"),
        (BRUSH, ["item_index"], -1, "item_index: -1"),
        (BRUSH, ["item_index"], 1.0, "item_index: 1.0"),
        (BRUSH, ["item_index"], None, "item_index: None"),
        (BRUSH, ["item_index"], "1", "item_index: '1'"),
    ],
)
def test_each_silent_failure_is_named(region, path, value, message):
    with pytest.raises(ValueError) as caught:
        check_results([changed(region, path, value)], config=CONFIG, frame_count=3)
    assert message in str(caught.value)


@pytest.mark.parametrize("result", [None, {"result": []}, "[]", [None], [[]]])
def test_a_result_that_is_no_list_of_objects_is_named(result):
    with pytest.raises(ValueError, match="result"):
        check_prediction(result, score=0.5, model_version="m")
