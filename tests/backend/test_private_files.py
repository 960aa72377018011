"""What the service keeps can be read by its user alone."""

import os
import stat

import pytest

from backend.private_files import keep_private
from backend.settings import Settings
from tests.backend.calls import VIDEO_CONFIG, box
from tests.backend.real_server import RealServer, ask


def modes(folder):
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink()
    }


def test_files_and_folders_of_a_server_are_its_users_alone(checkpoint, media_root, tmp_path):
    for name in ("service", "cache"):
        (tmp_path / name).mkdir(mode=0o755)
    server = RealServer(tmp_path, {
        "SAM2_CHECKPOINT": str(checkpoint), "SAM2_DATA_FOLDER": str(tmp_path / "service"),
        "SAM2_MEDIA_CACHE": str(tmp_path / "cache"), "SAM2_MEDIA_ROOTS": str(media_root),
    })  # fmt: skip
    old = os.umask(0o022)
    try:
        server.start()
    finally:
        os.umask(old)
    try:
        task = {"id": 1, "data": {"video": str(media_root / "n25.mp4")}}
        order = {"task": task, "label_config": VIDEO_CONFIG, "results": [box()]}
        ask(f"{server.url}/api/jobs", order)
        ask(f"{server.url}/api/sessions", {"video": str(media_root / "n25.mp4")})
        found = modes(tmp_path / "service") | modes(tmp_path / "cache")
    finally:
        server.kill()
    assert any(name.startswith("jobs.sqlite3") for name in found)
    assert {name: oct(mode) for name, mode in found.items() if mode & 0o077} == {}


@pytest.mark.parametrize("mode", [0o1777, 0o1700])
def test_a_folder_of_everyone_stays_as_it_is(tmp_path, mode):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    old = os.umask(0o022)
    try:
        keep_private(Settings(data_folder=shared, media_cache=tmp_path / "cache"))
        assert stat.S_IMODE(shared.stat().st_mode) == mode
        assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o700
    finally:
        os.umask(old)
