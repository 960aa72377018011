"""What a person has got in full is not posted as a prediction as well."""

import threading

from backend.jobs.types import JobState
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
