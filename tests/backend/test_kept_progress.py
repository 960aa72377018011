"""A job's frames are kept while it runs, and another attempt goes on after the last of them."""

import functools
import itertools
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backend.jobs.blobs import FolderBlobs
from backend.jobs.distributed.blobs import RedisBlobs
from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.storage import open_storage
from backend.kept_progress import PROGRESS, KeptProgress, delete_progress
from backend.tracking import TrackingOptions, TrackingRun
from converters.label_studio.results import ObjectRequest
from converters.types import Box, Direction, Prompt
from sam2_model.tracker import track_steps
from tests.backend.conftest import FRAME_COUNT
from tests.sam2_model.small_model import small_predictor

BOTH, BACKWARD = Direction.BOTH, Direction.BACKWARD


@pytest.fixture(params=["folder", "storage", "redis"])
def blobs(request, tmp_path):
    if request.param == "folder":
        yield FolderBlobs(tmp_path / "unfinished")
    elif request.param == "storage":
        yield open_storage(f"file://{tmp_path}/storage")
    else:
        redis = connect(request.getfixturevalue("redis_server").url, patience_seconds=5)
        yield RedisBlobs(redis)
        redis.close()


@pytest.fixture
def state(media_root):
    with small_predictor().init_state(media_root / "n25.mp4") as opened:
        yield opened


@dataclass
class Noted:
    """Blobs that know their names, and may break."""

    blobs: object
    names: set = field(default_factory=set)
    is_full: bool = False

    def save(self, name, body):
        if self.is_full:
            raise OSError(28, "No space left on device")
        self.blobs.save(name, body)
        self.names.add(name)

    def load(self, name):
        return self.blobs.load(name)

    def delete(self, name):
        self.blobs.delete(name)
        self.names.discard(name)


def requests():
    first = Prompt("a", 1, box=Box(80, 50, 170, 140))
    second = Prompt("b", 4, points_xy=[(142, 106)], point_labels=[1])
    return [ObjectRequest("a", (), (first,), {}), ObjectRequest("b", (), (second,), {})]


@dataclass
class Attempt:
    """One process's work on the job's runs, broken after so many frames in all."""

    state: object
    frames: int = 0
    """How many it tracked itself."""

    def do(self, kept, *, directions=(BOTH,), stop_after=None):
        runs = [
            TrackingRun(requests(), self.state.source.info, TrackingOptions(direction=direction))
            for direction in directions
        ]
        self.frames = 0

        steps = functools.partial(track_steps, self.state, predictor=small_predictor())

        def tracker(source, prompts, frame_range, **options):
            for step in steps(prompts, frame_range, **options):
                if step is not None:
                    self.frames += 1
                    yield step

        for run in runs:
            track = run.run if kept is None else lambda *a, **k: kept.track(run, *a, **k)
            track(
                self.state.source, tracker,
                is_cancelled=lambda: self.frames == stop_after, progress=lambda *_: None,
            )
            if not run.is_complete:
                break
        return runs


@pytest.fixture
def attempt(state):
    return Attempt(state)


def kept_by(blobs, *, job_id="job", key="key", every=0.0, is_left=lambda: False):
    return KeptProgress(blobs, job_id, key, every_seconds=every, is_left=is_left)


def found(runs):
    return [run.tracked() for run in runs]


@pytest.mark.parametrize("directions", [(BOTH,), (BACKWARD, BOTH)])
@pytest.mark.parametrize("done", [1, 3, 7])
def test_another_attempt_goes_on_after_the_last_frame(blobs, attempt, directions, done):
    whole = found(attempt.do(None, directions=directions))
    total = attempt.frames
    attempt.do(kept_by(blobs), directions=directions, stop_after=done)
    again = attempt.do(kept_by(blobs), directions=directions)
    assert found(again) == whole
    assert attempt.frames == total - done
    delete_progress(blobs, "job")


