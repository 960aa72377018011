"""`<Video>`: boxes that follow, in the real editor."""

from __future__ import annotations

import pytest

from backend.studio import SAMPLE_SIZE
from converters.geometry import box_iou
from converters.label_studio.keyframes import editor_box
from tests.e2e.objects import OPOSSUM, OPOSSUM_LATER, RED_PERSON, STANDING_PERSON
from tests.e2e.waiting import eventually

OPOSSUM_KEY, PERSON_KEY = "1", "2"
MIDDLE, LAST = 9, 16
"""1-based, as the editor counts."""


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Video", "video")


@pytest.fixture
def task(studio, project, sample) -> int:
    return studio.import_video(project, sample)


def frames_of(region):
    return [keyframe["frame"] for keyframe in region["value"]["sequence"]]


def box_at(region, ls_frame):
    """The box that the editor shows on a frame, in pixels; None when it shows none."""
    width, height = SAMPLE_SIZE
    shown = editor_box(region["value"]["sequence"], ls_frame)
    return None if shown is None else shown.to_pixels((height, width))


def is_elsewhere(first, second):
    """Whether two boxes differ clearly, or one of them is not there."""
    if first is None or second is None:
        return first is not second
    return box_iou(first, second) < 0.5


def same_place(first, second):
    return box_iou(first, second) > 0.999


def drawn_and_labelled(editor, box, key):
    """The id of a box that a person draws and then labels, once the model has answered."""
    region_id = editor.draw_unlabelled(box)
    context = editor.ask(lambda: editor.page.keyboard.press(key))
    assert region_id in [region["id"] for region in context["result"]]
    return region_id


def test_project_create_connects_the_model(studio, label_studio, project, signed_in, pictures):
    (backend,) = label_studio.ml_backends(project)
    assert (backend["state"], backend["is_interactive"]) == ("CO", True)
    assert f"{studio.backend_url}/webhook" in [w["url"] for w in label_studio.webhooks(project)]
    page = signed_in.new_page()
    page.goto(f"{studio.label_studio_url}/projects/{project}/settings/ml")
    page.wait_for_selector("text=Connected")
    page.screenshot(path=pictures / "connected.png")
    page.close()


def test_a_label_on_a_drawn_box_makes_it_follow(editor, label_studio, project, task):
    editor.open_task(project, task)
    region_id = drawn_and_labelled(editor, OPOSSUM, OPOSSUM_KEY)
    (region,) = editor.regions()
    assert (region["id"], region["value"]["labels"]) == (region_id, ["Opossum"])
    assert len(frames_of(region)) > 3 and frames_of(region)[0] == 1
    assert box_iou(box_at(region, LAST), OPOSSUM_LATER) > 0.4  # the board it rides may come along
    editor.picture("video-tracked")

    editor.go_to_frame(LAST)
    eventually(
        lambda: any(box_iou(b, box_at(region, LAST)) > 0.95 for b in editor.drawn_boxes()),
        what="the box on the canvas where the track has it",
    )
    editor.picture("video-tracked-later")

    annotation_id = editor.submit()
    (annotation,) = label_studio.annotations(task)
    (stored,) = annotation["result"]
    assert (annotation["id"], stored["id"]) == (annotation_id, region_id)
    assert stored["value"]["sequence"] == region["value"]["sequence"]


def test_a_moved_keyframe_and_track_keep_what_a_person_drew(editor, project, task):
    editor.open_task(project, task)
    region_id = drawn_and_labelled(editor, OPOSSUM, OPOSSUM_KEY)
    (before,) = editor.regions("videorectangle")
    editor.go_to_frame(MIDDLE)
    editor.select(region_id)
    there = box_at(before, MIDDLE)
    middle = ((there.x_min + there.x_max) / 2, (there.y_min + there.y_max) / 2)
    editor.drag(middle, (middle[0] - 190, middle[1] - 50))
    (moved,) = editor.regions("videorectangle")
    assert box_iou(box_at(moved, MIDDLE), there) < 0.2
    editor.wait_until_saved(moved)

    editor.ask(lambda: editor.command("track"))
    (after,) = editor.regions("videorectangle")
    assert after["id"] == region_id
    assert {1, MIDDLE} <= set(frames_of(after))
    for human in (1, MIDDLE):
        assert same_place(box_at(after, human), box_at(moved, human))
    for earlier in (3, 6):
        assert box_iou(box_at(after, earlier), box_at(before, earlier)) > 0.7
    assert any(
        is_elsewhere(box_at(after, later), box_at(before, later))
        for later in range(MIDDLE + 1, LAST + 1)
    )
    editor.picture("video-tracked-again")


def test_objects_of_two_labels_and_two_of_one_label_each_keep_their_own_track(
    editor, label_studio, project, task
):
    drawn = {
        "Opossum": [OPOSSUM],
        "Person": [STANDING_PERSON, RED_PERSON],
    }
    editor.open_task(project, task)
    ids = {}
    for (label, boxes), key in zip(drawn.items(), (OPOSSUM_KEY, PERSON_KEY)):
        for box in boxes:
            before = {r["id"]: r for r in editor.regions()}
            ids[drawn_and_labelled(editor, box, key)] = (label, box)
            editor.page.keyboard.press("Escape")
            after = {r["id"]: r for r in editor.regions()}
            for region_id, region in before.items():
                assert after[region_id]["value"] == region["value"]
    editor.picture("video-three-objects")
    editor.submit()
    (annotation,) = label_studio.annotations(task)
    regions = {r["id"]: r for r in annotation["result"]}
    assert regions.keys() == ids.keys()
    for region_id, (label, box) in ids.items():
        assert regions[region_id]["value"]["labels"] == [label]
        assert box_iou(box_at(regions[region_id], 1), box) > 0.95
        assert len(frames_of(regions[region_id])) > 1


def test_the_text_area_tracks_every_box_that_was_drawn_and_says_what_it_understands(
    editor, project, task
):
    editor.open_task(project, task)
    for box, key in ((OPOSSUM, OPOSSUM_KEY), (RED_PERSON, PERSON_KEY)):
        editor.draw_labelled(key, box)  # the label first: no call
    assert [frames_of(r) for r in editor.regions("videorectangle")] == [[1], [1]]
    editor.wait_until_saved(*editor.regions("videorectangle"))
    editor.ask(lambda: editor.command("track 4"))
    assert [r["value"]["labels"] for r in editor.regions("videorectangle")] == [
        ["Opossum"], ["Person"],
    ]
    for region in editor.regions("videorectangle"):
        assert len(frames_of(region)) > 1
        assert max(frames_of(region)) in (4, 5)
    editor.picture("video-text-area")
    editor.ask(lambda: editor.command("help"))
    (said,) = editor.regions("textarea")
    assert "track 100" in said["value"]["text"][-1]
    assert len(editor.regions("videorectangle")) == 2
