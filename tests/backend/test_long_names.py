"""Names of files that no file can have: over 255 bytes, or paths of over 4,096."""

from __future__ import annotations

import pytest

from backend.data_set_media import locate
from backend.errors import MediaNotFound, MediaRefused
from backend.link_keys import KeyPurpose, make_key
from backend.media import MediaStore, file_within
from converters.davis import save_davis
from converters.formats import open_source
from converters.frames import missing_images
from converters.sav import save_sav
from sam2_model.video import open_frame_source
from tests.backend.calls import VIDEO_CONFIG, box, service_of, wait_for_jobs
from tests.converters.cases import annotated_video

LONG = [f"{'a' * 300}.mp4", f"{'ü' * 150}.mp4", f"{'a' * 300}/b.mp4", f"{'a/' * 3000}b.mp4"]


@pytest.mark.parametrize("name", LONG)
def test_a_name_that_no_file_can_have_is_not_found(tmp_path, settings, name):
    with pytest.raises(MediaNotFound, match="no such file"):
        file_within(tmp_path / name, (tmp_path,), "SAM2_MEDIA_ROOTS")
    with pytest.raises(MediaRefused):  # whether it is there is not told
        file_within(tmp_path.parent / name, (tmp_path,), "SAM2_MEDIA_ROOTS")
    with pytest.raises(MediaNotFound):
        MediaStore(settings).video_file(f"/data/local-files/?d={name}")


@pytest.mark.parametrize("name", LONG)
def test_the_service_answers_that_it_is_not_there(make_client, media_root, name):
    client = make_client(media_roots=(media_root,))
    for place in (f"{media_root}/{name}", f"/data/local-files/?d={name}"):
        task = {"id": 1, "project": 1, "data": {"video": place}}
        answers = [
            client.post("/api/sessions", json={"video": place}),
            client.post(
                "/api/sessions", json={"data": {"video": place}, "label_config": VIDEO_CONFIG}
            ),
            client.post(
                "/predict",
                json={
                    "tasks": [task], "label_config": VIDEO_CONFIG,
                    "params": {"context": {"result": [box()]}},
                },
            ),
        ]
        assert [answer.status_code for answer in answers] == [404, 404, 404], answers[0].json
        order = {"task": task, "label_config": VIDEO_CONFIG, "results": [box()]}
        assert client.post("/api/jobs", json=order).status_code == 202
    assert all(
        job.state == "failed" and "no such file" in job.error for job in wait_for_jobs(client)
    )


@pytest.mark.parametrize(
    "place", ["/panel/{}.js", "/panel/{}", "/api/jobs/{}", "/api/sessions/{}", "/api/jobs/{}/result"]
)
def test_an_address_may_be_long_too(make_client, place):
    assert make_client().get(place.format("a" * 300)).status_code == 404


def test_a_preview_of_one_is_no_error(make_client, media_root):
    client = make_client(media_roots=(media_root,))
    key = make_key(service_of(client).settings, 1, KeyPurpose.PREVIEW)
    for query in ({"src": f"{media_root}/{LONG[0]}"}, {"src": "x", "version": "a" * 300}):
        assert client.get("/preview.mp4", query_string={"key": key, **query}).status_code < 500


def test_data_sets_may_name_one(tmp_path):
    for name in ("a" * 300, "a" * 300 + "/b", "x/" + "b" * 300):
        with pytest.raises(FileNotFoundError, match="media root"):
            locate(tmp_path, annotated_video(name))
    assert missing_images(tmp_path, ["a" * 300 + ".jpg"]) == ["a" * 300 + ".jpg"]
    for read in (open_source, open_frame_source):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / ("a" * 300))


@pytest.mark.parametrize("save", [save_davis, save_sav])
def test_a_folder_that_cannot_be_called_so_is_said(tmp_path, save):
    with pytest.raises(ValueError, match="has 300 bytes, may have 255"):
        save(tmp_path / "out", [annotated_video("a" * 300)])
