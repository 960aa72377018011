"""What a person has got in full is not posted as a prediction as well."""

import contextlib
import threading

from backend import propagation
from backend.jobs.types import JobState
from backend.media import MediaStore
from backend.model import ModelService
from backend.requests import TaskRequest
from backend.scheduler import Priority
from tests.backend.calls import VIDEO_CONFIG, box, task, wait_until
from tests.backend.conftest import payload

SECONDS = 60


def test_an_answer_that_is_complete_while_it_is_being_stored_is_not_posted(client):
    service = client.application.extensions["sam2"]
    store, is_answered = service.store, threading.Event()
    save_result = store.save_result

    def slow(*arguments, **options):
        (job,) = store.list(states=(JobState.RUNNING,))
        service.jobs.handle(job.id).report(1, 1)  # wakes the one who waits
        assert is_answered.wait(SECONDS)
        save_result(*arguments, **options)

    store.save_result = slow
    answer = client.post("/predict", json=payload("predict_interactive_videorectangle"))
    (job,) = store.list(states=(JobState.RUNNING,))
    handle = service.jobs.handle(job.id)
    is_answered.set()
    handle.wait(SECONDS)
    assert answer.json["results"][0]["result"]
    (job,) = store.list()
    assert (job.state, job.posts_prediction) == (JobState.DONE, False)


def test_a_batch_leaves_to_the_webhook_what_that_posts_itself(make_client, model):
    is_asked = threading.Event()

    def track(*arguments, **options):
        assert is_asked.wait(SECONDS)
        yield from model.track(*arguments, **options)

    client = make_client(track=track)
    service = client.application.extensions["sam2"]
    event = payload("webhook_annotation_created")
    event["task"]["data"] = {"video": "/data/local-files/?d=n25.mp4"}
    assert client.post("/webhook", json=event).json["status"] == "queued"
    (job,) = service.store.list()
    handle = service.jobs.handle(job.id)

    task = {**event["task"], "project": event["project"]["id"], "annotations": [event["annotation"]]}
    batch = {"tasks": [task], "label_config": event["project"]["label_config"], "params": {}}
    begin = service.answer_many

    def answer_many(*arguments):
        is_asked.set()  # only now can the job end
        return begin(*arguments)

    service.answer_many = answer_many
    answer = client.post("/predict", json=batch)
    handle.wait(SECONDS)
    assert [j.id for j in service.store.list()] == [job.id]
    assert answer.json["results"] == [[]]


def test_the_regions_of_a_run_are_built_once_and_kept_in_few_transactions(client, monkeypatch):
    service = client.application.extensions["sam2"]
    built, kept = [], []
    build, transaction = propagation.track_to_video_region, service.store.transaction

    def counted():
        if threading.current_thread().name not in ("housekeeping", "outbox"):
            kept.append(threading.current_thread().name)
        return transaction()

    monkeypatch.setattr(
        propagation, "track_to_video_region",
        lambda *arguments, **options: built.append(1) or build(*arguments, **options),
    )
    # How often progress is noted is a matter of time.
    service.store.set_progress = lambda *arguments: None
    service.model.wait()
    service.store.transaction = counted
    answer = client.post("/predict", json=payload("predict_interactive_videorectangle"))
    assert answer.json["results"][0]["result"]
    wait_until(lambda: not any(t.name.startswith("job-") for t in threading.enumerate()))
    # Jobs on the task, a stored answer, the new job, its beginning, an equal result;
    # that nobody waits any more, the result, the end, and twice what may begin next.
    assert len(built) == 1 and len(kept) <= 10, kept


def test_who_changes_an_answer_changes_it_for_nobody_else(model, media_root, settings):
    asked = TaskRequest.of(task(), [box()], VIDEO_CONFIG)
    work = propagation.TaskPropagation(
        asked, media=MediaStore(settings), settings=settings
    )
    with contextlib.closing(ModelService(settings, lambda _: model)) as service:
        service.start()
        work.run(service, priority=lambda: Priority.BATCH)
    (region,) = work.answer().regions
    region.pop("value")
    assert work.answer().regions[0]["value"] and work.answer(is_limited=False).regions[0]["value"]
