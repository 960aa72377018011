"""The video and its frames in one task: boxes on the timeline, masks on the frames."""

from __future__ import annotations

from tests.e2e.objects import OPOSSUM, RED_PERSON

_IMAGE = 1
"""The frames' canvas comes after the video's."""
OPOSSUM_ON_VIDEO, PERSON_BOX_ON_FRAMES = "1", "8"


def test_a_box_on_the_video_follows_and_a_box_on_a_frame_becomes_masks(
    editor, studio, label_studio, sample
):
    project = studio.create_project("Both", "both")
    task = studio.import_video(project, sample, every=8)
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
