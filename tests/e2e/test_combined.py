"""The video and its frames in one task: boxes on the timeline, masks on the frames."""

from __future__ import annotations

import pytest

from tests.e2e.objects import OPOSSUM, RED_PERSON

_IMAGE = 1
"""The frames' canvas comes after the video's."""
OPOSSUM_ON_VIDEO, PERSON_BOX_ON_FRAMES = "1", "8"


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Both", "both")


@pytest.fixture
def task(studio, project, sample) -> int:
    return studio.import_video(project, sample, every=8)


def test_a_box_on_the_video_follows_and_a_box_on_a_frame_becomes_masks(
    editor, label_studio, project, task
):
    editor.page.set_viewport_size({"width": 1440, "height": 1560})
    editor.open_task(project, task)
    editor.accept_automatically(True)

    drawn = editor.draw_unlabelled(OPOSSUM)
    editor.ask(lambda: editor.page.keyboard.press(OPOSSUM_ON_VIDEO))
    (region,) = editor.regions("videorectangle")
    assert region["id"] == drawn and len(region["value"]["sequence"]) > 1

    editor.choose_smart_tool(PERSON_BOX_ON_FRAMES, "rectangle")
    editor.ask(lambda: editor.draw(RED_PERSON, canvas=_IMAGE))
    masks = editor.regions("brushlabels")
    assert len({r["item_index"] for r in masks}) > 1
    editor.picture("both")
    editor.submit()

    (annotation,) = label_studio.annotations(task)
    stored = {r["id"]: r for r in annotation["result"]}
    assert stored[drawn]["value"]["sequence"] == region["value"]["sequence"]
    assert {r["id"] for r in masks} <= stored.keys()


def test_one_request_yields_the_videos_track_and_the_masks_on_its_frames(
    editor, label_studio, project, task
):
    editor.page.set_viewport_size({"width": 1440, "height": 1560})
    editor.open_task(project, task, auto_annotation=False)
    drawn = editor.draw_labelled(OPOSSUM_ON_VIDEO, OPOSSUM)
    marked = editor.draw_labelled(PERSON_BOX_ON_FRAMES, RED_PERSON, canvas=_IMAGE)
    assert (drawn["value"]["labels"], len(drawn["value"]["sequence"])) == (["Opossum"], 1)
    assert marked["value"]["rectanglelabels"] == ["Person"]
    editor.wait_until_saved(drawn, marked)

    editor.annotate_automatically(True)
    editor.accept_automatically(True)
    editor.ask(lambda: editor.command("track"))
    (followed,) = editor.regions("videorectangle")
    assert (followed["id"], followed["value"]["labels"]) == (drawn["id"], ["Opossum"])
    assert len(followed["value"]["sequence"]) > 1
    masks = editor.regions("brushlabels")
    assert len({r["item_index"] for r in masks}) == len(masks) > 1
    assert {tuple(r["value"]["brushlabels"]) for r in masks} == {("Person",)}
    editor.picture("both-in-one-request")
    editor.submit()

    (annotation,) = label_studio.annotations(task)
    stored = {r["id"]: r for r in annotation["result"]}
    assert stored[drawn["id"]]["value"]["sequence"] == followed["value"]["sequence"]
    assert {r["id"] for r in masks} <= stored.keys()
