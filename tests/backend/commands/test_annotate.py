"""`annotate`: what is stored for which task, and that a run can be stopped and repeated."""

import json

import pytest
from filelock import FileLock

from backend.settings import Settings
from tests.backend.conftest import FRAME_COUNT
from tests.backend.label_studio_server import NOW, Answer, problem

VERSION = "sam2:demo:demo.safetensors"


def keyframe(frame, x, y):
    return {"frame": frame, "x": x, "y": y, "width": 25, "height": 33.3, "rotation": 0,
            "enabled": True, "time": frame / 25}


def box(region_id="a", label="Car", **position):
    keyframes = [keyframe(**{"frame": 1, "x": 21.9, "y": 20.8, **position})]
    value = {"labels": [label], "framesCount": 8, "duration": 0.32, "sequence": keyframes}
    return {"id": region_id, "from_name": "box", "to_name": "video", "type": "videorectangle",
            "origin": "manual", "value": value}


def point(region_id="k", item_index=0, x=34.4, y=37.5):
    return {"id": region_id, "from_name": "point", "to_name": "frame", "type": "keypointlabels",
            "origin": "manual", "is_positive": True, "item_index": item_index,
            "original_width": 320, "original_height": 240, "image_rotation": 0,
            "value": {"x": x, "y": y, "width": 0.4, "keypointlabels": ["Car"]}}


def work(*regions, **more):
    return {"id": 5000, "result": list(regions), "updated_at": NOW, **more}


@pytest.fixture(autouse=True)
def version():
    assert Settings.from_environment().model_version == VERSION


@pytest.fixture
def video(studio, media_root):
    """What task data calls the uploaded video."""
    content = (media_root / "n25.mp4").read_bytes()
    path = "/data/upload/1/ef9e5fd2-n25.mp4"
    studio.special["GET", path] = Answer(content, headers={"Content-Type": "video/mp4"})
    return path


def predictions(studio, task):
    return studio.tasks[task]["predictions"]


def test_only_tasks_with_prompts_get_a_prediction(run, studio, project, video):
    number = project(model_version=VERSION)
    data = {"video": video, "fps": 25.0}
    marked = studio.add_task(number, data, annotations=[work(box(), box("b", "Dog", x=60))])
    empty = studio.add_task(number, data)
    skipped = studio.add_task(number, data, annotations=[work(box(), was_cancelled=True)])
    status, out, _ = run("annotate", "--project", number)
    assert status == 0
    (stored,) = predictions(studio, marked)
    assert stored["model_version"] == VERSION and 0 <= stored["score"] <= 1
    assert [region["id"] for region in stored["result"]] == ["a", "b"]
    assert len(stored["result"][0]["value"]["sequence"]) >= 2
    assert predictions(studio, empty) == predictions(studio, skipped) == []
    assert "1 task: prediction stored" in out and "2 tasks: has no prompt" in out


def test_the_draft_that_is_newer_counts(run, studio, project, video):
    number = project(model_version=VERSION)
    task = studio.add_task(
        number, {"video": video, "fps": 25.0}, annotations=[work(box("old"))],
        drafts=[{**work(box("new")), "updated_at": "2030-01-01T00:00:00.5Z"}],
    )
    assert run("annotate", "--project", number)[0] == 0
    assert [region["id"] for region in predictions(studio, task)[0]["result"]] == ["new"]


def test_clicks_on_frames_become_masks(run, studio, project, media_root):
    frames = []
    for index in range(3):
        path = f"/data/upload/1/f{index}.jpg"
        content = (media_root / "sub" / f"f{index}.jpg").read_bytes()
        studio.special["GET", path] = Answer(content, headers={"Content-Type": "image/jpeg"})
        frames.append(path)
    number = project("frames", model_version=VERSION)
    task = studio.add_task(number, {"frames": frames}, annotations=[work(point())])
    assert run("annotate", "--project", number)[0] == 0
    result = predictions(studio, task)[0]["result"]
    assert [region["item_index"] for region in result] == [0, 1, 2]
    assert {region["type"] for region in result} == {"brushlabels"}


