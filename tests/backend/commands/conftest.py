"""A Label Studio of sorts with a project, and a command line that leaves pytest's logs alone."""

from __future__ import annotations

import pytest

from backend.cli import main
from backend.label_configs import label_config
from backend.settings import Settings
from tests.backend.label_studio_server import KEY, serving_label_studio


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch, checkpoint, tmp_path):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_MODEL", "SAM2_DIRECTION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SAM2_CHECKPOINT", str(checkpoint))
    monkeypatch.setenv("SAM2_DEVICE", "cpu")
    monkeypatch.setenv("SAM2_MEDIA_CACHE", str(tmp_path / "media-cache"))
    monkeypatch.setenv("SAM2_DATA_FOLDER", str(tmp_path / "service"))
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def studio(monkeypatch):
    with serving_label_studio() as server:
        monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", KEY)
        yield server


@pytest.fixture
def project(studio):
    """Makes a project with a config of ours; its number."""

    def make(kind: str = "video", **fields) -> int:
        return studio.add_project(label_config(kind, ["Car", "Dog"]), title=kind, **fields)

    return make


@pytest.fixture
def run(capsys):
    """Runs the command line: (exit status, standard output, standard error)."""

    def command(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


@pytest.fixture
def settings(quiet_environment) -> Settings:
    """Those of the commands that are run."""
    return Settings.from_environment()
