"""A storage that is away: told soon, asked once, and used again when it is back."""

import threading

import pytest

from backend.errors import StorageUnavailable
from backend.jobs.blobs import FolderBlobs
from backend.jobs.distributed.guarded import GuardedBlobs


class Hanging(FolderBlobs):
    """Answers nothing until it is told to."""

    def __init__(self, folder):
        super().__init__(folder)
        self.goes_on, self.asked = threading.Event(), 0

    def load(self, name):
        self.asked += 1
        self.goes_on.wait()
        return super().load(name)


def test_one_that_hangs_is_asked_once_and_told_to_all(tmp_path):
    blobs = Hanging(tmp_path)
    guarded = GuardedBlobs(blobs, answer_seconds=0.05, trusted_seconds=0)
    tries = [
        lambda: guarded.load("a"), lambda: guarded.save("a", b""), lambda: guarded.delete("a"),
        lambda: guarded.delete_old("a", 1), guarded.check,
    ]  # fmt: skip
    for try_ in tries:
        with pytest.raises(StorageUnavailable, match="SAM2_STORAGE.*no answer in 0.05 s"):
            try_()
    assert blobs.asked == 1
    blobs.goes_on.set()
    guarded = GuardedBlobs(blobs)
    guarded.save("a", b"1")
    assert guarded.load("a") == b"1"
    guarded.delete("a")
    assert guarded.load("a") is None


def test_one_that_fails_is_asked_no_more_for_a_while_and_then_again(tmp_path):
    place = tmp_path / "share"
    place.write_text("no folder")
    patient, prompt = (GuardedBlobs(FolderBlobs(place), trusted_seconds=s) for s in (1e6, 0))
    for guarded in (patient, prompt):
        with pytest.raises(StorageUnavailable, match="is away: NotADirectoryError"):
            guarded.load("a/b")
    place.unlink()
    with pytest.raises(StorageUnavailable):
        patient.load("a/b")
    assert prompt.load("a/b") is None


def test_what_fails_alone_is_told_and_the_rest_goes_on(tmp_path):
    guarded = GuardedBlobs(FolderBlobs(tmp_path))
    guarded.save("a/b", b"1")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StorageUnavailable, match="NotADirectoryError|FileExistsError"):
        guarded.save("file/b", b"1")
    assert guarded.load("a/b") == b"1"
