"""The sessions there are: opened, kept within limits, closed when idle, opened again."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Iterator, Sequence

from backend.deadlines import Deadline
from backend.decoding import opening_until
from backend.errors import (
    Conflict,
    NotFound,
    OverLimit,
    StorageUnavailable,
    Stopping,
    TooManySessions,
)
from backend.fingerprints import content_fingerprint
from backend.link_keys import STAND_ALONE
from backend.media import MediaStore
from backend.model import LoadedModel, ModelService
from backend.session_media import SessionOrigin
from backend.session_memories import SessionMemories
from backend.session_store import KnownSession, SessionStore
from backend.sessions import Session
from backend.settings import Settings
from converters.types import VideoInfo

if TYPE_CHECKING:
    from backend.session_start import KnownObject
    from sam2_model.interactive import InteractiveVideo

logger = logging.getLogger(__name__)

_DAY_SECONDS = 86400.0
_LOOK_EVERY_SECONDS = 60.0
_JUST_BEFORE_SECONDS = 120.0


class SessionManager:
    """Opens sessions and finds them by id.

    At most `max_sessions` are open; for another one, the one that nobody has used
    for longest is closed, if it does nothing. A closed session that is asked for is
    opened again from what was stored.
    """

    def __init__(
        self,
        settings: Settings,
        model: ModelService,
        media: MediaStore,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`wall_clock` tells what the store keeps."""
        self._settings = settings
        self._model = model
        self._media = media
        self._clock = clock
        self._store = SessionStore(
            settings.data_folder / "sessions.sqlite3", clock=wall_clock
        )
        self._memories = SessionMemories(
            settings.data_folder / "session-memories", settings.session_memory_bytes
        )
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        """The longest unused first."""
        self._opening: dict[str, threading.Lock] = {}
        self._videos = _Videos()
        self._is_ending = threading.Event()

    def start(self) -> None:
        """Forget old sessions, and close idle ones from now on."""
        count = self._store.delete_old(self._settings.session_days * _DAY_SECONDS)
        if count:
            logger.info("%d old sessions are forgotten", count)
        self.forget_surplus()
        self._memories.keep_only(self._store.ids())
        threading.Thread(target=self._look_after, name="idle-sessions", daemon=True).start()

    def _look_after(self) -> None:
        every = min(_LOOK_EVERY_SECONDS, self._settings.session_idle_seconds)
        while not self._is_ending.wait(every):
            self.close_idle()
            try:
                self.forget_surplus()
            except StorageUnavailable as error:  # it may be back at the next look
                logger.error("stored sessions cannot be counted: %s", error)

    def forget_surplus(self) -> None:
        """Forget the longest unused closed sessions, while all are over their quota."""
        count, byte_count = self._settings.max_stored_sessions, self._settings.max_session_bytes
        while (forgotten := self._forget_one(count, byte_count)) is not None:
            self._memories.delete(forgotten)
            logger.warning(
                "session %s is forgotten, of the closed ones the longest unused: %d may be "
                "stored (SAM2_MAX_STORED_SESSIONS), of %d MiB in all (SAM2_MAX_SESSION_MIB)",
                forgotten, count, byte_count // 2**20,
            )

    def _forget_one(self, max_count: int, max_bytes: int) -> str | None:
        with self._lock:  # so that it is not opened meanwhile
            return self._store.delete_longest_unused(
                max_count=max_count, max_bytes=max_bytes,
                spared=self._open.keys() | self._opening.keys(),
            )

    def stop(self) -> None:
        """Close all; what is propagating can be resumed."""
        with self._lock:
            self._is_ending.set()
            entries = list(self._open.values())
            self._open.clear()
        for entry in entries:  # all of them, before the first is waited for
            if entry.session is not None:
                entry.session.interrupt()
        for entry in entries:
            self._close(entry)
        self._store.close()

    # --- opening -------------------------------------------------------------

    @contextlib.contextmanager
    def created(
        self,
        origin: SessionOrigin,
        *,
        is_stored: bool = True,
        deadline: Deadline | None = None,
        known: Callable[[VideoInfo], Sequence[KnownObject]] = lambda info: (),
    ) -> Iterator[Session]:
        """A new session, which stays open inside the `with`.

        Args:
            known: the objects that it begins with; what it raises is raised here, and
                there is no session.

        Raises TooManySessions, NotReady, VideoDecodeError, BadRequest for objects over
        a limit, and ServiceError for media that cannot be had.
        """
        session_id = uuid.uuid4().hex
        keeping = self._keeping if is_stored else {"store": None, "memories": None}
        entry = self._made(
            origin,
            deadline,
            lambda content, video: Session(
                session_id, origin, video, self._model.scheduler,
                content=content, max_objects=self._settings.max_objects, **keeping,
            ),
        )
        has_begun = False
        try:
            entry.session.begin_with(known(entry.session.info))
            entry.session.create()
            self.forget_surplus()
            has_begun = True
            logger.info("session %s of task %s opened", session_id, origin.task_id)
            yield entry.session
        finally:
            self._give_back(entry)
            if not has_begun:
                self.close(session_id)

    @property
    def _keeping(self) -> dict[str, Any]:
        """Where and how often a session keeps itself."""
        return {
            "store": self._store,
            "memories": self._memories,
            "save_seconds": self._settings.save_seconds,
        }

    def _made(
        self,
        origin: SessionOrigin,
        deadline: Deadline | None,
        make: Callable[[str, InteractiveVideo], Session],
    ) -> _Open:
        """A session in its place among the open ones, in use."""
        model = self._model.wait(deadline)
        place = f"opening-{uuid.uuid4().hex}"
        self._take_place(place)
        entry = None
        try:
            with opening_until(deadline):
                session, video = self._opened(origin, model, make)
            entry = _Open(session, video, self._clock(), users=1)
            return entry
        finally:
            with self._lock:
                self._open.pop(place, None)
                if entry is not None:
                    self._open[entry.session.id] = entry

    def _opened(
        self,
        origin: SessionOrigin,
        model: LoadedModel,
        make: Callable[[str, InteractiveVideo], Session],
    ) -> tuple[Session, InteractiveVideo]:
        with contextlib.ExitStack() as lease:
            files = origin.files(lease.enter_context(self._media.in_use()))
            content = content_fingerprint(files)
            video = self._videos.open(content, lambda: model.open_video(files), lease)
            try:
                self._check_length(video)
                return make(content, video), video
            except BaseException:
                self._videos.close(content, video)
                raise

    def _take_place(self, place: str) -> None:
        self.close_idle()
        surplus = None
        with self._lock:
            if self._is_ending.is_set():
                raise Stopping("the service is being stopped: ask again in a moment")
            if len(self._open) >= self._settings.max_sessions:
                surplus = next((e for e in self._open.values() if e.is_idle), None)
                if surplus is None:
                    raise TooManySessions(
                        f"{len(self._open)} sessions are open and busy, at most "
                        f"{self._settings.max_sessions} can be: try again later"
                    )
                del self._open[surplus.session.id]
            self._open[place] = _Open(None, None, self._clock(), users=1)
        if surplus is not None:
            self._close(surplus)

    def _check_length(self, video: InteractiveVideo) -> None:
        count, limit = video.info.frame_count, self._settings.max_frames
        if count > limit:
            raise OverLimit(f"the video has {count} frames, may have {limit} (SAM2_MAX_FRAMES)")

    @contextlib.contextmanager
    def using(self, session_id: str, *, project_id: int | None = None) -> Iterator[Session]:
        """The session, which stays open inside the `with`.

        Args:
            project_id: another project's session is not found; None: any.

        Raises NotFound, and as `create` when it is to be opened again; Conflict when
        its media is not what it was.
        """
        self._check_project(session_id, project_id)
        entry = self._entry(session_id)
        try:
            yield entry.session
        finally:
            self._give_back(entry)

    def _give_back(self, entry: _Open) -> None:
        with self._lock:
            entry.users -= 1
            entry.used_at = self._clock()

    def _entry(self, session_id: str) -> _Open:
        entry = self._taken(session_id)
        if entry is not None:
            return entry
        with self._lock:
            opening = self._opening.setdefault(session_id, threading.Lock())
        try:
            with opening:  # two who ask for it must not open it twice
                return self._taken(session_id) or self._reopened(session_id)
        finally:
            with self._lock:
                self._opening.pop(session_id, None)

    def _taken(self, session_id: str) -> _Open | None:
        with self._lock:
            entry = self._open.get(session_id)
            if entry is None or entry.session is None:
                return None
            self._open.move_to_end(session_id)
            entry.users += 1
            entry.used_at = self._clock()
            return entry

    def _reopened(self, session_id: str) -> _Open:
        if self._is_ending.is_set():
            raise Stopping("the service is being stopped: ask again in a moment")
        stored = self._store.load(session_id)
        if stored is None:
            raise _no_session(session_id)
        origin = SessionOrigin.from_json(stored.body["origin"])

        def restore(content: str, video: InteractiveVideo) -> Session:
            if content != stored.body["content"]:
                raise Conflict(
                    f"the media of session {session_id} has changed since: its masks do not fit"
                )
            return Session.restored(
                stored, origin, video, self._model.scheduler,
                content=content, max_objects=self._settings.max_objects, **self._keeping,
            )

        logger.info("session %s of task %s is opened again", session_id, origin.task_id)
        entry = self._made(origin, Deadline(self._settings.answer_seconds), restore)
        if self._store.origin(session_id) is None:  # deleted while its video was opened
            with self._lock:
                is_mine = self._open.get(session_id) is entry
                if is_mine:
                    del self._open[session_id]
            if is_mine:
                self._close(entry, is_deleted=True)
            raise _no_session(session_id)
        return entry

    # --- closing -------------------------------------------------------------

    def close_idle(self) -> None:
        """Close those that nobody has used for too long."""
        end = self._clock() - self._settings.session_idle_seconds
        with self._lock:
            old = [e for e in self._open.values() if e.is_idle and e.used_at < end]
            for entry in old:
                del self._open[entry.session.id]
        for entry in old:
            self._close(entry)

    def close(self, session_id: str) -> bool:
        """Free what an idle session holds; it can be opened again if it is stored."""
        with self._lock:
            entry = self._open.get(session_id)
            if entry is None or not entry.is_idle:
                return False
            del self._open[session_id]
        self._close(entry)
        return True

    def delete(self, session_id: str, *, project_id: int | None = None) -> None:
        """Stop a session and forget it. Raises NotFound as `using`."""
        self._check_project(session_id, project_id)
        # First: who opens it meanwhile looks here once more when it is open.
        was_stored = self._store.delete(session_id)
        with self._lock:
            entry = self._open.pop(session_id, None)
        if entry is None and not was_stored:
            raise _no_session(session_id)
        if entry is not None:
            self._close(entry, is_deleted=True)
        self._memories.delete(session_id)

    def _close(self, entry: _Open, *, is_deleted: bool = False) -> None:
        if entry.session is None:
            return
        entry.session.close(is_deleted=is_deleted)
        self._videos.close(entry.session.content, entry.video)
        logger.info("session %s closed", entry.session.id)

    # --- finding -------------------------------------------------------------

    def of_task(self, task_id: int, *, project_id: int | None = None) -> list[KnownSession]:
        """The stored sessions on a task, the last used first; of that project's, or of any."""
        return [
            known
            for known in self._store.list(task_id)
            if SessionOrigin.from_json(known.origin).belongs_to(project_id)
        ]

    def of_video(self, reference: str, *, project_id: int | None = None) -> list[KnownSession]:
        """The same on a video without a task: of no project."""
        if project_id not in (None, STAND_ALONE):
            return []
        return [k for k in self._store.list(None) if k.origin["reference"] == reference]

    def _check_project(self, session_id: str, project_id: int | None) -> None:
        """Raises NotFound for a session of another project, as for one that is not there."""
        if project_id is None:
            return
        with self._lock:
            entry = self._open.get(session_id)
        if entry is not None and entry.session is not None:
            origin = entry.session.origin
        elif (stored := self._store.origin(session_id)) is not None:
            origin = SessionOrigin.from_json(stored)
        else:
            raise _no_session(session_id)
        if not origin.belongs_to(project_id):
            raise _no_session(session_id)

    # --- counting ------------------------------------------------------------

    @property
    def open_count(self) -> int:
        with self._lock:
            return len(self._open)

    @property
    def propagating_count(self) -> int:
        with self._lock:
            sessions = [e.session for e in self._open.values() if e.session is not None]
        return sum(session.is_propagating for session in sessions)

    def others_on_task(self, session: Session) -> int:
        """How many other sessions on a session's task somebody has open now, or had
        just before: a page that is closed says no goodbye."""
        task_id = session.origin.task_id
        since = self._clock() - _JUST_BEFORE_SECONDS
        with self._lock:
            others = [
                entry.session
                for entry in self._open.values()
                if entry.session is not None and (entry.users or entry.used_at >= since)
            ]
        return sum(
            other is not session and task_id is not None and other.origin.task_id == task_id
            for other in others
            if other.is_stored
        )


