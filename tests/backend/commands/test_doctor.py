"""`doctor`: each trap is found, with its fix, and nothing is changed by looking."""

import re

import pytest

from backend.label_configs import label_config
from backend.link_keys import KeyPurpose, make_key
from tests.backend.label_studio_server import KEY, Answer, problem

BACKEND = "http://localhost:9090"
FIXED_RATE = (
    '<View><Video name="v" value="$video" framerate="30"/><VideoRectangle name="b" toName="v"/>'
    "</View>"
)
POINTS_ALONE = """<View><Image name="i" valueList="$frames"/>
<BrushLabels name="b" toName="i"><Label value="A"/></BrushLabels>
<KeyPointLabels name="k" toName="i"><Label value="A"/></KeyPointLabels></View>"""


@pytest.fixture
def healthy(studio, media_root):
    """A project that is connected and whose video is what the editor thinks."""
    number = studio.add_project(
        label_config("video", ["Car"]), title="good", evaluate_predictions_automatically=True
    )
    connected(studio, number)
    content = (media_root / "n25.mp4").read_bytes()
    path = "/data/upload/1/n25.mp4"
    studio.special["GET", path] = Answer(content, headers={"Content-Type": "video/mp4"})
    studio.add_task(number, {"video": path, "fps": 25.0})
    return number


def connected(studio, number, **changes):
    studio.backends.append({
        "id": 900 + number, "project": number, "url": BACKEND, "title": "SAM 2",
        "readable_state": "Connected", "is_interactive": True, **changes,
    })
    studio.webhooks.append(
        {"id": 1, "project": number, "url": f"{BACKEND}/webhook", "is_active": True}
    )


def test_nothing_is_broken_where_all_is_well(run, studio, healthy):
    status, out, _ = run("doctor")
    assert status == 0 and "nothing is broken" in out
    assert "the legacy token works, for admin@example.com" in out
    assert "model http://localhost:9090: Connected" in out
    assert "its frame rate is the editor's" in out
    assert {call.method for call in studio.calls} == {"GET", "POST"}
    (check,) = studio.asked("POST")
    assert check.path == "/api/ml/" and check.json["project"] == 0
    assert len(studio.backends) == 1


def test_settings_are_printed_and_the_key_is_not(run, studio):
    _, out, err = run("doctor", "--no-media")
    assert f"label_studio_url = {studio.url}" in out and "label_studio_api_key = ***" in out
    assert KEY not in out + err


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(401, "Invalid token."), "make a new key in Account & Settings"),
        (
            problem(401, "legacy token authentication has been disabled for this organization"),
            "use a personal access token",
        ),
        (Answer(b"<html>", 404), "there is no Label Studio at this address"),
        (problem(404, "Not found."), "answers, and is no Label Studio"),
        (problem(500, "Unknown error"), "Label Studio's log"),
    ],
)
def test_a_server_or_key_that_does_not_work_is_broken(run, studio, answer, message):
    studio.special["GET", "/api/current-user/whoami"] = answer
    status, out, _ = run("doctor")
    assert status == 1 and "BROKEN" in out and message in out


def test_no_server_at_all_is_told(run, studio, monkeypatch):
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    status, out, _ = run("doctor")
    assert status == 1 and "cannot be reached" in out


def test_the_loopback_guard_is_found(run, studio, healthy):
    studio.blocks_private_addresses = True
    status, out, _ = run("doctor", "--no-media")
    assert status == 1 and "ML_BLOCK_LOCAL_IP=false" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"readable_state": "Disconnected"}, "model http://localhost:9090: Disconnected"),
        ({"readable_state": "Error", "error_message": "boom"}, "Error: boom"),
        ({"is_interactive": False}, "its model is not used while annotating"),
    ],
)
def test_a_connection_that_does_not_work_is_broken(run, studio, changes, message):
    connected(studio, studio.add_project(label_config("video", ["A"])), **changes)
    status, out, _ = run("doctor", "--no-media")
    assert status == 1 and message in out


def test_what_is_missing_is_noted_and_not_broken(run, studio):
    number = studio.add_project(label_config("video", ["A"]))
    status, out, _ = run("doctor", "--no-media")
    assert status == 0 and f"project connect {number} --backend-url {BACKEND}" in out
    connected(studio, number)
    studio.webhooks.clear()
    status, out, _ = run("doctor", "--no-media")
    assert status == 0 and "Submit starts no tracking" in out
    assert "not retrieved when a task is opened" in out


