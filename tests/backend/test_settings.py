"""Settings: what the environment may say, and what it is told when it says it wrong."""

import re
from pathlib import Path

import pytest

from backend.settings import Settings, environment_with, variable_names
from converters.types import Direction


def test_an_empty_environment_gives_the_defaults():
    assert Settings.from_environment({"SAM2_MODEL": "", "PATH": "/bin"}) == Settings()


def test_every_kind_of_variable_is_read():
    settings = Settings.from_environment(
        {
            "SAM2_MODEL": "sam2.1_hiera_tiny",
            "LABEL_STUDIO_URL": "https://ls.example/studio/",
            "LABEL_STUDIO_API_KEY": " abc ",
            "SAM2_MEDIA_ROOTS": "/a:/b",
            "SAM2_MEDIA_CACHE": "/cache",
            "SAM2_ALLOW_PRIVATE_MEDIA_HOSTS": "minio:9000, nas",
            "SAM2_MAX_DOWNLOAD_MIB": "3",
            "SAM2_ANSWER_SECONDS": "1.5",
            "SAM2_DIRECTION": "both",
        }
    )
    assert settings == Settings(
        model="sam2.1_hiera_tiny",
        label_studio_url="https://ls.example/studio",
        label_studio_api_key="abc",
        media_roots=(Path("/a"), Path("/b")),
        media_cache=Path("/cache"),
        allow_private_media_hosts=("minio:9000", "nas"),
        max_download_bytes=3 * 2**20,
        answer_seconds=1.5,
        direction=Direction.BOTH,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SAM2_MAX_FRAMES": "many"}, "SAM2_MAX_FRAMES='many' must be a whole number"),
        ({"SAM2_MAX_FRAMES": "0"}, "max_frames=0 must be above 0"),
        ({"SAM2_ANSWER_SECONDS": "nan"}, "answer_seconds=nan must be above 0"),
        ({"SAM2_DIRECTION": "up"}, "direction='up' must be one of"),
        ({"SAM2_DTYPE": "int8"}, "dtype='int8' must be one of"),
        ({"SAM2_KEYFRAMES": "some"}, "keyframes='some' must be one of"),
        ({"SAM2_KEYFRAME_MIN_IOU": "1.5"}, "keyframe_min_iou=1.5 must be"),
        ({"LABEL_STUDIO_URL": "ls.example"}, "label_studio_url='ls.example' must be http"),
        ({"LABEL_STUDIO_URL": "http://a:99999"}, "label_studio_url has port 99999, must be from 1 to"),
        ({"LABEL_STUDIO_URL": "http://[::1]:0/ls"}, "label_studio_url has port 0, must be from 1 to"),
        ({"SAM2_QUEUE": "redis://u:p@h:70000/0"}, "queue has port 70000, must be from 1 to 65535"),
        ({"SAM2_ALLOW_PRIVATE_MEDIA_HOSTS": "nas:65536"}, "has port 65536, must be from 1 to 65535"),
        ({"SAM2_BROWSER_ORIGINS": "http://a:99999"}, "browser_origins has port 99999, must be"),
        ({"LABEL_STUDIO_URL": "http://me:pw@ls"}, "must not hold a user"),
        ({"LABEL_STUDIO_API_KEY": "abc"}, "label_studio_url is not"),
        ({"SAM2_ALLOW_PRIVATE_MEDIA_HOSTS": "http://nas/"}, "must be 'host' or"),
    ],
)
def test_a_bad_value_is_refused_by_name(variables, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings.from_environment(variables)


def test_a_secret_is_never_shown():
    settings = Settings(label_studio_url="http://ls", label_studio_api_key="very-secret")
    assert "very-secret" not in repr(settings) + str(settings)
    assert "label_studio_api_key='***'" in repr(settings)
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        Settings(label_studio_url="http://ls", label_studio_api_key="very-secret\nX: 1")
    assert "very-secret" not in str(caught.value)


def test_the_model_version_tells_model_and_checkpoint():
    assert Settings().model_version == "sam2:demo"
    assert Settings(checkpoint="/x/mine.pt").model_version == "sam2:demo:mine.pt"


def test_a_file_fills_in_what_the_environment_leaves_open(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        'SAM2_MODEL = "sam2.1_hiera_tiny"\nSAM2_MAX_OBJECTS = 3\n'
        'SAM2_ALLOW_PRIVATE_MEDIA_HOSTS = ["one", "two:80"]\n'
        'SAM2_MEDIA_ROOTS = ["/a", "/b"]\n'
    )
    settings = Settings.from_environment({"SAM2_SETTINGS": str(file), "SAM2_MODEL": "demo"})
    assert settings.model == "demo" and settings.max_objects == 3
    assert settings.allow_private_media_hosts == ("one", "two:80")
    assert settings.media_roots == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SAM2_MODLE = 'demo'", "'SAM2_MODLE' is no setting"),
        ("SAM2_MODEL = true", "SAM2_MODEL must be text"),
        ("SAM2_MAX_OBJECTS = 'many'", "SAM2_MAX_OBJECTS='many' must be a whole number"),
        ("= 1", "must be a TOML file"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, message):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        Settings.from_environment({"SAM2_SETTINGS": str(file)})


def test_every_setting_is_in_the_docs():
    documented = (Path(__file__).parents[2] / "docs" / "settings.md").read_text("utf-8")
    missing = [name for name in variable_names() if f"| `{name}` |" not in documented]
    assert missing == []


@pytest.mark.parametrize(
    "token", ["short", "has a space in its middle", "comma,comma,comma,comma", "ümlaut-ümlaut-ümlaut"]
)
def test_a_token_that_no_header_can_have_is_refused_without_showing_it(token):
    with pytest.raises(ValueError, match="number 2 must have") as caught:
        Settings(api_tokens=("a-good-token-of-24-chars", token))
    assert token not in str(caught.value)


def test_tokens_are_a_list_in_the_environment_and_shown_nowhere(monkeypatch):
    environment = {"SAM2_API_TOKENS": "token-number-one, token-number-two"}
    settings = Settings.from_environment(environment)
    assert settings.api_tokens == ("token-number-one", "token-number-two")
    assert set(settings.api_tokens) <= set(settings.secrets)
    assert "token-number" not in repr(settings)
    monkeypatch.setenv("SAM2_API_TOKENS", environment["SAM2_API_TOKENS"])
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "planted-key")
    given = environment_with({"SAM2_MODEL": "demo"})
    assert given["SAM2_MODEL"] == "demo" and "PATH" in given
    assert not any("token-number" in value or "planted" in value for value in given.values())


def test_a_password_in_the_storage_is_refused_and_not_shown():
    for url in ("sftp://user:hunter2@host/x", "sftp://:hunter2@host/x", "//user:hunter2@host"):
        with pytest.raises(ValueError, match="storage must not hold a password") as caught:
            Settings(queue="redis://host/1", storage=url)
        assert "hunter2" not in str(caught.value)
    for url in ("s3://bucket/a:b@c", "sftp://user@host/x", "/mnt/a:b@c", "simplecache::s3://b/c"):
        assert Settings(queue="redis://host/1", storage=url).storage == url