def _no_session(session_id: str) -> NotFound:
    return NotFound(f"session {session_id!r:.80}: there is none of this id")


@dataclass
class _Open:
    """An open session, or the place of one that is being opened."""

    session: Session | None
    video: InteractiveVideo | None
    used_at: float
    users: int = 0

    @property
    def is_idle(self) -> bool:
        return self.session is not None and not self.users and not self.session.is_propagating


@dataclass
class _Video:
    root: InteractiveVideo | None = None
    users: int = 0
    lease: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Keeps the files on disk that `root` reads."""
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Videos:
    """One open source and one cache of features for all sessions on the same content."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._videos: dict[str, _Video] = {}

    def open(
        self,
        content: str,
        make: Callable[[], InteractiveVideo],
        lease: contextlib.ExitStack,
    ) -> InteractiveVideo:
        """A video of one's own, over what is shared.

        Args:
            lease: of the files; taken over if `make` is called.
        """
        with self._lock:
            entry = self._videos.setdefault(content, _Video())
            entry.users += 1
        try:
            with entry.lock:
                if entry.root is None:
                    entry.root = make()
                    entry.lease = lease.pop_all()
                return entry.root.sibling()
        except BaseException:
            self._leave(content, entry)
            raise

    def close(self, content: str, video: InteractiveVideo) -> None:
        """`video` was made by `open`, and may be closed already."""
        video.close()
        with self._lock:
            entry = self._videos[content]
        self._leave(content, entry)

    def _leave(self, content: str, entry: _Video) -> None:
        with self._lock:
            entry.users -= 1
            if entry.users:
                return
            del self._videos[content]
        if entry.root is not None:
            entry.root.close()
        entry.lease.close()
