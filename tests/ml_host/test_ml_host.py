"""label-studio-ml's own server with our class, asked as Label Studio asks it."""

import json
from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")
label_studio_ml_api = pytest.importorskip("label_studio_ml.api")

DATA = Path(__file__).parent.parent / "backend" / "data"
FRAME_COUNT = 8


def payload(name):
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


def write_disc(path):
    """A bright disc that moves over a dark ground: 320 x 240, 25 frames a second."""
    rows, columns = np.mgrid[:240, :320]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.bit_rate = 2_000_000
        for index in range(FRAME_COUNT):
            picture = np.full((240, 320, 3), 20, np.uint8)
            picture[(columns - 110 - 8 * index) ** 2 + (rows - 90 - 4 * index) ** 2 < 40**2] = 200
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("host")
    write_disc(folder / "disc.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAM2_CACHE", str(folder / "cache"))
        patch.setenv("SAM2_MEDIA_ROOTS", str(folder))
        patch.setenv("SAM2_DEVICE", "cpu")
        for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_SETTINGS"):
            patch.delenv(name, raising=False)
        from backend import label_studio_ml_host

        app = label_studio_ml_api.init_app(
            label_studio_ml_host.SAM2Video, model_dir=str(folder)
        )
        with app.test_client() as client:
            client.video = str(folder / "disc.mp4")
            yield client
        label_studio_ml_host.shared_service().stop()


def on_video(client, name):
    body = payload(name)
    for task in body["tasks"]:
        task["data"]["video"] = client.video
    return body


def test_the_host_connects_and_answers_a_drawn_box_with_a_track(client):
    assert client.get("/health").status_code == 200
    call = on_video(client, "predict_interactive_videorectangle")
    setup = client.post("/setup", json={"project": "1.1", "schema": call["label_config"]})
    assert setup.status_code == 200, setup.get_data(as_text=True)
    answer = client.post("/predict", json=call)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    (prediction,) = answer.get_json()["results"]
    (region,) = prediction["result"]
    assert region["id"] == call["params"]["context"]["result"][0]["id"]
    assert len(region["value"]["sequence"]) > 1
    assert prediction["model_version"] == "sam2:demo"


def test_a_batch_and_a_ghost_call_are_answered_by_the_protocol(client):
    batch = on_video(client, "predict_batch")
    box = batch["tasks"][0]["annotations"][0]["result"][0]["value"]["sequence"][0]
    box.update(x=22, y=22, width=26, height=34)
    results = client.post("/predict", json=batch).get_json()["results"]
    assert len(results) == len(batch["tasks"])
    assert results[0]["result"] and results[1:] == [[]] * (len(results) - 1)
    ghost = payload("predict_interactive_ghost_after_submit_empty_context")
    (nothing,) = client.post("/predict", json=ghost).get_json()["results"]
    assert nothing["result"] == []


def test_the_2x_contract_of_predict_and_fit(client):
    from backend.label_studio_ml_host import SAM2Video, shared_service

    call = on_video(client, "predict_interactive_videorectangle")
    model = SAM2Video(label_config=call["label_config"])
    (prediction,) = model.predict(call["tasks"], context=call["params"]["context"])
    assert prediction["result"]
    assert model.predict(call["tasks"], context={}) == [[]]
    assert model.fit("PROJECT_UPDATED", {"project": {"id": 1}}) == {"status": "ignored"}
    training = model.fit("START_TRAINING", {"project": {"id": 1}})
    assert shared_service().store.get(training["job"]).kind == "finetune"
    shared_service().jobs.cancel(training["job"])
    saved = payload("webhook_annotation_created")
    saved["task"]["data"]["video"] = client.video
    answer = model.fit(saved.pop("action"), saved)
    assert answer["status"] == "queued"
    jobs = shared_service().jobs
    if (handle := jobs.handle(answer["job"])) is not None:
        handle.wait(120)
    assert jobs.store.get(answer["job"]).state == "done"
