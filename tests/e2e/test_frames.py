"""Frames as images: clicks and boxes in the real editor, masks out to data sets."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from label_studio_sdk.converter.brush import decode_rle
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.e2e.objects import OPOSSUM, RED_PERSON
from tests.youtube_vis_judge import track_eval

FRAME_STEP = 4
FRAME_COUNT = 4
POINT_OF_OPOSSUM, POINT_OF_PERSON, BOX_OF_OPOSSUM, BOX_OF_PERSON = "3", "4", "5", "6"
"""Hotkeys, as Label Studio numbers the labels of the controls."""


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Frames", "frames")


@pytest.fixture
def task(studio, project, sample) -> int:
    return studio.import_video(project, sample, every=FRAME_STEP)


def mask_of(region):
    """(height, width) bool, read by Label Studio's own decoder and not by ours."""
    shape = (region["original_height"], region["original_width"], 4)
    return np.reshape(decode_rle(region["value"]["rle"]), shape)[:, :, 3] > 127


def bitmask_of(region):
    """(height, width) bool of a picture whose mask is what is not transparent."""
    picture = base64.b64decode(region["value"]["imageDataURL"].partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGBA"))[:, :, 3] > 0


def masks_by_frame(regions):
    return {r["item_index"]: mask_of(r) for r in regions}


def area_inside(mask, box):
    inside = mask[int(box.y_min) : int(box.y_max), int(box.x_min) : int(box.x_max)]
    return inside.sum() / max(mask.sum(), 1)


def test_clicks_and_a_box_become_masks_that_leave_as_they_were_accepted(
    editor, studio, label_studio, project, task, tmp_path
):
    editor.open_task(project, task)
    editor.accept_automatically(False)
    editor.choose_smart_tool(POINT_OF_OPOSSUM, "key-point")
    asked = editor.ask(lambda: editor.click(510, 190))
    assert [r["is_positive"] for r in asked["result"]] == [True]
    assert editor.suggestion_count() > 1

    editor.choose_smart_tool(POINT_OF_OPOSSUM, "key-point")
    asked = editor.ask(lambda: editor.click(385, 75, is_negative=True))
    assert [r["is_positive"] for r in asked["result"]] == [True, False]
    assert editor.suggestion_count() > 1
    editor.picture("frames-suggestions")
    editor.accept_suggestions()
    clicked = editor.regions("brushlabels")
    assert len({r["item_index"] for r in clicked}) == len(clicked) > 1

    editor.choose_smart_tool(BOX_OF_PERSON, "rectangle")
    editor.ask(lambda: editor.draw(RED_PERSON))
    editor.accept_suggestions()
    accepted = editor.regions("brushlabels")
    boxed = [r for r in accepted if r["value"]["brushlabels"] == ["Person"]]
    assert len(accepted) == len(clicked) + len(boxed) and len(boxed) > 1
    assert area_inside(masks_by_frame(boxed)[0], RED_PERSON) > 0.6
    editor.picture("frames-accepted")
    editor.submit()

    wanted = {(r["item_index"], tuple(r["value"]["brushlabels"])): mask_of(r) for r in accepted}
    (annotation,) = label_studio.annotations(task)
    stored = {
        (r["item_index"], tuple(r["value"]["brushlabels"])): mask_of(r)
        for r in annotation["result"] if r["type"] == "brushlabels"
    }  # fmt: skip
    assert_same_masks(stored, wanted)

    export = ("export", "--project", str(project), "--out", str(tmp_path))
    studio.command(*export, "--format", "coco")
    assert_same_masks(coco_masks(tmp_path / "coco.json"), wanted)
    assert coco_judged_as_its_own_result(tmp_path / "coco.json") == pytest.approx(1.0)
    studio.command(*export, "--format", "youtube-vis")
    assert_same_masks(youtube_vis_masks(tmp_path / "youtube_vis.json"), wanted)
    scores = judged_as_its_own_result(tmp_path / "youtube_vis.json", tmp_path / "judge")
    assert scores == pytest.approx((1.0, 1.0))


def assert_same_masks(found, wanted):
    assert found.keys() == wanted.keys()
    for key, mask in wanted.items():
        assert np.array_equal(found[key], mask), key


def coco_judged_as_its_own_result(path):
    """The mask AP of pycocotools."""
    truth = COCO(str(path))
    found = [{**item, "score": 1.0} for item in truth.anns.values()]
    evaluation = COCOeval(truth, truth.loadRes(found), "segm")
    evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return evaluation.stats[0]


def judged_as_its_own_result(path, folder):
    """(track AP, HOTA) of TrackEval; 1.0 each where nothing is lost or doubled."""
    truth = path.read_text(encoding="utf-8")
    results = [
        {
            "score": 1.0,
            "video_id": item["video_id"],
            "category_id": item["category_id"],
            "segmentations": [compressed(segmentation) for segmentation in item["segmentations"]],
        }
        for item in json.loads(truth)["annotations"]
    ]
    return track_eval(
        folder,
        lambda file: file.write_text(truth, encoding="utf-8"),
        lambda file: file.write_text(json.dumps(results), encoding="utf-8"),
    )


def compressed(segmentation):
    """As results must have it; the truth may be uncompressed."""
    if segmentation is None:
        return None
    rle = coco_mask.frPyObjects(segmentation, *segmentation["size"])
    return {"size": segmentation["size"], "counts": rle["counts"].decode("ascii")}


def coco_masks(path):
    """(frame, labels) -> mask; the frame's place in the video is the image's place in the file."""
    coco = COCO(str(path))
    order = {image_id: index for index, image_id in enumerate(coco.getImgIds())}
    return {
        (order[item["image_id"]], (coco.cats[item["category_id"]]["name"],)): coco.annToMask(
            item
        ).astype(bool)
        for item in coco.anns.values()
    }


def youtube_vis_masks(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in data["categories"]}
    found = {}
    for item in data["annotations"]:
        for frame, segmentation in enumerate(item["segmentations"]):
            if segmentation is not None:
                height, width = segmentation["size"]
                rle = coco_mask.frPyObjects(segmentation, height, width)
                found[frame, (names[item["category_id"]],)] = coco_mask.decode(rle).astype(bool)
    return found


def test_bitmasks_leave_as_they_were_accepted(editor, studio, label_studio, sample, tmp_path):
    project = studio.create_project("Bitmasks", "frames", "--masks", "BitmaskLabels")
    task = studio.import_video(project, sample, every=FRAME_STEP)
    editor.open_task(project, task)
    editor.accept_automatically(True)
    editor.choose_smart_tool(BOX_OF_OPOSSUM, "rectangle")
    editor.ask(lambda: editor.draw(OPOSSUM))
    accepted = editor.regions("bitmasklabels")
    wanted = {(r["item_index"], ("Opossum",)): bitmask_of(r) for r in accepted}
    assert {frame for frame, _ in wanted} == set(range(FRAME_COUNT))
    assert area_inside(wanted[0, ("Opossum",)], OPOSSUM) > 0.8
    editor.picture("frames-bitmask")
    editor.submit()

    (annotation,) = label_studio.annotations(task)
    stored = [r for r in annotation["result"] if r["type"] == "bitmasklabels"]
    assert {tuple(r["value"]["bitmasklabels"]) for r in stored} == {("Opossum",)}
    assert_same_masks({(r["item_index"], ("Opossum",)): bitmask_of(r) for r in stored}, wanted)
    studio.command("export", "--project", str(project), "--out", str(tmp_path), "--format", "coco")
    assert_same_masks(coco_masks(tmp_path / "coco.json"), wanted)


def test_a_box_alone_gives_a_mask_on_every_frame(editor, project, task):
    editor.open_task(project, task)
    editor.accept_automatically(True)
    editor.choose_smart_tool(BOX_OF_OPOSSUM, "rectangle")
    editor.ask(lambda: editor.draw(OPOSSUM))
    masks = masks_by_frame(editor.regions("brushlabels"))
    assert masks.keys() == set(range(FRAME_COUNT))
    assert area_inside(masks[0], OPOSSUM) > 0.8
    editor.picture("frames-box")
