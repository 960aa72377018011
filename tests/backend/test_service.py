"""People, batches and background jobs at the same time, around a quick model."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.jobs.types import JobState, PostState
from backend.scheduler import Priority
from tests.backend.calls import (
    FRAMES,
    FRAMES_CONFIG,
    VIDEO,
    batch,
    box,
    call,
    jobs_of,
    keyframe,
    predict,
    rectangle,
    result_of,
    saved,
    service_of,
    task,
    wait_for_jobs,
    wait_until,
)
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_site import status
from tests.backend.quick_model import SECONDS, Hold

PARTIAL_SECONDS = 4
"""Enough for the frames before a hold."""


def annotated(task_id, *results):
    annotation = {"id": task_id, "result": list(results), "updated_at": "2026-11-22T13:00:00Z"}
    return task(task_id, annotations=[annotation])


def frames_task(task_id=1):
    return task(task_id, data={"frames": FRAMES})


def shown_frames(region):
    """The LS frames on which the editor shows a box."""
    sequence = region["value"]["sequence"]
    shown = set()
    for this, following in zip(sequence, [*sequence[1:], None]):
        shown.add(this["frame"])
        if this["enabled"]:
            end = FRAME_COUNT + 1 if following is None else following["frame"]
            shown.update(range(this["frame"], end))
    return shown


def asked_while_held(client, hold, body, *, gives_up=False):
    """The regions for a request that comes while a job is held up at a frame."""
    scheduler = service_of(client).model.scheduler
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(result_of, client.application.test_client(), body)
        if gives_up:
            wait_until(lambda: JobState.CANCELLED in {job.state for job in jobs_of(client)})
        wait_until(lambda: scheduler.waiting_count == 1)
        hold.release()
        return asking.result()


# --- a person and a long track -----------------------------------------------


def test_a_partial_answer_is_closed_and_the_whole_is_posted_once(make_quick_client, quick, studio):
    hold = quick.before_frame = Hold(3)
    client = make_quick_client(answer_seconds=PARTIAL_SECONDS)
    (partial,) = result_of(client, call(task(), box()))
    assert partial["value"]["sequence"][-1]["enabled"] is False
    assert shown_frames(partial) == {1, 2, 3}
    hold.release()
    assert studio.arrived.acquire(timeout=SECONDS)
    (job,) = wait_for_jobs(client)
    wait_until(lambda: service_of(client).store.post_of_job(job.id).state is PostState.POSTED)
    (posted,) = studio.predictions
    assert posted["task"] == 1 and posted["model_version"] == "sam2:demo"
    (region,) = posted["result"]
    assert shown_frames(region) == set(range(1, FRAME_COUNT + 1))
    assert 0 < posted["score"] <= 1


@pytest.mark.parametrize("is_running", [True, False])
def test_asking_again_with_the_partial_answer_needs_no_new_tracking(
    make_quick_client, quick, is_running
):
    hold = quick.before_frame = Hold(3)
    client = make_quick_client(answer_seconds=PARTIAL_SECONDS)
    (partial,) = result_of(client, call(task(), box()))
    if is_running:
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(result_of, client.application.test_client(),
                                call(task(), partial))
            wait_until(lambda: any(job.is_awaited for job in jobs_of(client)))
            hold.release()
            (whole,) = again.result()
    else:
        hold.release()
        wait_for_jobs(client)
        (whole,) = result_of(client, call(task(), partial))
    assert shown_frames(whole) == set(range(1, FRAME_COUNT + 1))
    assert len(quick.runs) == 1 and len(wait_for_jobs(client)) == 1


def test_the_stored_result_is_served_without_a_model(make_quick_client, quick):
    first = result_of(make_quick_client(), call(task(), box()))
    loading = threading.Event()
    client = make_quick_client(load=lambda _: loading.wait(SECONDS))
    assert result_of(client, call(task(), box())) == first
    loading.set()


def test_a_complete_answer_is_not_posted_as_well(make_quick_client, studio):
    client = make_quick_client()
    assert result_of(client, call(task(), box()))
    (job,) = wait_for_jobs(client)
    assert job.state is JobState.DONE
    assert service_of(client).store.post_of_job(job.id) is None and not studio.predictions


def test_a_new_prompt_gives_up_what_was_tracked_for_the_old_one(make_quick_client, quick):
    hold = quick.before_frame = Hold(3)
    client = make_quick_client(answer_seconds=PARTIAL_SECONDS)
    result_of(client, call(task(), box("a", keyframe(1))))
    moved = box("a", keyframe(1, x=40))
    (region,) = asked_while_held(client, hold, call(task(), moved), gives_up=True)
    assert region["value"]["sequence"][0]["x"] == 40
    states = {job.state for job in wait_for_jobs(client)}
    assert states == {JobState.DONE, JobState.CANCELLED}


def test_a_new_label_on_the_same_box_counts_as_a_change(make_quick_client, quick):
    hold = quick.before_frame = Hold(3)
    client = make_quick_client(answer_seconds=PARTIAL_SECONDS)
    result_of(client, call(task(), box()))
    (region,) = asked_while_held(client, hold, call(task(), box(label="Dog")), gives_up=True)
    assert region["value"]["labels"] == ["Dog"]
    assert JobState.CANCELLED in {job.state for job in wait_for_jobs(client)}


def test_jobs_on_other_regions_and_other_tasks_go_on(make_quick_client, quick):
    hold = quick.before_frame = Hold(3, "a")
    client = make_quick_client(answer_seconds=PARTIAL_SECONDS)
    result_of(client, call(task(1), box("a")))
    other = task(2)
    assert asked_while_held(client, hold, call(task(1), box("b", label="Dog")))
    assert result_of(client, call(other, box("c")))
    assert {job.state for job in wait_for_jobs(client)} == {JobState.DONE}


def test_equal_requests_at_one_time_are_one_job(make_quick_client, quick):
    hold = quick.before_frame = Hold(2)
    client = make_quick_client()
    with ThreadPoolExecutor(3) as pool:
        asking = [
            pool.submit(result_of, client.application.test_client(), call(task(), box()))
            for _ in range(3)
        ]
        hold.wait()
        hold.release()
        answers = [item.result() for item in asking]
    assert answers[0] == answers[1] == answers[2] and answers[0]
    assert len(quick.runs) == 1


def test_two_tasks_of_one_video_with_other_frame_rates_are_not_mixed_up(make_quick_client):
    config = call(task())["label_config"].replace('framerate="25"', 'framerate="$fps"')
    client = make_quick_client()
    answers = [
        result_of(
            client,
            call(task(n, data={"video": VIDEO, "fps": fps}), box("a", keyframe(3)), config=config),
        )
        for n, fps in ((1, "25"), (2, "12.5"))
    ]
    assert answers[0][0]["value"]["sequence"] != answers[1][0]["value"]["sequence"]


def test_a_malformed_id_is_a_bad_request(make_quick_client):
    answer = make_quick_client().post("/predict", json=call(task(10**30), box()))
    assert answer.status_code == 400 and "id 1000" in answer.json["detail"]


# --- places ------------------------------------------------------------------


def test_jobs_that_nobody_waits_for_leave_peoples_places_free(make_quick_client, quick):
    gate = threading.Event()
    quick.before_open = lambda files: isinstance(files, list) or gate.wait(SECONDS)
    client = make_quick_client(answer_seconds=1, max_waiting_requests=2)
    for number in range(4):
        answer = client.post("/predict", json=call(task(number), box(f"a{number}")))
        assert answer.status_code == 503
    assert {job.state for job in jobs_of(client)} == {JobState.RUNNING}
    assert result_of(client, call(frames_task(9), rectangle(), config=FRAMES_CONFIG))
    gate.set()
    assert {job.state for job in wait_for_jobs(client)} == {JobState.DONE}


def test_no_more_jobs_run_than_there_are_places_and_none_is_lost(make_quick_client, quick, studio):
    gate = threading.Event()
    quick.before_frame = lambda ids, index: gate.wait(SECONDS)
    client = make_quick_client(answer_seconds=0.3, max_waiting_requests=2)
    for number in range(10):
        client.post("/predict", json=call(task(number), box(f"a{number}")))
        running = [job for job in jobs_of(client) if job.state is JobState.RUNNING]
        assert len(running) <= 2 + 2 + 2
    gate.set()
    assert {job.state for job in wait_for_jobs(client)} == {JobState.DONE}
    for _ in range(10):
        assert studio.arrived.acquire(timeout=SECONDS)
    assert {prediction["task"] for prediction in studio.predictions} == set(range(10))


def test_a_person_goes_between_the_frames_of_a_batch(make_quick_client, quick):
    hold = quick.before_frame = Hold(2, "slow")
    client = make_quick_client()
    scheduler = service_of(client).model.scheduler
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(predict, client.application.test_client(),
                           batch(annotated(1, box("slow"))))
        hold.wait()
        person = pool.submit(result_of, client.application.test_client(),
                             call(task(2), box("person")))
        wait_until(lambda: scheduler.waiting_count == 1)
        hold.release()
        assert person.result() and slow.result()[0]["result"]
    order = [(ids[0], index) for ids, index in quick.frames]
    at = order.index(("slow", 2))
    assert order[at + 1] == ("person", 0)
    assert sorted(order) == sorted([(o, i) for o in ("slow", "person") for i in range(FRAME_COUNT)])


def test_a_person_goes_between_the_prompts_of_one_job(make_quick_client, quick):
    hold = quick.before_prompt = Hold(1, "slow")
    client = make_quick_client()
    scheduler = service_of(client).model.scheduler
    drawn = box("slow", keyframe(1), keyframe(2), keyframe(3))
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(predict, client.application.test_client(), batch(annotated(1, drawn)))
        hold.wait()
        person = pool.submit(result_of, client.application.test_client(),
                             call(task(2), box("person")))
        wait_until(lambda: scheduler.waiting_count == 1)
        hold.release()
        assert person.result() and slow.result()[0]["result"]
    assert quick.prompted == [("slow", 0), ("slow", 1), ("person", 0), ("slow", 2)]
    assert quick.frames[0] == (("person",), 0)  # before the slow one's last prompt


def test_a_job_is_hurried_while_a_person_waits_for_it_too(make_quick_client, quick):
    hold = quick.before_frame = Hold(2)
    client = make_quick_client()
    body = saved(box())
    job_id = client.post("/webhook", json=body).json["job"]
    hold.wait()
    handle = service_of(client).jobs.handle(job_id)
    assert handle.priority is Priority.WEBHOOK
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(result_of, client.application.test_client(), call(task(), box()))
        wait_until(lambda: handle.is_awaited)
        assert handle.priority is Priority.INTERACTIVE
        hold.release()
        assert asking.result()
    assert len(quick.runs) == 1


def test_a_job_that_one_waited_for_in_vain_is_hurried_for_the_next(make_quick_client, quick):
    gate = threading.Event()
    quick.before_open = lambda files: gate.wait(SECONDS)
    client = make_quick_client(answer_seconds=2)
    assert client.post("/predict", json=call(task(), box())).status_code == 503
    (job,) = jobs_of(client)
    handle = service_of(client).jobs.handle(job.id)
    assert handle.priority is Priority.WEBHOOK and not handle.is_awaited
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.application.test_client().post, "/predict",
                             json=call(task(), box()))
        wait_until(lambda: handle.is_awaited or asking.done())
        assert handle.priority is Priority.INTERACTIVE
        gate.set()
        asking.result()
    assert [job.state for job in wait_for_jobs(client)] == [JobState.DONE]


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("a bad box")])
def test_all_who_wait_for_a_job_that_fails_are_told_and_its_place_is_free(
    make_quick_client, quick, error
):
    hold = Hold(2)

    def broken(object_ids, frame_index):
        hold(object_ids, frame_index)
        if frame_index == 2:
            raise error

    quick.before_frame = broken
    client = make_quick_client()
    with ThreadPoolExecutor(2) as pool:
        asking = [
            pool.submit(client.application.test_client().post, "/predict", json=call(task(), box()))
            for _ in range(2)
        ]
        hold.wait()
        hold.release()
        statuses = {item.result().status_code for item in asking}
    assert statuses == {500 if isinstance(error, KeyError) else 400}
    quick.before_frame = lambda *_: None
    assert result_of(client, call(task(), box()))


# --- batches -----------------------------------------------------------------


def test_250_tasks_of_which_5_are_unique_are_tracked_5_times(make_quick_client, quick, studio):
    boxes = [box("a", keyframe(1, x=10 + 5 * number)) for number in range(5)]
    body = batch(*(annotated(number, boxes[number % 5]) for number in range(250)))
    client = make_quick_client(answer_seconds=1)
    first = predict(client, body)
    assert len(first) == 250
    assert {job.state for job in wait_for_jobs(client)} == {JobState.DONE}
    wait_until(lambda: service_of(client).store.post_counts()[PostState.WAITING] == 0)
    second = predict(client, body)
    assert all(item["result"] for item in second)
    for number, item in enumerate(second):
        assert item["result"][0]["value"]["sequence"][0]["x"] == 10 + 5 * (number % 5)
    assert len(quick.runs) == 5
    # Each is in Label Studio or was in the first answer, not both.
    posted = {prediction["task"] for prediction in studio.predictions}
    answered = {number for number, item in enumerate(first) if item}
    assert posted.isdisjoint(answered) and posted | answered == set(range(250))
    assert len(studio.predictions) == len(posted)


def test_a_batch_leaves_out_what_is_being_posted(make_quick_client, studio):
    gate = threading.Event()
    studio.failures = [lambda asked, body: None if gate.wait(SECONDS) else status(500)]
    client = make_quick_client()
    client.post("/webhook", json=saved(box()))
    wait_until(lambda: studio.attempts == 1)
    asked = batch(annotated(1, box()), annotated(2, box()))
    first, other = predict(client, asked)
    assert first == [] and other["result"]  # the same boxes in another task: none of it
    gate.set()
    assert studio.arrived.acquire(timeout=SECONDS)
    assert [prediction["task"] for prediction in studio.predictions] == [1]


def test_a_batch_takes_what_could_not_be_posted(make_quick_client, studio):
    studio.failures = [status(500)] * 9
    client = make_quick_client()
    job_id = client.post("/webhook", json=saved(box())).json["job"]
    store = service_of(client).store
    wait_until(lambda: (post := store.post_of_job(job_id)) is not None and post.error)
    (item,) = predict(client, batch(annotated(1, box())))
    assert item["result"]
    assert store.next_post_at() - time.time() > 100  # then Label Studio is asked for it


def test_a_batch_without_a_model_is_answered_at_once_and_queues_nothing(make_quick_client):
    client = make_quick_client(load=lambda _: 1 / 0)
    wait_until(lambda: client.get("/health").json["model"] == "failed")
    assert predict(client, batch(annotated(1, box()))) == [[]]
    assert jobs_of(client) == []


def test_background_jobs_wait_for_a_model_that_can_be_loaded(make_quick_client, studio):
    broken = make_quick_client(load=lambda _: 1 / 0)
    wait_until(lambda: broken.get("/health").json["model"] == "failed")
    broken.post("/webhook", json=saved(box()))
    assert [job.state for job in jobs_of(broken)] == [JobState.QUEUED]
    service_of(broken).stop()
    mended = make_quick_client()
    assert studio.arrived.acquire(timeout=SECONDS)
    assert [job.state for job in wait_for_jobs(mended)] == [JobState.DONE]


# --- frames ------------------------------------------------------------------


def test_the_nearest_masks_are_answered_at_once_and_the_others_posted(
    make_quick_client, quick, studio
):
    hold = quick.before_frame = Hold(4)
    client = make_quick_client(max_brush_regions=2, max_prediction_regions=5)
    regions = result_of(client, call(frames_task(), rectangle(), config=FRAMES_CONFIG))
    assert [region["item_index"] for region in regions] == [0, 1]
    hold.release()
    assert studio.arrived.acquire(timeout=SECONDS)
    (posted,) = studio.predictions
    assert [region["item_index"] for region in posted["result"]] == [0, 1, 2, 3, 4]
    assert {region["type"] for region in posted["result"]} == {"brushlabels"}


def test_what_one_answer_cannot_hold_is_posted_whichever_way_is_tracked(make_quick_client, studio):
    client = make_quick_client(max_brush_regions=2, direction="both")
    body = call(frames_task(), rectangle(item_index=3), config=FRAMES_CONFIG)
    assert [region["item_index"] for region in result_of(client, body)] == [2, 3]
    assert studio.arrived.acquire(timeout=SECONDS)
    assert len(studio.predictions[0]["result"]) == 6


def test_a_batch_gets_as_many_regions_as_a_prediction_may_have(make_quick_client):
    client = make_quick_client(max_brush_regions=2)
    annotation = {"id": 1, "result": [rectangle()], "updated_at": "2026"}
    the_task = frames_task() | {"annotations": [annotation]}
    for _ in range(2):  # tracked, then stored
        (item,) = predict(client, batch(the_task, config=FRAMES_CONFIG))
        assert len(item["result"]) == 6
