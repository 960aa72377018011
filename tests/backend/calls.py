"""Requests as Label Studio makes them, built from parts."""

from __future__ import annotations

import time

VIDEO = "/data/local-files/?d=n25.mp4"
FRAMES = [f"/data/local-files/?d=sub/f{index}.jpg" for index in range(6)]
VIDEO_CONFIG = (
    '<View><Labels name="videoLabels" toName="video"><Label value="Car"/><Label value="Dog"/>'
    '</Labels><Video name="video" value="$video" framerate="25"/>'
    '<VideoRectangle name="box" toName="video"/>'
    '<TextArea name="sam2" toName="video"/></View>'
)
FRAMES_CONFIG = (
    '<View><Image name="img" valueList="$frames"/>'
    '<BrushLabels name="brush" toName="img"><Label value="Car"/></BrushLabels>'
    '<RectangleLabels name="rectangle" toName="img"><Label value="Car"/></RectangleLabels>'
    '<KeyPointLabels name="point" toName="img"><Label value="Car"/></KeyPointLabels></View>'
)


def keyframe(frame=1, x=20.0, y=20.0, width=20.0, height=20.0, **more):
    place = {"x": x, "y": y, "width": width, "height": height, "rotation": 0}
    return {"frame": frame, **place, "enabled": True, "time": frame / 25, **more}


def box(region_id="a", *keyframes, label="Car", **more):
    """A VideoRectangle that a person drew."""
    return {
        "id": region_id, "from_name": "box", "to_name": "video", "type": "videorectangle",
        "origin": "manual",
        "value": {
            "labels": [label], "framesCount": 8, "duration": 0.32,
            "sequence": list(keyframes) or [keyframe()],
        },
        **more,
    }


def text(*texts, region_id="text", name="sam2"):
    return {
        "id": region_id, "from_name": name, "to_name": "video", "type": "textarea",
        "origin": "manual", "value": {"text": list(texts)},
    }


def choice(*choices, region_id="text"):
    return {
        "id": region_id, "from_name": "how", "to_name": "video", "type": "choices",
        "value": {"choices": list(choices)},
    }


def rectangle(region_id="r", item_index=0, **more):
    """A RectangleLabels region on a frame."""
    return {
        "id": region_id, "from_name": "rectangle", "to_name": "img", "type": "rectanglelabels",
        "item_index": item_index, "original_width": 320, "original_height": 240,
        "image_rotation": 0, "origin": "manual",
        "value": {
            "x": 20, "y": 20, "width": 20, "height": 20, "rotation": 0,
            "rectanglelabels": ["Car"],
        },
        **more,
    }


def draft(*results, updated_at="2026-11-22T13:00:00Z"):
    return {"id": 1, "result": list(results), "updated_at": updated_at}


def task(task_id=1, *, data=None, drafts=(), annotations=()):
    return {
        "id": task_id, "project": 1, "data": data or {"video": VIDEO},
        "drafts": list(drafts), "annotations": list(annotations), "predictions": [],
    }


def call(the_task, *context, config=VIDEO_CONFIG):
    """An interactive call."""
    return {
        "tasks": [the_task], "project": "1.1", "label_config": config,
        "params": {"context": {"result": list(context)}},
    }


def batch(*tasks, config=VIDEO_CONFIG):
    return {
        "tasks": list(tasks), "project": "1.1", "label_config": config,
        "params": {"context": None},
    }


def saved(*results, task_id=1, data=None, config=VIDEO_CONFIG, action="ANNOTATION_CREATED"):
    """A webhook's body."""
    the_task = task(task_id, data=data)
    return {
        "action": action,
        "annotation": {"id": 9, "result": list(results), "was_cancelled": False},
        "project": {"id": 1, "label_config": config, "token": "t"},
        "task": {name: the_task[name] for name in ("id", "project", "data")},
    }


def predict(client, body):
    """The `results` of /predict."""
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.json["results"]


def result_of(client, body):
    """The regions of an interactive answer."""
    return predict(client, body)[0]["result"]


def wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def service_of(client):
    return client.application.extensions["sam2"]


def jobs_of(client):
    return service_of(client).store.list()


def wait_for_jobs(client):
    """Until none is unfinished; all of them."""
    wait_until(lambda: all(job.state.has_ended for job in jobs_of(client)))
    return jobs_of(client)
