"""What the service answered, exported from Label Studio and converted without the video."""

import json

import pytest

from backend.cli import main
from converters.formats import open_source
from converters.label_studio.export import load_export
from converters.tracks_json import load_tracks
from tests.backend.calls import (
    VIDEO,
    VIDEO_CONFIG,
    box,
    call,
    jobs_of,
    keyframe,
    result_of,
    task,
    wait_for_jobs,
)
from tests.backend.conftest import FRAME_COUNT

OTHER_RATE = VIDEO_CONFIG.replace(' framerate="25"', "")
"""The editor then counts 24 frames a second; the video has 25."""


@pytest.fixture
def client(make_quick_client):
    return make_quick_client()


def truth_of(client, tmp_path):
    """Object -> frame index -> mask, as the job's result is on the video itself."""
    (job,) = wait_for_jobs(client)
    path = tmp_path / "truth.json"
    path.write_bytes(client.get(f"/api/jobs/{job.id}/result?format=tracks").data)
    return masks_of(load_tracks(path))


def masks_of(videos):
    (video,) = videos
    assert video.info.frame_count == FRAME_COUNT and video.info.fps == 25.0
    return {str(track.object_id): dict(track.masks) for track in video.tracks}


@pytest.mark.parametrize("kind", ["predictions", "annotations"])
def test_an_answer_on_a_video_of_another_rate_is_exported_without_the_video(
    client, tmp_path, kind
):
    asked = call(task(), box("a", keyframe(3)), config=OTHER_RATE)
    regions = result_of(client, asked)
    truth = truth_of(client, tmp_path)
    assert len(truth["a"]) > 4
    entry = {"id": 1, "result": regions}
    exported = {"id": 1, "data": {"video": VIDEO}, "annotations": [], kind: [entry]}
    export, config, coco = (tmp_path / n for n in ("export.json", "config.xml", "coco.json"))
    export.write_text(json.dumps([exported]))
    config.write_text(OTHER_RATE)
    assert masks_of(load_export(export, label_config=OTHER_RATE, sources=[kind])) == truth
    command = ["convert", str(export), "--label-config", str(config), "--results", kind]
    assert main([*command, "--to", "coco", "--out", str(coco), "--strict"]) == 0
    (video,) = open_source(coco)
    (track,) = video.tracks
    assert track.masks == truth["a"]


def test_what_notes_the_video_asks_for_nothing_again(client):
    asked = call(task(), box("a", keyframe(3)), config=OTHER_RATE)
    regions = result_of(client, asked)
    assert regions[0]["meta"]["sam2"]["video"]["frames"] == FRAME_COUNT
    assert result_of(client, call(task(), *regions, config=OTHER_RATE)) == regions
    assert len(jobs_of(client)) == 1
