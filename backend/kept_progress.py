"""What a running job has tracked, kept now and then, so that another goes on from there.

A process that dies, or gives its job back, leaves the frames it has done and the model's
memories after the last of them (`sam2_model.bookmark`): a few files an attempt, and one
that names those that belong together. It is written last.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable
from uuid import uuid4

from backend.jobs.blobs import Blobs
from backend.sqlite_file import packed, unpacked

if TYPE_CHECKING:
    from backend.model import Tracker
    from backend.tracking import TrackingRun
    from sam2_model.bookmark import Bookmark
    from sam2_model.video import FrameSource

logger = logging.getLogger(__name__)

PROGRESS = "progress"
"""What the names of all that is kept begin with."""

FrameRecord = list[Any]
"""[frame index, [[number of the object, counts of its mask or None, score], ...]]"""


@dataclass(frozen=True)
class SavedProgress:
    """What an earlier attempt has left."""

    frames: dict[int, list[FrameRecord]] = field(default_factory=dict)
    """Number of the run -> its frames, in the order in which they were tracked."""
    run: int = 0
    """The run that it was at; those before it are complete."""
    bookmark: bytes | None = None
    """Of that run."""


class KeptProgress:
    """One attempt at one job. For the thread that runs it.

    Nothing depends on it: when it cannot be kept or read, the job goes on without.
    """

    def __init__(
        self,
        blobs: Blobs,
        job_id: str,
        content_key: str,
        *,
        every_seconds: float,
        is_left: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            content_key: names media, prompts and settings: what was kept of others is
                of no use.
            every_seconds: how often it is saved.
            is_left: whether another attempt is to go on: then it is saved at once.
        """
        self._blobs = blobs
        self._job_id = job_id
        self._content_key = content_key
        self._every_seconds = every_seconds
        self._is_left = is_left
        self._saved: SavedProgress | None = None
        self._run_count = 0
        self._writer = uuid4().hex
        self._expected_writer: str | None = None
        """Whose listing this attempt goes on from, or has written; None: there is none."""
        self._is_superseded = False
        self._chunks: list[int] = []
        """For each file of frames, its run."""
        self._saved_at = time.monotonic()
        self._bookmark_number = 0
        self._counts: dict[int, int] = {}
        """How many frames of each run are saved by this attempt."""
        self._ended: list[tuple[int, TrackingRun]] = []
        """Complete runs whose last frames are not saved yet."""

    def load(self) -> SavedProgress:
        """What the attempt before has left; nothing when there is none."""
        try:
            return self._load()
        except Exception:  # whatever is wrong with it, the job can be done without
            logger.exception("what was kept of job %s cannot be read", self._job_id)
            return SavedProgress()

    def _load(self) -> SavedProgress:
        listing = _listing(self._blobs, self._job_id)
        while True:
            self._expected_writer = _writer_of(listing)
            try:
                return self._load_parts(listing)
            except FileNotFoundError:
                before, listing = listing, _listing(self._blobs, self._job_id)
                if listing == before:  # else its writer has just saved once more
                    raise

    def _load_parts(self, listing: dict[str, Any] | None) -> SavedProgress:
        if listing is None or listing["content_key"] != self._content_key:
            return SavedProgress()
        frames: dict[int, list[FrameRecord]] = {}
        for number, run in enumerate(listing["chunks"]):
            body = self._blobs.load(_chunk_name(self._job_id, listing["writer"], number))
            if body is None:
                raise FileNotFoundError(f"its frames {number} are missing")
            frames.setdefault(run, []).extend(unpacked(body))
        name = _bookmark_name(self._job_id, listing["writer"], listing["bookmark"])
        bookmark = self._blobs.load(name)
        if bookmark is None:
            raise FileNotFoundError("its bookmark is missing")
        return SavedProgress(frames, listing["run"], bookmark)

    def track(
        self,
        run: TrackingRun,
        source: FrameSource,
        tracker: Tracker,
        *,
        is_cancelled: Callable[[], bool],
        progress: Callable[[int, int], None],
    ) -> None:
        """`run.run`, from where the attempt before was; the job's runs come in their order.

        Raises as `run.run`.
        """
        # Imported here: torch takes seconds, and where there is a tracker it is there.
        from sam2_model.bookmark import Bookmark, OtherRun

        saved = self._saved = self._saved or self.load()
        number, self._run_count = self._run_count, self._run_count + 1
        if number < saved.run:
            run.restore(saved.frames.get(number, ()))
            run.set_complete()
            self._ended.append((number, run))
            return
        bookmark = Bookmark()
        if number == saved.run and saved.bookmark is not None:
            try:
                bookmark = Bookmark(saved.bookmark)
                run.restore(saved.frames.get(number, ()))
            except (ValueError, TypeError, IndexError, KeyError):
                logger.exception("what was kept of job %s cannot be used", self._job_id)
                run.forget()
                bookmark = Bookmark()

        def frame_done() -> None:
            if self._is_due or self._is_left():
                self._save(number, run, bookmark)

        options = {"is_cancelled": is_cancelled, "progress": progress, "frame_done": frame_done}
        if run.done_frames:
            logger.info("job %s goes on after %d frames", self._job_id, run.done_frames)
        try:
            run.run(source, tracker, bookmark=bookmark, **options)
        except OtherRun as error:
            logger.warning("job %s begins anew: %s", self._job_id, error)
            run.forget()
            bookmark = Bookmark()
            run.run(source, tracker, bookmark=bookmark, **options)
        if run.is_complete:
            self._ended.append((number, run))

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= self._every_seconds

    def _save(self, number: int, run: TrackingRun, bookmark: Bookmark) -> None:
        """Keep all that is new."""
        if not bookmark.is_placed or self._is_superseded:
            return
        try:
            while self._ended:
                self._add_frames(*self._ended[0])
                del self._ended[0]
            self._add_frames(number, run)
            self._bookmark_number += 1
            name = _bookmark_name(self._job_id, self._writer, self._bookmark_number)
            self._blobs.save(name, bookmark.save())
            if not self._commit(number):
                self._give_up()
        except Exception:  # a full disk, a lost store: the job goes on all the same
            logger.warning("progress of job %s cannot be kept", self._job_id, exc_info=True)
        self._saved_at = time.monotonic()

    def _add_frames(self, number: int, run: TrackingRun) -> None:
        frames = run.frames_since(self._counts.get(number, 0))
        if not frames:
            return
        name = _chunk_name(self._job_id, self._writer, len(self._chunks))
        self._blobs.save(name, packed(frames))
        self._chunks.append(number)
        self._counts[number] = self._counts.get(number, 0) + len(frames)

    def _commit(self, run: int) -> bool:
        """False, and nothing is done, when another attempt has gone on since, or the job
        has ended: this process has lost it, and does not know yet."""
        before = _listing(self._blobs, self._job_id)
        if _writer_of(before) != self._expected_writer:
            return False
        self._blobs.save(_listing_name(self._job_id), json.dumps(self._own_listing(run)).encode())
        self._expected_writer = self._writer
        if before is not None:
            if before["writer"] == self._writer:
                before = before | {"chunks": []}
            _delete_parts(self._blobs, self._job_id, before)
        return True

    def _own_listing(self, run: int) -> dict[str, Any]:
        return {
            "content_key": self._content_key, "writer": self._writer, "run": run,
            "chunks": self._chunks, "bookmark": self._bookmark_number,
        }

    def _give_up(self) -> None:
        logger.warning("progress of job %s is kept by another process now", self._job_id)
        self._is_superseded = True
        _delete_parts(self._blobs, self._job_id, self._own_listing(0))