def test_it_may_break_again_and_again(blobs, attempt):
    whole = found(attempt.do(None, directions=(BACKWARD, BOTH)))
    noted = Noted(blobs)
    for count in itertools.count(1):
        runs = attempt.do(kept_by(noted), directions=(BACKWARD, BOTH), stop_after=1)
        if len(runs) == 2 and runs[1].is_complete:
            break
        assert len(noted.names) <= count + 3  # what was superseded is gone
    assert found(runs) == whole
    delete_progress(noted, "job")
    assert not noted.names


def test_a_job_that_is_left_is_kept_at_once_and_others_now_and_then(blobs, attempt):
    attempt.do(kept_by(blobs, every=3600), stop_after=3)
    attempt.do(kept_by(blobs, every=3600), stop_after=5)
    assert attempt.frames == 5  # from the beginning
    attempt.do(kept_by(blobs, every=3600, is_left=lambda: attempt.frames == 4), stop_after=4)
    attempt.do(kept_by(blobs, every=3600))
    assert attempt.frames == FRAME_COUNT - 4
    delete_progress(blobs, "job")


def test_what_was_kept_of_other_prompts_or_of_another_job_is_of_no_use(blobs, attempt):
    attempt.do(kept_by(blobs), stop_after=3)
    for kept in (kept_by(blobs, key="other"), kept_by(blobs, job_id="other")):
        attempt.do(kept, stop_after=6)
        assert attempt.frames == 6
    delete_progress(blobs, "job")
    delete_progress(blobs, "other")


@pytest.mark.parametrize("part", ["listing", "frames", "bookmark"])
@pytest.mark.parametrize("body", [b"", b"{}", b"\x78\x01damaged", None], ids=range(4))
def test_damaged_progress_is_done_again(tmp_path, attempt, part, body):
    whole = found(attempt.do(None))
    noted = Noted(FolderBlobs(tmp_path))
    attempt.do(kept_by(noted), stop_after=3)
    for name in list(noted.names):
        if part in name:
            noted.delete(name) if body is None else noted.save(name, body)
    assert found(attempt.do(kept_by(noted))) == whole
    assert attempt.frames == FRAME_COUNT


def test_a_bookmark_of_another_run_is_done_again(tmp_path, attempt):
    blobs = FolderBlobs(tmp_path)
    attempt.do(kept_by(blobs), directions=(BACKWARD,), stop_after=3)
    again = attempt.do(kept_by(blobs))  # as if the settings had not named the direction
    assert found(again) == found(attempt.do(None))


def test_a_full_disk_costs_the_progress_and_not_the_job(tmp_path, attempt):
    noted = Noted(FolderBlobs(tmp_path), is_full=True)
    (run,) = attempt.do(kept_by(noted))
    assert run.is_complete and not noted.names
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_disk_that_is_full_for_a_while_loses_nothing_in_between(tmp_path, attempt):
    noted = Noted(FolderBlobs(tmp_path))
    whole = found(attempt.do(None))

    def full_for_two_frames():
        noted.is_full = attempt.frames in (2, 3)
        return False

    attempt.do(kept_by(noted, is_left=full_for_two_frames), stop_after=5)
    assert found(attempt.do(kept_by(noted))) == whole
    assert attempt.frames == FRAME_COUNT - 5


def test_a_frozen_process_that_goes_on_spoils_nothing(tmp_path, attempt):
    blobs = FolderBlobs(tmp_path)
    whole = found(attempt.do(None))
    attempt.do(kept_by(blobs), stop_after=2)
    frozen, awake = kept_by(blobs), kept_by(blobs)
    attempt.do(awake, stop_after=3)
    attempt.do(frozen, stop_after=1)  # believes that it still has the job
    assert found(attempt.do(kept_by(blobs))) == whole


@pytest.mark.parametrize("kind", ["folder", "storage"])
def test_what_nobody_wrote_to_for_long_goes(tmp_path, kind):
    blobs = FolderBlobs(tmp_path) if kind == "folder" else open_storage(f"file://{tmp_path}")
    for name in ("old", "new"):
        blobs.save(f"{PROGRESS}/{name}/listing", b"{}")
    blobs.save("results/old", b"{}")
    long_ago = time.time() - 3 * 86400
    for path in ("progress/old/listing", "results/old"):
        os.utime(tmp_path / path, (long_ago, long_ago))
    blobs.delete_old(PROGRESS, 2 * 86400)
    assert blobs.load(f"{PROGRESS}/old/listing") is None
    assert blobs.load(f"{PROGRESS}/new/listing") == b"{}" and blobs.load("results/old") == b"{}"
    FolderBlobs(tmp_path / "not-there").delete_old(PROGRESS, 1.0)


