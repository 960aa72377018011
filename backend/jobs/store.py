"""Jobs, results and predictions under way, in one SQLite file that survives a kill."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from backend.jobs.types import (
    Job,
    JobKind,
    JobSpec,
    JobState,
    Post,
    PostState,
    StoredResult,
)
from backend.scheduler import Priority
from backend.sqlite_file import SqliteFile, packed, unpacked

logger = logging.getLogger(__name__)

_SCHEMA = """
-- Large values come last: SQLite reads through them to what lies behind.
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    key TEXT NOT NULL, project_id INTEGER, task_id INTEGER,
    posts_prediction INTEGER NOT NULL, is_awaited INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT, result_key TEXT, request_id TEXT,
    created_at REAL NOT NULL, started_at REAL, finished_at REAL, request BLOB NOT NULL,
    left_out TEXT -- of few jobs: nothing is read to find that it is NULL
);
CREATE INDEX IF NOT EXISTS jobs_waiting
    ON jobs (state, kind, priority, project_id, created_at, id);
CREATE INDEX IF NOT EXISTS jobs_by_key ON jobs (key, state);
CREATE INDEX IF NOT EXISTS jobs_by_task ON jobs (task_id, state);
CREATE TABLE IF NOT EXISTS job_retries (
    job_id TEXT PRIMARY KEY, failures INTEGER NOT NULL, next_attempt_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, byte_count INTEGER NOT NULL, created_at REAL NOT NULL,
    used_at REAL NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS results_by_use ON results (used_at, byte_count, key);
CREATE TABLE IF NOT EXISTS result_media (
    reference TEXT NOT NULL, result_key TEXT NOT NULL, PRIMARY KEY (reference, result_key)
);
CREATE INDEX IF NOT EXISTS media_by_result ON result_media (result_key);
CREATE TABLE IF NOT EXISTS request_results (
    request_key TEXT PRIMARY KEY, result_key TEXT NOT NULL, media_stamp TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_result ON request_results (result_key);
CREATE TABLE IF NOT EXISTS posts (
    id INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, task_id INTEGER NOT NULL,
    state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, next_attempt_at REAL NOT NULL,
    error TEXT, prediction_id INTEGER, prediction BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS posts_due ON posts (state, next_attempt_at);
"""
VERSION = 3
"""Of the schema above."""
_OLD_JOB_COLUMNS = (
    "id, kind, state, priority, key, project_id, task_id, posts_prediction, is_awaited, done, "
    "total, attempts, error, result_key, created_at, started_at, finished_at, request"
)
_UPGRADES = {
    # Jobs have the id of the request that ordered them.
    1: f"""
DROP INDEX IF EXISTS jobs_waiting;
DROP INDEX IF EXISTS jobs_by_key;
DROP INDEX IF EXISTS jobs_by_task;
ALTER TABLE jobs RENAME TO jobs_before;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL,
    key TEXT NOT NULL, project_id INTEGER, task_id INTEGER,
    posts_prediction INTEGER NOT NULL, is_awaited INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0, total INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, error TEXT, result_key TEXT, request_id TEXT,
    created_at REAL NOT NULL, started_at REAL, finished_at REAL, request BLOB NOT NULL
);
INSERT INTO jobs ({_OLD_JOB_COLUMNS}) SELECT {_OLD_JOB_COLUMNS} FROM jobs_before;
DROP TABLE jobs_before
""",
    # Jobs that are done say what of their request was malformed.
    2: "ALTER TABLE jobs ADD COLUMN left_out TEXT",
}
"""By version: what makes the next one of it. These stay as they are for ever."""
_LONGEST_DELAY_SECONDS = 3600.0
"""Nothing waits longer for its next attempt, whatever the clock was when it was put off."""
_MAX_REQUESTS_OF_RESULT = 100
"""Data with signed URLs makes a new request of an old one every hour."""
_UNFINISHED = (JobState.QUEUED, JobState.RUNNING)
_COLUMNS_WITHOUT_REQUEST = (
    "id, kind, state, priority, key, NULL AS request, project_id, task_id, posts_prediction, "
    "is_awaited, done, total, attempts, error, result_key, request_id, created_at, started_at, "
    "finished_at, left_out"
)
_POST_COLUMNS = (
    "id, job_id, task_id, state, attempts, next_attempt_at, error, prediction_id, "
    "(SELECT request_id FROM jobs WHERE jobs.id = job_id) AS request_id"
)


class Waiting(NamedTuple):
    """A queued job, as far as choosing the next one needs it."""

    id: str
    kind: JobKind
    priority: Priority
    project_id: int | None
    created_at: float


class Taken(NamedTuple):
    """What `JobStore.take` gives."""

    job: Job | None
    """The one that has begun; None when none was chosen."""
    has_more: bool
    """Whether others are queued, so that it is worth asking again."""
    seconds_to_retry: float | None
    """Until the next job that waits for another attempt may begin; None without one."""


class JobStore(SqliteFile):
    """Safe for many threads; every method is one transaction.

    One process owns the file.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Raises as `SqliteFile`."""
        self._clock = clock
        super().__init__(path, _SCHEMA, version=VERSION, upgrades=_UPGRADES)

    # --- jobs ----------------------------------------------------------------

    def add(self, spec: JobSpec, *, is_awaited: bool = False) -> tuple[Job, bool]:
        """The unfinished job that does the same, made at least as urgent, or a new one.

        Args:
            is_awaited: someone waits for the answer (`leave`).

        Returns:
            The job, and whether it is new.
        """
        with self.transaction() as db:
            row = db.execute(
                f"SELECT id FROM jobs WHERE key = ? AND state IN {_UNFINISHED_SQL}", (spec.key,)
            ).fetchone()
            if row is not None:
                db.execute(
                    "UPDATE jobs SET priority = MIN(priority, ?), "
                    "posts_prediction = MAX(posts_prediction, ?), "
                    "is_awaited = MAX(is_awaited, ?) WHERE id = ?",
                    (int(spec.priority), spec.posts_prediction, is_awaited, row["id"]),
                )
                # Whoever asks again need not wait for the next attempt.
                db.execute(
                    "UPDATE job_retries SET next_attempt_at = 0 WHERE job_id = ?", (row["id"],)
                )
                return self._job(db, row["id"]), False
            job_id = uuid.uuid4().hex
            db.execute(
                "INSERT INTO jobs (id, kind, state, priority, key, request, project_id, task_id,"
                " posts_prediction, is_awaited, request_id, created_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job_id, spec.kind, JobState.QUEUED, int(spec.priority), spec.key,
                    packed(spec.request), spec.project_id, spec.task_id,
                    spec.posts_prediction, is_awaited, spec.request_id, self._clock(),
                ),
            )
            return self._job(db, job_id), True

    def get(self, job_id: str) -> Job | None:
        with self.transaction() as db:
            return self._job(db, job_id)

    def list(
        self,
        *,
        states: Sequence[JobState] = (),
        project_id: int | None = None,
        task_id: int | None = None,
        limit: int = 100,
        offset: int = 0,
        with_requests: bool = True,
    ) -> list[Job]:
        """The newest first; all states and projects unless told.

        `with_requests=False`: their requests, which may be large, are left empty.
        """
        wheres, values = [], []
        if states:
            wheres.append(f"state IN ({', '.join('?' * len(states))})")
            values += list(states)
        for name, value in (("project_id", project_id), ("task_id", task_id)):
            if value is not None:
                wheres.append(f"{name} = ?")
                values.append(value)
        where = f"WHERE {' AND '.join(wheres)}" if wheres else ""
        columns = "*" if with_requests else _COLUMNS_WITHOUT_REQUEST
        with self.transaction() as db:
            rows = db.execute(
                f"SELECT {columns} FROM jobs {where} ORDER BY created_at DESC, rowid DESC "
                "LIMIT ? OFFSET ?",
                (*values, limit, offset),
            ).fetchall()
        return [_job_of(row) for row in rows]

    def take(self, choose: Callable[[Sequence[Waiting]], Waiting | None]) -> Taken:
        """Begin one of the queued jobs.

        Args:
            choose: is given the oldest of each kind, priority and project that may begin
                now, and says which of them does.
        """
        now = self._clock()
        with self.transaction() as db:
            waiting = self._first_waiting(db, now)
            chosen = choose(waiting)
            job = None if chosen is None else self._begin(db, chosen.id)
            # Of the one that has begun there may be more.
            has_more = job is not None and bool(
                len(waiting) > 1
                or db.execute("SELECT 1 FROM jobs WHERE state = ?", (JobState.QUEUED,)).fetchone()
            )
            due_at = db.execute(
                "SELECT MIN(next_attempt_at) FROM job_retries WHERE next_attempt_at > ?", (now,)
            ).fetchone()[0]
        return Taken(job, has_more, None if due_at is None else due_at - now)

    @staticmethod
    def _first_waiting(db: sqlite3.Connection, now: float) -> list[Waiting]:
        """The oldest queued job of each kind, priority and project that may begin now."""
        # Beside MIN, SQLite takes the other columns from the row that has it.
        rows = db.execute(
            "SELECT id, kind, priority, project_id, MIN(created_at) AS created_at FROM jobs "
            "WHERE state = ? AND id NOT IN "
            "(SELECT job_id FROM job_retries WHERE next_attempt_at > ?) "
            "GROUP BY kind, priority, project_id",
            (JobState.QUEUED, now),
        ).fetchall()
        return [
            Waiting(
                row["id"], JobKind(row["kind"]), Priority(row["priority"]),
                row["project_id"], row["created_at"],
            )
            for row in rows
        ]

    def count_queued(self, project_id: int | None) -> int:
        """How many jobs of a project wait."""
        with self.transaction() as db:
            return db.execute(
                "SELECT COUNT(*) FROM jobs WHERE state = ? AND project_id IS ?",
                (JobState.QUEUED, project_id),
            ).fetchone()[0]

    def counts(self) -> dict[JobState, int]:
        """How many jobs there are of each state."""
        with self.transaction() as db:
            rows = db.execute("SELECT state, COUNT(*) AS n FROM jobs GROUP BY state").fetchall()
        found = {JobState(row["state"]): row["n"] for row in rows}
        return {state: found.get(state, 0) for state in JobState}

    def counts_by_kind(self) -> dict[tuple[JobKind, JobState], int]:
        """How many jobs there are of each kind and state, noughts included."""
        with self.transaction() as db:
            rows = db.execute(
                "SELECT kind, state, COUNT(*) AS n FROM jobs GROUP BY kind, state"
            ).fetchall()
        found = {(JobKind(row["kind"]), JobState(row["state"])): row["n"] for row in rows}
        return {(k, s): found.get((k, s), 0) for k in JobKind for s in JobState}

    def result_bytes(self) -> int:
        """What all kept results take."""
        with self.transaction() as db:
            return db.execute("SELECT COALESCE(SUM(byte_count), 0) FROM results").fetchone()[0]

    def begin(self, job_id: str) -> Job | None:
        """Take a queued job to run it; None when it is no longer queued."""
        with self.transaction() as db:
            return self._begin(db, job_id)

    def _begin(self, db: sqlite3.Connection, job_id: str) -> Job | None:
        changed = db.execute(
            "UPDATE jobs SET state = ?, started_at = ?, attempts = attempts + 1, error = NULL"
            " WHERE id = ? AND state = ?",
            (JobState.RUNNING, self._clock(), job_id, JobState.QUEUED),
        ).rowcount
        return self._job(db, job_id) if changed else None

    def set_progress(self, job_id: str, done: int, total: int) -> None:
        with self.transaction() as db:
            db.execute("UPDATE jobs SET done = ?, total = ? WHERE id = ?", (done, total, job_id))

    def leave(
        self, job_id: str, *, priority: Priority, posts_prediction: bool, is_awaited: bool
    ) -> bool:
        """One who waited for it waits no more; whether it was still unfinished.

        Args:
            priority: what it is worth to those who are left.
            is_awaited: whether others wait.
        """
        with self.transaction() as db:
            return bool(
                db.execute(
                    "UPDATE jobs SET priority = ?, is_awaited = ?, "
                    "posts_prediction = MAX(posts_prediction, ?) "
                    f"WHERE id = ? AND state IN {_UNFINISHED_SQL}",
                    (int(priority), is_awaited, posts_prediction, job_id),
                ).rowcount
            )

    def want_post(self, job_id: str) -> bool:
        """Let an unfinished job post its result; False when it has ended."""
        with self.transaction() as db:
            return bool(
                db.execute(
                    "UPDATE jobs SET posts_prediction = 1 "
                    f"WHERE id = ? AND state IN {_UNFINISHED_SQL}",
                    (job_id,),
                ).rowcount
            )

    def finish(
        self,
        job_id: str,
        state: JobState,
        *,
        error: str | None = None,
        result_key: str | None = None,
        prediction: Mapping[str, Any] | None = None,
        progress: tuple[int, int] | None = None,
        left_out: Mapping[str, Any] | None = None,
    ) -> Job | None:
        """End a job; the prediction, if it posts one, is kept in the same transaction.

        Args:
            progress: steps done and in all; None: as they were noted last.
            left_out: what of its request was malformed.

        Returns the job; None when it had ended before (it was cancelled).
        """
        done, total = progress or (None, None)
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, error = ?, result_key = ?, finished_at = ?, "
                "done = COALESCE(?, done), total = COALESCE(?, total), left_out = ? "
                f"WHERE id = ? AND state IN {_UNFINISHED_SQL}",
                (
                    state, _text(error), result_key, self._clock(), done, total,
                    None if left_out is None else json.dumps(left_out), job_id,
                ),
            ).rowcount
            job = self._job(db, job_id)
            if not changed or job is None:
                return None
            db.execute("DELETE FROM job_retries WHERE job_id = ?", (job_id,))
            if prediction is not None and job.posts_prediction:
                self._add_post(db, job, prediction)
            return job

    def add_post(self, job_id: str, prediction: Mapping[str, Any]) -> None:
        """Keep a prediction of an ended job, if there is none yet."""
        with self.transaction() as db:
            job = self._job(db, job_id)
            if job is not None:
                self._add_post(db, job, prediction)

    def _add_post(self, db: sqlite3.Connection, job: Job, prediction: Mapping[str, Any]) -> None:
        if job.task_id is None:
            return
        db.execute(
            "INSERT OR IGNORE INTO posts (job_id, task_id, prediction, state, "
            "next_attempt_at) VALUES (?, ?, ?, ?, ?)",
            (job.id, job.task_id, packed(prediction), PostState.WAITING, self._clock()),
        )

    def requeue_interrupted(self, max_attempts: int, *, posts_predictions: bool) -> int:
        """Queue jobs again that ran when the process was killed; how many.

        One that was begun too often has failed: it may be what kills the process.
        Those who waited for an answer got none; it is posted if `posts_predictions`.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, finished_at = ?, error = ? "
                "WHERE state = ? AND attempts >= ?",
                (
                    JobState.FAILED, self._clock(),
                    f"the service stopped {max_attempts} times while this ran",
                    JobState.RUNNING, max_attempts,
                ),
            )
            count = db.execute(
                "UPDATE jobs SET state = ? WHERE state = ?", (JobState.QUEUED, JobState.RUNNING)
            ).rowcount
            db.execute(
                "UPDATE jobs SET priority = MAX(priority, ?), is_awaited = 0, "
                "posts_prediction = MAX(posts_prediction, ?) WHERE state = ? AND is_awaited",
                (int(Priority.WEBHOOK), posts_predictions, JobState.QUEUED),
            )
            self._bring_times_back(db)
        return count

    def _bring_times_back(self, db: sqlite3.Connection) -> None:
        """The clock may have been ahead when they were noted."""
        now = self._clock()
        db.execute(
            "UPDATE jobs SET created_at = ? WHERE created_at > ? AND state = ?",
            (now, now, JobState.QUEUED),
        )
        for table in ("job_retries", "posts"):
            db.execute(
                f"UPDATE {table} SET next_attempt_at = MIN(next_attempt_at, ?)",
                (now + _LONGEST_DELAY_SECONDS,),
            )

    def put_back(self, job_id: str | None = None) -> None:
        """Queue a running job, or all of them, as if they had not begun."""
        which, values = ("", ()) if job_id is None else (" AND id = ?", (job_id,))
        with self.transaction() as db:
            db.execute(
                "UPDATE jobs SET state = ?, attempts = MAX(attempts - 1, 0) "
                f"WHERE state = ?{which}",
                (JobState.QUEUED, JobState.RUNNING, *values),
            )

    def failures(self, job_id: str) -> int:
        """How often a job has failed that was queued again."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT failures FROM job_retries WHERE job_id = ?", (job_id,)
            ).fetchone()
        return 0 if row is None else row["failures"]

    def retry(self, job_id: str, error: str, after_seconds: float) -> None:
        """Queue a running job again that has failed, to begin no sooner than that."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, error = ?, attempts = MAX(attempts - 1, 0) "
                "WHERE id = ? AND state = ?",
                (JobState.QUEUED, _text(error), job_id, JobState.RUNNING),
            ).rowcount
            if changed:
                db.execute(
                    "INSERT INTO job_retries VALUES (?, 1, ?) ON CONFLICT (job_id) DO UPDATE "
                    "SET failures = failures + 1, next_attempt_at = excluded.next_attempt_at",
                    (job_id, self._clock() + after_seconds),
                )

    def delete_old(self, age_seconds: float) -> int:
        """Forget jobs that ended so long ago, but none with a prediction still to post.

        Counted from the newest job's end, should the clock be far ahead of it.
        """
        with self.transaction() as db:
            newest = db.execute("SELECT MAX(finished_at) FROM jobs").fetchone()[0]
            before = min(self._clock(), newest or 0.0) - age_seconds
            ids = [
                row["id"]
                for row in db.execute(
                    f"SELECT id FROM jobs WHERE state NOT IN {_UNFINISHED_SQL} "
                    "AND finished_at < ? AND id NOT IN "
                    "(SELECT job_id FROM posts WHERE state = ?)",
                    (before, PostState.WAITING),
                )
            ]
            for job_id in ids:
                db.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
                db.execute("DELETE FROM posts WHERE job_id = ?", (job_id,))
        return len(ids)

    @staticmethod
    def _job(db: sqlite3.Connection, job_id: str) -> Job | None:
        row = db.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None else _job_of(row)

    # --- results -------------------------------------------------------------

    def save_result(
        self, result: StoredResult, *, request_key: str, media_stamp: str, max_bytes: int
    ) -> None:
        """Keep a result; the longest unused go when all have more than `max_bytes`.

        Args:
            request_key: of the request that it answers.
            media_stamp: what its media files looked like (`result_of_request`).
        """
        body = packed(result.as_json())
        now = self._clock()
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO results (key, byte_count, created_at, used_at, body) "
                "VALUES (?, ?, ?, ?, ?)",
                (result.key, len(body) + len(media_stamp), now, now, body),
            )
            for reference in result.media:
                db.execute(
                    "INSERT OR IGNORE INTO result_media VALUES (?, ?)", (reference, result.key)
                )
            self._link(db, request_key, result.key, media_stamp)
            self._drop_unused(db, max_bytes)

    def check_can_keep(self) -> None:
        """Nothing: a store that fails has not given the job."""

    @staticmethod
    def _drop_unused(db: sqlite3.Connection, max_bytes: int) -> None:
        total = db.execute("SELECT COALESCE(SUM(byte_count), 0) FROM results").fetchone()[0]
        rows = db.execute("SELECT key, byte_count FROM results ORDER BY used_at, rowid").fetchall()
        for row in rows[:-1]:
            if total <= max_bytes:
                return
            total -= row["byte_count"]
            db.execute("DELETE FROM results WHERE key = ?", (row["key"],))
            db.execute("DELETE FROM result_media WHERE result_key = ?", (row["key"],))
            db.execute("DELETE FROM request_results WHERE result_key = ?", (row["key"],))

    def result(self, key: str) -> StoredResult | None:
        with self.transaction() as db:
            db.execute("UPDATE results SET used_at = ? WHERE key = ?", (self._clock(), key))
            row = db.execute("SELECT * FROM results WHERE key = ?", (key,)).fetchone()
        return None if row is None else _result_of(row)

    def link_request(self, request_key: str, result_key: str, media_stamp: str) -> None:
        """Let another request find a result that answers it too."""
        with self.transaction() as db:
            self._link(db, request_key, result_key, media_stamp)

    @staticmethod
    def _link(
        db: sqlite3.Connection, request_key: str, result_key: str, media_stamp: str
    ) -> None:
        db.execute(
            "INSERT OR REPLACE INTO request_results VALUES (?, ?, ?)",
            (request_key, result_key, media_stamp),
        )
        db.execute(
            "DELETE FROM request_results WHERE result_key = ? AND rowid NOT IN (SELECT rowid "
            "FROM request_results WHERE result_key = ? ORDER BY rowid DESC LIMIT ?)",
            (result_key, result_key, _MAX_REQUESTS_OF_RESULT),
        )

    def result_of_request(
        self, request_key: str, is_current: Callable[[str], bool]
    ) -> StoredResult | None:
        """The result of an equal request, if its media has not changed since.

        Args:
            is_current: told the media stamp that was kept.
        """
        with self.transaction() as db:
            row = db.execute(
                "SELECT * FROM request_results WHERE request_key = ?", (request_key,)
            ).fetchone()
        if row is None or not is_current(row["media_stamp"]):
            return None
        return self.result(row["result_key"])

    def newest_result_of_media(self, reference: str) -> StoredResult | None:
        """The newest result of a video, by its reference in task data."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT results.* FROM results JOIN result_media ON result_key = key "
                "WHERE reference = ? ORDER BY created_at DESC LIMIT 1",
                (reference,),
            ).fetchone()
        return None if row is None else _result_of(row)

    # --- predictions under way -----------------------------------------------

    def due_posts(self, limit: int = 20) -> list[Post]:
        """Predictions to post now, the longest due first."""
        with self.transaction() as db:
            rows = db.execute(
                f"SELECT {_POST_COLUMNS}, prediction FROM posts "
                "WHERE state = ? AND next_attempt_at <= ? ORDER BY next_attempt_at LIMIT ?",
                (PostState.WAITING, self._clock(), limit),
            ).fetchall()
        return [_post_of(row) for row in rows]

    def next_post_at(self) -> float | None:
        """When the next prediction is due, in seconds since the epoch."""
        with self.transaction() as db:
            return db.execute(
                "SELECT MIN(next_attempt_at) FROM posts WHERE state = ?", (PostState.WAITING,)
            ).fetchone()[0]

    def begin_post(self, post_id: int) -> bool:
        """Count an attempt before it is made: a kill in its midst is then seen.

        True: no other process could have taken it.
        """
        with self.transaction() as db:
            db.execute("UPDATE posts SET attempts = attempts + 1 WHERE id = ?", (post_id,))
        return True

    def set_posted(self, post_id: int, prediction_id: int | None) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE posts SET state = ?, prediction_id = ?, error = NULL WHERE id = ?",
                (PostState.POSTED, prediction_id, post_id),
            )

    def set_refused(self, post_id: int, error: str) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE posts SET state = ?, error = ? WHERE id = ?",
                (PostState.REFUSED, _text(error), post_id),
            )

    def retry_post(self, post_id: int, error: str, after_seconds: float) -> None:
        with self.transaction() as db:
            db.execute(
                "UPDATE posts SET error = ?, next_attempt_at = ? WHERE id = ?",
                (_text(error), self._clock() + after_seconds, post_id),
            )

    def post_of_job(self, job_id: str) -> Post | None:
        with self.transaction() as db:
            row = db.execute(
                f"SELECT {_POST_COLUMNS}, prediction FROM posts WHERE job_id = ?", (job_id,)
            ).fetchone()
        return None if row is None else _post_of(row)

    def post_state(self, job_id: str) -> PostState | None:
        """How far a job's prediction is; None without one."""
        with self.transaction() as db:
            row = db.execute("SELECT state FROM posts WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else PostState(row["state"])

    def posts_of_jobs(self, job_ids: Sequence[str]) -> dict[str, Post]:
        """By job, for those that have one; the predictions themselves are left empty."""
        with self.transaction() as db:
            rows = db.execute(
                f"SELECT {_POST_COLUMNS}, NULL AS prediction FROM posts "
                f"WHERE job_id IN ({', '.join('?' * len(job_ids))})",
                list(job_ids),
            ).fetchall()
        return {row["job_id"]: _post_of(row) for row in rows}

    def post_counts(self) -> dict[PostState, int]:
        with self.transaction() as db:
            rows = db.execute("SELECT state, COUNT(*) AS n FROM posts GROUP BY state").fetchall()
        found = {PostState(row["state"]): row["n"] for row in rows}
        return {state: found.get(state, 0) for state in PostState}


_UNFINISHED_SQL = "({})".format(", ".join(f"'{state}'" for state in _UNFINISHED))


def _text(text: str | None) -> str | None:
    """As SQLite takes it: other people's text may have halves of characters."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _job_of(row: sqlite3.Row) -> Job:
    values = dict(row)
    values.update(
        kind=JobKind(row["kind"]),
        state=JobState(row["state"]),
        priority=Priority(row["priority"]),
        request={} if row["request"] is None else unpacked(row["request"]),
        posts_prediction=bool(row["posts_prediction"]),
        is_awaited=bool(row["is_awaited"]),
        left_out=None if row["left_out"] is None else json.loads(row["left_out"]),
    )
    return Job(**values)


def _post_of(row: sqlite3.Row) -> Post:
    values = dict(row)
    prediction = {} if row["prediction"] is None else unpacked(row["prediction"])
    values.update(state=PostState(row["state"]), prediction=prediction)
    return Post(**values)


def _result_of(row: sqlite3.Row) -> StoredResult:
    return StoredResult.from_json(row["key"], row["created_at"], unpacked(row["body"]))