def test_a_second_run_does_nothing_and_again_replaces(run, studio, project, video):
    number = project(model_version=VERSION)
    task = studio.add_task(
        number, {"video": video, "fps": 25.0}, annotations=[work(box())],
        predictions=[{"id": 900, "model_version": "other", "result": []}],
    )
    assert run("annotate", "--project", number)[0] == 0
    first = predictions(studio, task)[-1]["id"]
    status, out, _ = run("annotate", "--project", number)
    assert status == 0 and "has a prediction of this model already" in out
    assert [item["id"] for item in predictions(studio, task)] == [900, first]
    assert run("annotate", "--project", number, "--again")[0] == 0
    ids = [item["id"] for item in predictions(studio, task)]
    assert len(ids) == 2 and ids[0] == 900 and ids[1] != first


def test_a_dry_run_stores_nothing_and_loads_no_model(run, studio, project, monkeypatch):
    monkeypatch.setenv("SAM2_CHECKPOINT", "/none.pt")
    number = project()
    studio.add_task(number, {"video": "/none.mp4"}, annotations=[work(box(), box("b", "Dog"))])
    status, out, _ = run("annotate", "--project", number, "--dry-run")
    assert status == 0 and "would be tracked (2 marked regions)" in out
    assert not studio.asked("POST") and not studio.asked("PATCH")


def test_a_task_that_fails_is_told_and_the_run_goes_on(run, studio, project, video):
    number = project(model_version=VERSION)
    studio.special["GET", "/data/upload/1/gone.mp4"] = problem(404, "Not found.")
    gone = studio.add_task(number, {"video": "/data/upload/1/gone.mp4"}, annotations=[work(box())])
    wrong = studio.add_task(number, {"video": video}, annotations=[work(box(label="Cat"))])
    odd = studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[{"id": 1, "result": [7]}])
    good = studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    status, out, err = run("annotate", "--project", number)
    assert status == 1 and "2 tasks: failed" in out and "1 task: prediction stored" in out
    assert f"task {gone}: failed" in err and "gone.mp4 answered 404" in err
    assert f"task {wrong}: failed" in err and "'Cat' is not in the label config" in err
    assert len(predictions(studio, good)) == 1 and predictions(studio, odd) == []


def test_a_busy_label_studio_is_asked_again(run, studio, project, video, monkeypatch):
    monkeypatch.setattr("backend.annotate._FIRST_WAIT_SECONDS", 0.0)
    number = project(model_version=VERSION)
    task = studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])

    def busy_once(call):
        del studio.special["POST", "/api/predictions/"]
        return problem(503, "Unknown error")

    studio.special["POST", "/api/predictions/"] = busy_once
    assert run("annotate", "--project", number)[0] == 0
    assert len(predictions(studio, task)) == 1
    assert len(studio.asked("POST", "/api/predictions/")) == 2


def test_a_refused_key_ends_the_run(run, studio, project, video):
    number = project()
    for _ in range(2):
        studio.add_task(number, {"video": video}, annotations=[work(box())])
    studio.special["GET", "/api/predictions/"] = problem(401, "Invalid token.")
    status, _, err = run("annotate", "--project", number)
    assert status == 2 and "make a new key" in err and len(studio.asked("GET", "predictions")) == 1


def test_a_project_without_a_model_shows_annotators_the_new_predictions(
    run, studio, project, video
):
    number = project()
    studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    status, out, _ = run("annotate", "--project", number)
    assert status == 0 and studio.projects[number]["model_version"] == VERSION
    assert "annotators now see" in out


def test_a_project_that_shows_other_predictions_is_left_so_and_said(run, studio, project, video):
    number = project(model_version="mine-v1")
    studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    status, out, _ = run("annotate", "--project", number)
    assert status == 0 and studio.projects[number]["model_version"] == "mine-v1"
    assert "annotators see the predictions of 'mine-v1'" in out


def test_no_task_is_opened(run, studio, project, video):
    number = project(model_version=VERSION)
    task = studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    run("annotate", "--project", number)
    assert f"/api/tasks/{task}/" not in [call.path for call in studio.calls]


# --- export of what was annotated -------------------------------------------------


