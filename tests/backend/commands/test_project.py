"""`project create` and `connect`: what Label Studio has afterwards."""

import re

import pytest

from backend.link_keys import KeyPurpose, check_key
from converters.label_studio.config import parse_label_config

BACKEND = "http://backend:9090"


KINDS = ["video", "frames", "both", "video-preview", "video-panel"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_made_connected_and_told(run, studio, settings, kind):
    status, out, _ = run(
        "project", "create", "My clips", "--config", kind, "--labels", "Car, Dog",
        "--backend-url", BACKEND + "/",
    )
    (project,) = studio.projects.values()
    assert status == 0 and f"{studio.url}/projects/{project['id']}/data" in out
    assert (project["title"], project["evaluate_predictions_automatically"]) == ("My clips", True)
    parse_label_config(project["label_config"])
    (backend,) = studio.backends
    assert (backend["url"], backend["is_interactive"]) == (BACKEND, True)
    assert [hook["url"] for hook in studio.webhooks] == [f"{BACKEND}/webhook"]
    if kind == "video-preview":
        assert project_of_link(project, settings, BACKEND) == project["id"]
    elif kind == "video-panel":
        assert project_of_panel(project, settings, BACKEND) == project["id"]
    else:
        assert "key=" not in project["label_config"]


def project_of_link(project, settings, base):
    """Whose key the preview link in a project's config has."""
    config = parse_label_config(project["label_config"])
    (url,) = [tag.value for tag in config.videos if tag.name == "preview"]
    key = re.fullmatch(re.escape(base) + r"/preview\.mp4\?key=(.*)&src=\$video", url)[1]
    return check_key(settings, key, KeyPurpose.PREVIEW).project_id


def project_of_panel(project, settings, base):
    """The same of the panel's frame."""
    link = re.escape(base) + r"/panel\?video=\$video#key=([\w.-]+)"
    (key,) = re.findall(rf'<iframe src="{link}" ', project["label_config"])
    return check_key(settings, key, KeyPurpose.PANEL).project_id


def test_connecting_renews_the_key_of_a_preview_link(run, studio, settings):
    run(
        "project", "create", "P", "--config", "video-preview", "--labels", "A",
        "--preview-url", "https://sam2.example.com/",
    )
    ((number, project),) = studio.projects.items()
    old = re.search(r"key=([\w.-]+)", project["label_config"])[1]
    project["label_config"] = project["label_config"].replace(old, "1.2.old")
    status, out, _ = run("project", "connect", str(number))
    assert status == 0 and "preview link: holds" in out
    assert project_of_link(studio.projects[number], settings, "https://sam2.example.com") == number


def test_connecting_renews_the_key_of_a_panel_and_gives_one_to_a_link_without(
    run, studio, settings
):
    run(
        "project", "create", "P", "--config", "video-panel", "--labels", "A",
        "--panel-url", "https://sam2.example.com/s/",
    )
    ((number, project),) = studio.projects.items()
    whole = project["label_config"]
    for spoiled in ("#key=1.2.old", "#key=", ""):
        project["label_config"] = re.sub(r"#key=[\w.-]+", spoiled, whole)
        status, out, _ = run("project", "connect", str(number))
        assert status == 0 and "panel link: holds" in out and "project connect" in out
        base = "https://sam2.example.com/s"
        assert project_of_panel(studio.projects[number], settings, base) == number


def test_a_password_goes_into_the_connection_and_the_webhook(run, studio, monkeypatch, project):
    status, _, err = run("project", "connect", project(), "--basic-auth")
    assert status == 2 and "SAM2_BASIC_AUTH_USER" in err and studio.backends == []
    monkeypatch.setenv("SAM2_BASIC_AUTH_USER", "annotator")
    monkeypatch.setenv("SAM2_BASIC_AUTH_PASSWORD", "påss")
    header = {"Authorization": "Basic YW5ub3RhdG9yOnDDpXNz"}
    status, out, _ = run(
        "project", "create", "P", "--config", "video", "--labels", "A", "--basic-auth"
    )
    (backend,), (hook,) = studio.backends, studio.webhooks
    sent = (backend["auth_method"], backend["basic_auth_user"], backend["basic_auth_pass"])
    assert status == 0 and sent == ("BASIC_AUTH", "annotator", "påss") and "påss" not in out
    assert hook["headers"] == header
    hook["headers"] = {"X-Other": "1", "Authorization": "Basic b2xk"}
    backend["basic_auth_pass"] = "old"
    status, out, _ = run("project", "connect", backend["project"], "--basic-auth")
    assert status == 0 and backend["basic_auth_pass"] == "påss" and "påss" not in out
    assert hook["headers"] == {"X-Other": "1", **header}


def test_a_preview_url_without_a_preview_is_refused(run, studio):
    status, _, err = run(
        "project", "create", "P", "--config", "video", "--labels", "A", "--preview-url", "http://x"
    )
    assert status == 2 and "--preview-url" in err and studio.projects == {}


def test_a_service_that_is_not_up_leaves_the_project_and_says_how_to_go_on(run, studio):
    studio.backend_is_up = False
    status, out, err = run("project", "create", "P", "--config", "video", "--labels", "A")
    (number,) = studio.projects
    assert status == 1 and "health check failed" in err
    assert f"project connect {number} --backend-url http://localhost:9090" in err
    assert f"/projects/{number}/data" in out


def test_without_a_backend_nothing_is_connected(run, studio):
    arguments = ["project", "create", "P", "--config", "frames", "--labels", "A", "--no-backend"]
    assert run(*arguments)[0] == 0
    assert len(studio.projects) == 1 and studio.backends == [] and studio.webhooks == []


def test_connecting_twice_changes_nothing_more(run, studio, project):
    number = project()
    assert run("project", "connect", number, "--backend-url", BACKEND)[0] == 0
    status, out, _ = run("project", "connect", number, "--backend-url", BACKEND)
    assert status == 0 and "was connected already" in out
    assert len(studio.backends) == len(studio.webhooks) == 1
    assert studio.projects[number]["evaluate_predictions_automatically"] is True


def test_a_connection_that_is_there_is_mended(run, studio, project):
    number = project()
    studio.backends.append(
        {"id": 900, "project": number, "url": BACKEND + "/", "is_interactive": False}
    )
    studio.backends.append({"id": 901, "project": number, "url": "http://x", "is_interactive": True})
    status, out, err = run("project", "connect", number, "--backend-url", BACKEND)
    assert status == 0 and studio.backends[0]["is_interactive"] is True
    assert "is now interactive" in out and "http://x is interactive too" in err
    assert studio.webhooks[0]["url"] == f"{BACKEND}/webhook"


def test_a_project_that_cannot_be_served_is_not_connected(run, studio):
    number = studio.add_project('<View><Text name="t" value="$t"/></View>')
    status, _, err = run("project", "connect", number)
    assert status == 2 and "VideoRectangle" in err and studio.backends == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "frames", "--labels", "A", "--menu"], "has_menu"),
        (["--config", "video", "--labels", "A,A"], "more than once"),
        (["--config", "video", "--labels", ","], "1 to 200 names"),
        (["--config", "video", "--labels", "A", "--preview-url", "http://p"], "video-preview"),
        (["--config", "video-preview", "--labels", "A", "--panel-url", "http://p"], "video-panel"),
        (["--config", "video-panel", "--labels", "A", "--panel-url", 'http://p" x="'], "panel_url"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(run, studio, options, message):
    status, _, err = run("project", "create", "P", *options)
    assert status == 2 and message in err and studio.calls == []


def test_without_a_key_it_says_what_to_set(run):
    status, _, err = run("project", "create", "P", "--config", "video", "--labels", "A")
    assert status == 2 and "set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY" in err