def with_panel(studio, settings, key_of=None, days=365.0, base="http://b"):
    """A project whose config has the panel, with a key of the project `key_of`."""
    number = studio.add_project("")
    key = make_key(settings, key_of or number, KeyPurpose.PANEL, days=days)
    studio.projects[number]["label_config"] = label_config(
        "video-panel", ["Car"], panel_url=f"{base}/panel?video=$video#key={key}"
    )
    return number


def test_a_panel_s_key_is_looked_at(run, studio, settings):
    number = with_panel(studio, settings)
    _, out, _ = run("doctor", "--no-media")
    assert "its panel's key holds for 365 days" in out
    assert f"its panel may be shown by pages of {studio.url}" in out
    key = re.search(r"#key=([\w.-]+)", studio.projects[number]["label_config"])[1]
    assert key not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 3}, "key holds for 3 more days"),
        ({"key_of": 999}, "has the key of project 999"),
        ({"days": 1e-9}, "has expired"),
    ],
)
def test_a_panel_that_shows_nothing_or_soon_will_is_told(run, studio, settings, options, message):
    number = with_panel(studio, settings, **options)
    _, out, _ = run("doctor", "--no-media")
    assert message in out and f"project connect {number}" in out


def test_a_panel_that_browsers_refuse_is_broken(run, studio, settings, monkeypatch):
    monkeypatch.setenv("SAM2_BROWSER_ORIGINS", "https://labels.example.com")
    with_panel(studio, settings)
    status, out, _ = run("doctor", "--no-media")
    assert status == 1 and "browsers refuse inside https://labels.example.com" in out


def test_the_export_trap_is_found(run, studio):
    studio.add_project(POINTS_ALONE)
    status, out, _ = run("doctor", "--no-media")
    assert status == 1 and "no RectangleLabels" in out and "add <RectangleLabels" in out


def test_the_frame_rate_trap_is_found_in_the_video(run, studio, healthy):
    (task,) = studio.tasks.values()
    number = studio.add_project(FIXED_RATE)
    studio.add_task(number, dict(task["data"]))
    status, out, _ = run("doctor")
    assert status == 1 and "counts 30 frames a second, the video has 25" in out
    task["data"].pop("fps")  # the editor takes 24 where the task says nothing
    assert "counts 24 frames a second" in run("doctor")[1]


def test_a_project_for_something_else_is_fine_until_we_are_connected(run, studio):
    number = studio.add_project('<View><Text name="t" value="$t"/></View>', title="texts")
    status, out, _ = run("doctor")
    assert status == 0 and "is not for SAM 2" in out
    connected(studio, number)
    status, out, _ = run("doctor")
    assert status == 1 and "label config cannot be served" in out and "project create" in out


def test_a_video_that_cannot_be_had_is_noted(run, studio, healthy):
    del studio.special["GET", "/data/upload/1/n25.mp4"]
    status, out, _ = run("doctor")
    assert status == 0 and "its video cannot be looked at" in out and "mend the task" in out


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SAM2_MODEL", "sam9", "'sam9' is not known"),
        ("SAM2_CHECKPOINT", "/none.pt", "checkpoint /none.pt is not there"),
        ("SAM2_DEVICE", "toaster", "device 'toaster'"),
        ("SAM2_MEDIA_ROOTS", "/nowhere", "/nowhere is not there"),
    ],
)
def test_what_is_wrong_on_this_machine_is_broken(run, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    status, out, _ = run("doctor")
    assert status == 1 and message in out and "->" in out


def test_a_model_that_is_not_here_yet_is_noted(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path))
    monkeypatch.setenv("SAM2_CHECKPOINT", "")
    monkeypatch.setenv("SAM2_MODEL", "sam2.1_hiera_tiny")
    status, out, _ = run("doctor")
    assert status == 0 and "is not downloaded yet (148 MiB)" in out and str(tmp_path) in out


def test_without_label_studio_it_says_what_to_set(run, monkeypatch):
    status, out, _ = run("doctor")
    assert status == 0 and "LABEL_STUDIO_URL is not set" in out
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    status, out, _ = run("doctor")
    assert status == 1 and "is set without a key" in out