@pytest.fixture
def annotated(run, studio, project, video):
    """A project whose one prediction was accepted as it is."""
    number = project(model_version=VERSION)
    task = studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    run("annotate", "--project", number)
    studio.tasks[task]["annotations"] = [work(*predictions(studio, task)[0]["result"])]
    return number


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("coco", "coco.json"),
        ("youtube-vis", "youtube_vis.json"),
        ("tracks", "tracks.json"),
        ("sav", "sav"),
        ("davis", "davis"),
        ("label-studio", "label_studio.json"),
    ],
)
def test_every_format_is_exported(run, annotated, tmp_path, form, name):
    status, out, _ = run("export", "--project", annotated, "--format", form, "--out", tmp_path)
    assert status == 0 and str(tmp_path / name) in out and (tmp_path / name).exists()
    assert (tmp_path / "label_studio.json").is_file()
    if form == "coco":
        assert len(json.loads((tmp_path / name).read_text())["annotations"]) == FRAME_COUNT


def test_the_media_come_with_it_when_asked_for(run, annotated, video, media_root, tmp_path):
    status, *_ = run(
        "export", "--project", annotated, "--format", "coco", "--out", tmp_path, "--with-media",
        "--images",
    )
    assert status == 0
    fetched = tmp_path / "media" / video.lstrip("/")
    assert fetched.read_bytes() == (media_root / "n25.mp4").read_bytes()
    assert len(list((tmp_path / "images").rglob("*.jpg"))) == FRAME_COUNT


def test_boxes_alone_need_the_video_and_that_is_said(run, studio, project, video, tmp_path):
    number = project()
    studio.add_task(number, {"video": video, "fps": 25.0}, annotations=[work(box())])
    arguments = ["export", "--project", number, "--format", "coco", "--out", tmp_path]
    status, _, err = run(*arguments)
    assert status == 2 and "--with-media" in err
    assert run(*arguments, "--with-media")[0] == 0


def test_predictions_are_exported_when_asked_for(run, studio, annotated, tmp_path):
    (task,) = studio.tasks.values()
    task["annotations"] = []
    arguments = ["export", "--project", annotated, "--format", "coco", "--out", tmp_path]
    assert run(*arguments)[0] == 2
    assert run(*arguments, "--results", "annotations,predictions")[0] == 0


def test_media_whose_path_leads_outside_stay_inside(run, studio, annotated, video, tmp_path):
    (task,) = studio.tasks.values()
    outside = "/data/upload/1/../../../../escaped.mp4"
    studio.special["GET", outside] = studio.special["GET", video]
    task["data"]["video"] = outside
    out = tmp_path / "out"
    run("export", "--project", annotated, "--format", "coco", "--out", out, "--with-media")
    assert list(tmp_path.rglob("escaped.mp4")) in (
        [], [out / "media" / "data" / "upload" / "1" / "escaped.mp4"]
    )


def test_a_bad_region_costs_that_region_and_is_said(run, studio, project, video):
    number = project()
    data = {"video": video, "fps": 25.0}
    mixed = studio.add_task(number, data, annotations=[work(box(), box("b", "Dog", x=160))])
    bad = studio.add_task(number, data, annotations=[work(box("b", "Dog", x=160))])
    status, out, err = run("annotate", "--project", number)
    (stored,) = predictions(studio, mixed)
    assert [region["id"] for region in stored["result"]] == ["a"]
    assert "1 region; 1 region is left out: region 'b': the box at frame 1" in out
    assert status == 1 and f"task {bad}: failed (region 'b': the box" in err
    assert not predictions(studio, bad)


def test_two_runs_on_a_project_do_not_track_it_both(run, studio, project, settings):
    first, other = project(), project()
    assert run("annotate", "--project", first)[0] == 0
    (lock,) = settings.data_folder.glob("annotate-*.lock")
    with FileLock(lock):
        status, _, err = run("annotate", "--project", first)
        assert run("annotate", "--project", other)[0] == 0
    assert status == 2 and "another run" in err
    assert run("annotate", "--project", first)[0] == 0


def test_what_another_stored_meanwhile_is_not_doubled(run, studio, project, video):
    """As a run on another machine does."""
    number = project()
    task = studio.add_task(
        number, {"video": video, "fps": 25.0}, annotations=[work(box())]
    )
    def store_another(call):
        other = {"id": 77, "task": task, "model_version": VERSION, "result": [], "score": 0.5}
        studio.tasks[task]["predictions"] = [other]
        return Answer(studio.tasks[task]["annotations"])

    # Asked between the two looks at its predictions.
    studio.special["GET", f"/api/tasks/{task}/annotations/"] = store_another
    status, out, _ = run("annotate", "--project", number)
    assert status == 0 and [item["id"] for item in predictions(studio, task)] == [77], out
