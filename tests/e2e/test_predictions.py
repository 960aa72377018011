"""Predictions that nobody waits for: the Data Manager's batch, and the webhook of Submit."""

from __future__ import annotations

import httpx
import pytest

from backend.studio import SAMPLE_FPS, SAMPLE_SIZE
from converters.geometry import pixel_to_percent_box
from tests.e2e.conftest import ACCOUNT, SHORT_FRAME_COUNT
from tests.e2e.objects import OPOSSUM, STANDING_PERSON
from tests.e2e.waiting import eventually

TASK_COUNT = 20
AUTHORIZATION = {"Authorization": f"Token {ACCOUNT.legacy_token}"}


def drawn_box(box, *, label="Opossum", region_id="drawn", ls_frame=1):
    """A VideoRectangle result as the editor saves it."""
    width, height = SAMPLE_SIZE
    x, y, width, height = pixel_to_percent_box(box, (height, width))
    keyframe = {
        "frame": ls_frame, "enabled": True, "rotation": 0, "time": ls_frame / SAMPLE_FPS,
        "x": x, "y": y, "width": width, "height": height,
    }  # fmt: skip
    return {
        "id": region_id, "from_name": "box", "to_name": "video", "type": "videorectangle",
        "origin": "manual",
        "value": {
            "framesCount": SHORT_FRAME_COUNT, "duration": SHORT_FRAME_COUNT / SAMPLE_FPS, "labels": [label],
            "sequence": [keyframe],
        },
    }  # fmt: skip


def drawn_rectangle(box, *, label="Person", region_id="on-frame", item_index=0):
    """A RectangleLabels result on one of the frames."""
    width, height = SAMPLE_SIZE
    x, y, box_width, box_height = pixel_to_percent_box(box, (height, width))
    return {
        "id": region_id, "from_name": "rectangle", "to_name": "frame", "type": "rectanglelabels",
        "origin": "manual", "item_index": item_index, "image_rotation": 0,
        "original_width": width, "original_height": height,
        "value": {
            "x": x, "y": y, "width": box_width, "height": box_height, "rotation": 0,
            "rectanglelabels": [label],
        },
    }  # fmt: skip


def retrieve_predictions(url, project):
    """The Data Manager's action on all tasks of a project."""
    answer = httpx.post(
        f"{url}/api/dm/actions",
        params={"id": "retrieve_tasks_predictions", "project": project},
        json={"selectedItems": {"all": True, "excluded": []}},
        headers=AUTHORIZATION,
        timeout=620,
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def delete_webhooks(url, label_studio, project):
    """So that annotations ask for nothing."""
    for webhook in label_studio.webhooks(project):
        address = f"{url}/api/webhooks/{webhook['id']}/"
        answer = httpx.delete(address, headers=AUTHORIZATION, timeout=120)
        assert answer.status_code == 204, answer.text


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Predictions", "video")


def test_retrieve_predictions_for_twenty_tasks_gives_each_its_own(
    studio, label_studio, short_sample
):
    project = studio.create_project("Batch", "video")
    delete_webhooks(studio.label_studio_url, label_studio, project)
    video = label_studio.upload_file(project, short_sample)
    data = {"video": video, "fps": SAMPLE_FPS}
    tasks = label_studio.import_tasks(project, [{"data": data}] * (TASK_COUNT + 1))
    without_box = tasks.pop()
    for number, task in enumerate(tasks):
        box = STANDING_PERSON if number % 2 else OPOSSUM
        label = "Person" if number % 2 else "Opossum"
        label_studio.create_annotation(
            task, [drawn_box(box, label=label, region_id=f"drawn{number}")]
        )
    retrieve_predictions(studio.label_studio_url, project)
    for number, task in enumerate(tasks):
        prediction, *more = eventually(
            lambda: label_studio.predictions(task), what=f"a prediction of task {task}"
        )
        assert not more
        (region,) = prediction["result"]
        assert region["id"] == f"drawn{number}"
        assert region["value"]["labels"] == ["Person" if number % 2 else "Opossum"]
        assert len(region["value"]["sequence"]) > 1
        assert 0 < prediction["score"] <= 1
        assert prediction["model_version"] == "sam2:demo"
    assert label_studio.predictions(without_box) == []


def test_submit_posts_a_prediction_and_accepting_it_begins_no_loop(
    editor, studio, label_studio, project, short_sample
):
    task = studio.import_video(project, short_sample)
    editor.open_task(project, task, auto_annotation=False)
    drawn = editor.draw_labelled("1", OPOSSUM)  # the label first, Auto-Annotation off: no call
    editor.submit()
    (prediction,) = eventually(
        lambda: label_studio.predictions(task), what="the prediction of the submitted box"
    )
    (region,) = prediction["result"]
    assert region["id"] == drawn["id"] and len(region["value"]["sequence"]) > 1

    label_studio.create_annotation(task, prediction["result"])
    other = studio.import_video(project, short_sample)
    label_studio.create_annotation(other, [drawn_box(OPOSSUM)])
    # Webhooks come in order, so when this one's prediction is there, the other's would be.
    eventually(lambda: label_studio.predictions(other), what="the prediction of the other task")
    assert [p["id"] for p in label_studio.predictions(task)] == [prediction["id"]]