def test_a_short_job_leaves_nothing(tmp_path, attempt):
    attempt.do(kept_by(FolderBlobs(tmp_path), every=3600), directions=(BACKWARD, BOTH))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_run_whose_last_frames_could_not_be_kept_is_not_taken_for_complete(tmp_path, attempt):
    whole = found(attempt.do(None, directions=(BACKWARD, BOTH)))
    noted = Noted(FolderBlobs(tmp_path))
    in_first = 5  # frames of the backward run

    def full_around_its_end():
        noted.is_full = attempt.frames in (in_first, in_first + 1)
        return False

    attempt.do(
        kept_by(noted, is_left=full_around_its_end), directions=(BACKWARD, BOTH),
        stop_after=in_first + 4,
    )
    assert found(attempt.do(kept_by(noted), directions=(BACKWARD, BOTH))) == whole


def test_one_who_reads_while_another_saves_goes_on(tmp_path, attempt):
    """A worker that stops saves once more in the moment in which its job is begun elsewhere."""
    noted = Noted(FolderBlobs(tmp_path))
    whole = found(attempt.do(None))
    attempt.do(kept_by(noted), stop_after=3)
    reader, load, saved = kept_by(noted), noted.load, []

    def saved_meanwhile(name):
        body = load(name)
        if name.endswith("listing") and not saved:
            saved.append(name)
            attempt.do(kept_by(noted), stop_after=2)  # supersedes what the listing names
        return body

    noted.load = saved_meanwhile
    assert found(attempt.do(reader)) == whole
    assert attempt.frames == 2 + FRAME_COUNT - 5  # the two of the other one among them


@dataclass
class Between(Noted):
    """Blobs whose owner loses the job to another process, or it ends, after some saves."""

    after: int = 0
    meanwhile: object = None

    def save(self, name, body):
        super().save(name, body)
        if name.endswith("listing"):
            self.after -= 1
            if self.after == 0:
                self.meanwhile()


def test_one_that_lost_its_job_leaves_the_progress_of_the_new_owner(
    tmp_path, attempt, media_root
):
    blobs = FolderBlobs(tmp_path)
    whole = found(attempt.do(None))
    attempt.do(kept_by(blobs), stop_after=2)
    lost = kept_by(blobs, every=3600, is_left=lambda: True)

    def loser_saves():
        with small_predictor().init_state(media_root / "n25.mp4") as own:
            Attempt(own).do(lost, stop_after=1)

    lost.load()
    owner = Between(blobs, after=2, meanwhile=loser_saves)
    lost._saved = lost.load()  # it began before the new owner did
    attempt.do(kept_by(owner), stop_after=5)
    assert found(attempt.do(kept_by(blobs))) == whole
    assert attempt.frames == FRAME_COUNT - 7
    delete_progress(blobs, "job")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_one_that_saves_after_the_job_has_ended_leaves_nothing(tmp_path, attempt):
    blobs = FolderBlobs(tmp_path)
    late = Between(blobs, after=2, meanwhile=lambda: delete_progress(blobs, "job"))
    attempt.do(kept_by(late), stop_after=5)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_another_process_drops_is_made_again(tmp_path, monkeypatch):
    blobs, write, dropped = FolderBlobs(tmp_path), Path.write_bytes, []

    def write_too_late(path, body):
        if not dropped:
            dropped.append(path.parent)
            path.parent.rmdir()
        return write(path, body)

    monkeypatch.setattr(Path, "write_bytes", write_too_late)
    blobs.save("results/ab/abc", b"body")
    assert dropped and blobs.load("results/ab/abc") == b"body"
