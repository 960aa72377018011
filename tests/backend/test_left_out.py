"""One malformed region costs that region: the others of its request are answered, and it is said."""

import pytest

from backend.jobs.types import JobState, PostState
from tests.backend.calls import (
    FRAMES,
    FRAMES_CONFIG,
    batch,
    box,
    call,
    draft,
    jobs_of,
    keyframe,
    predict,
    rectangle,
    result_of,
    saved,
    service_of,
    task,
    text,
    wait_for_jobs,
    wait_until,
)

COUNTS = "the box at frame … must have an area inside the picture"


def bad_box(**place):
    return box("bad", keyframe(**place))


def without(region, *names):
    for value in (region["value"], *region["value"].get("sequence", ())):
        for name in names:
            value.pop(name, None)
    return region


def point(region_id="p", x=25, y=25, item_index=0, **more):
    value = {"x": x, "y": y, "width": 0.4, "keypointlabels": ["Car"]}
    return rectangle(
        region_id, item_index, from_name="point", type="keypointlabels", value=value, **more
    )


def bad_rectangle(region_id="bad", **value):
    region = rectangle(region_id)
    return {**region, "value": {**region["value"], **value}}


def frames_task(**more):
    return task(data={"frames": FRAMES}, **more)


BAD_ON_VIDEO = {
    "outside": bad_box(x=150),
    "above": bad_box(y=-60),
    "of no size": bad_box(width=0),
    "without a width": without(box("bad"), "width"),
    "a word": bad_box(x="left"),
    "too large a number": bad_box(x=1e300),
    "a label that the config lacks": box("bad", label="Horse"),
    "a control that the config lacks": box("bad", from_name="other"),
    "a video that the config lacks": box("bad", to_name="other"),
    "no sequence": without(box("bad"), "sequence"),
    "no value": {**box("bad"), "value": None},
    "no id": box(None),
    "an id twice": box("a", label="Dog"),
    "labels of its own that are none": [
        without(box("bad"), "labels"),
        {**box("bad"), "type": "labels", "value": {"labels": 7}},
    ],
}
BAD_ON_FRAMES = {
    "a rectangle outside": bad_rectangle(x=120),
    "of no size": bad_rectangle(height=0),
    "without a width": without(rectangle("bad"), "width"),
    "a point outside": point("bad", x=130, item_index=2),
    "a frame that there is not": rectangle("bad", 6),
    "a frame that is no number": rectangle("bad", "1"),
    "a label that the config lacks": bad_rectangle(rectanglelabels=["Horse"]),
    "a control that the config lacks": rectangle("bad", from_name="other"),
    "a mask of another size": {
        **rectangle("bad", from_name="brush", type="brushlabels", original_width=10),
        "value": {"format": "rle", "rle": [0], "brushlabels": ["Car"]},
    },
    "a mask that is none": {
        **rectangle("bad", from_name="brush", type="brushlabels"),
        "value": {"format": "rle", "rle": "none", "brushlabels": ["Car"]},
    },
    "two rectangles of one object on a frame": [
        rectangle("bad", meta={"track": "t"}), rectangle("b2", meta={"track": "t"}),
    ],
}


def check_said(client, said, name):
    (job,) = wait_for_jobs(client)
    assert (job.state, job.error) == (JobState.DONE, None)
    assert said == job.left_out == client.get(f"/api/jobs/{job.id}").json["left_out"]
    assert sum(said["counts"].values()) == 1
    (line,) = said["regions"]
    assert line.startswith(f"region {name!r}")


@pytest.mark.parametrize("kind", BAD_ON_VIDEO)
@pytest.mark.parametrize("is_first", [True, False])
def test_on_a_video_the_others_are_tracked(make_quick_client, quick, caplog, kind, is_first):
    bad = BAD_ON_VIDEO[kind]
    bad = bad if isinstance(bad, list) else [bad]
    client = make_quick_client()
    name = {"no id": None, "an id twice": "a"}.get(kind, "bad")
    is_first = is_first and kind != "an id twice"
    marks = [*bad, box("a")] if is_first else [box("a"), *bad]
    (alone,) = result_of(make_quick_client(data_folder=client_folder(client)), call(task(), box("a")))
    (answer,) = predict(client, call(task(), *marks))
    assert answer["result"] == [alone]
    check_said(client, answer["left_out"], name)
    assert "1 region is left out" in caplog.text and f"region {name!r}" in caplog.text


def client_folder(client):
    """Another one than the client's, which would have the stored answer."""
    return service_of(client).settings.data_folder.with_name("other")


@pytest.mark.parametrize("kind", BAD_ON_FRAMES)
def test_on_frames_the_others_are_tracked(make_quick_client, kind):
    bad = BAD_ON_FRAMES[kind]
    bad = bad if isinstance(bad, list) else [bad]
    client = make_quick_client()
    other = make_quick_client(data_folder=client_folder(client))
    alone = result_of(other, call(frames_task(), rectangle("a"), config=FRAMES_CONFIG))
    marks = [*bad, rectangle("a")]
    (answer,) = predict(client, call(frames_task(), *marks, config=FRAMES_CONFIG))
    assert len(alone) == len(FRAMES) and answer["result"] == alone
    check_said(client, answer["left_out"], "b2" if len(bad) == 2 else "bad")


