"""A real service with a quick model, and a Label Studio that can be told to fail."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from tests.backend.calls import box, wait_until
from tests.backend.conftest import checkpoint, media_root, studio  # noqa: F401
from tests.backend.label_studio_site import KEY
from tests.backend.real_server import STARTING_SECONDS, RealServer


class FaultyServer(RealServer):
    """`tests.faults.serve`; `folder`/faults says what goes wrong."""

    command = ("-m", "tests.faults.serve")

    def __init__(self, folder, environment):
        self.faults = folder / "faults"
        self.faults.mkdir()
        super().__init__(folder, {**environment, "FAULTS": str(self.faults)})

    def set(self, name: str, value: object = "") -> None:
        (self.faults / name).write_text(str(value))

    def unset(self, name: str) -> None:
        (self.faults / name).unlink(missing_ok=True)

    def wait_at_the_gate(self) -> None:
        self.wait_until((self.faults / "reached").exists)

    def wait_until(self, holds) -> None:
        wait_until(holds, STARTING_SECONDS)

    def states(self) -> list[tuple[str, str | None]]:
        """(job, its prediction), in the order in which they were asked for."""
        return self.rows(
            "SELECT jobs.state, posts.state FROM jobs LEFT JOIN posts ON job_id = jobs.id "
            "ORDER BY jobs.rowid"
        )

    def wait_until_posted(self, count: int = 1) -> None:
        self.wait_until(lambda: self.states() == [("done", "posted")] * count)


@pytest.fixture
def make_server(tmp_path, media_root, studio):  # noqa: F811
    """A server that is not started yet; keywords are settings' variables."""
    with contextlib.ExitStack() as stack:

        def make(kind=FaultyServer, **variables):
            server = kind(
                tmp_path,
                {
                    "FAULTS_MODEL": "quick",
                    "SAM2_DEVICE": "cpu",
                    "SAM2_MEDIA_CACHE": str(tmp_path / "cache"),
                    "SAM2_DATA_FOLDER": str(tmp_path / "service"),
                    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(media_root),
                    "LABEL_STUDIO_URL": studio.url,
                    "LABEL_STUDIO_API_KEY": KEY,
                    **variables,
                },
            )
            stack.callback(lambda: server.process and server.kill())
            return server

        yield make


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MiB for the service's data."""
    folder = tmp_path / "service"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def prompt(region_id: str = "a") -> dict:
    """A box that a person drew, the same each time."""
    return box(region_id)