def delete_progress(blobs: Blobs, job_id: str) -> None:
    """Forget what was kept of a job."""
    try:
        listing = _listing(blobs, job_id)
        if listing is not None:
            blobs.delete(_listing_name(job_id))
            _delete_parts(blobs, job_id, listing)
    except Exception:
        logger.warning("what was kept of job %s cannot be deleted", job_id, exc_info=True)


def _delete_parts(blobs: Blobs, job_id: str, listing: dict[str, Any]) -> None:
    writer = listing["writer"]
    blobs.delete(_bookmark_name(job_id, writer, listing["bookmark"]))
    for number in range(len(listing["chunks"])):
        blobs.delete(_chunk_name(job_id, writer, number))


def _writer_of(listing: dict[str, Any] | None) -> str | None:
    return None if listing is None else listing["writer"]


def _listing(blobs: Blobs, job_id: str) -> dict[str, Any] | None:
    body = blobs.load(_listing_name(job_id))
    return None if body is None else json.loads(body)


def _listing_name(job_id: str) -> str:
    return f"{PROGRESS}/{job_id}/listing"


def _chunk_name(job_id: str, writer: str, number: int) -> str:
    return f"{PROGRESS}/{job_id}/{writer}/frames-{number:06d}"


def _bookmark_name(job_id: str, writer: str, number: int) -> str:
    return f"{PROGRESS}/{job_id}/{writer}/bookmark-{number:06d}"