def test_a_label_that_no_mask_can_have_costs_its_own_objects(make_quick_client):
    config = FRAMES_CONFIG.replace(
        '<RectangleLabels name="rectangle" toName="img">', "<RectangleLabels name=\"rectangle\" "
        'toName="img"><Label value="Dog"/>'
    ).replace('<BrushLabels name="brush"', '<PolygonLabels name="brush"').replace(
        "</BrushLabels>", "</PolygonLabels>"
    ).replace("RectangleLabels", "KeyPointLabels")
    click = {**point("a"), "from_name": "rectangle"}
    dog = {**point("d", 60, 60), "from_name": "rectangle"}
    dog["value"] = {**dog["value"], "keypointlabels": ["Dog"]}
    client = make_quick_client()
    (answer,) = predict(client, call(frames_task(), click, dog, config=config))
    assert {region["meta"]["track"] for region in answer["result"]} == {"a"}
    check_said(client, answer["left_out"], "d")
    refused = make_quick_client().post("/predict", json=call(frames_task(), dog, config=config))
    assert refused.status_code == 422 and "no place to go" in refused.json["detail"]


def test_points_on_a_rectangle_that_is_left_out_prompt_no_other_object(make_quick_client, quick):
    client = make_quick_client()
    marks = [rectangle("a"), bad_rectangle(x=120), point("in a", 25, 25), point("in bad", 80, 80)]
    (answer,) = predict(client, call(frames_task(), *marks, config=FRAMES_CONFIG))
    assert quick.prompted == [("a", 0)]
    assert [line.split("'")[1] for line in answer["left_out"]["regions"]] == ["bad", "in bad"]


@pytest.mark.parametrize("bad", [bad_box(x=150), box("bad", label="Horse"), box("bad", to_name="o")])
def test_when_all_are_bad_the_first_says_why(make_quick_client, bad):
    client = make_quick_client()
    second = {**bad, "id": "worse"}
    answer = client.post("/predict", json=call(task(), bad, second))
    assert answer.status_code == 400 and answer.json["detail"].startswith("region 'bad': ")
    assert all(job.state is JobState.FAILED for job in wait_for_jobs(client))


def test_counts_are_by_reason_and_places_are_twenty(make_quick_client):
    client = make_quick_client()
    bad = [box(f"b{n}", keyframe(frame=n % 8 + 1, x=150)) for n in range(30)]
    (answer,) = predict(client, call(task(), box(), *bad, box("h", label="Horse")))
    said = answer["left_out"]
    assert said["counts"][f"regions ({COUNTS})"] == 30 and len(said["counts"]) == 2
    assert len(said["regions"]) == 20


def test_a_stored_answer_says_it_again(make_quick_client, quick):
    client = make_quick_client()
    first, again = (predict(client, call(task(), box(), bad_box(x=150))) for _ in range(2))
    assert first == again and len(quick.runs) == 1
    assert again[0]["left_out"]["regions"][0].startswith("region 'bad'")


def test_a_text_command_says_it_where_the_person_typed(make_quick_client):
    client = make_quick_client()
    marked = task(drafts=[draft(box("a"), bad_box(x=150))])
    regions = result_of(client, call(marked, text("track")))
    assert [region["id"] for region in regions] == ["a", "text"]
    assert regions[1]["value"]["text"] == [
        "1 region is left out: region 'bad': the box at frame 1 must have an area inside the picture"
    ]


def test_a_region_that_was_tracked_before_comes_back_as_it_came(make_quick_client):
    client = make_quick_client()
    tracked = result_of(client, call(task(), box("a"), box("b", label="Dog")))
    broken = dict(tracked[1], value=dict(tracked[1]["value"], sequence=[keyframe(x=150)]))
    regions = result_of(client, call(task(), box("a", keyframe(x=30)), broken))
    assert [region["id"] for region in regions] == ["a", "b"] and regions[1] == broken


def test_a_batch_and_a_webhook_track_the_rest(make_quick_client, quick, studio):
    client = make_quick_client()
    annotation = {"id": 1, "result": [bad_box(x=150), box("a")], "updated_at": "2026-11-22"}
    (answer,) = predict(client, batch(task(1, annotations=[annotation])))
    assert [region["id"] for region in answer["result"]] == ["a"] and "left_out" not in answer
    (job,) = wait_for_jobs(client)
    assert job.left_out["counts"] == {f"regions ({COUNTS})": 1}
    event = saved(box("a", keyframe(x=33)), bad_box(x=150), task_id=2)
    job_id = client.post("/webhook", json=event).json["job"]
    wait_until(lambda: service_of(client).store.post_state(job_id) is PostState.POSTED)
    (posted,) = studio.predictions
    assert [region["id"] for region in posted["result"]] == ["a"]
    assert service_of(client).store.get(job_id).left_out["counts"] == {f"regions ({COUNTS})": 1}
    assert {job["left_out"] is None for job in client.get("/api/jobs").json["jobs"]} == {False}


def test_what_is_left_out_survives_a_restart(make_quick_client, quick):
    client = make_quick_client()
    (answer,) = predict(client, call(task(), box(), bad_box(x=150)))
    wait_for_jobs(client)
    service_of(client).stop()
    client = make_quick_client()
    assert [job.left_out for job in jobs_of(client)] == [answer["left_out"]]
    assert predict(client, call(task(), box(), bad_box(x=150))) == [answer]
    assert len(quick.runs) == 1
