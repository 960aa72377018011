"""What `doctor` looks at of a running service: its files, and whether it answers."""

from __future__ import annotations

import contextlib
import resource
import sqlite3
from pathlib import Path
from typing import Iterator

from backend import session_store
from backend.findings import Findings, broken, note, ok
from backend.jobs import store
from backend.processes import get_json
from backend.settings import Settings

_FEW_FILES = 1024
"""Each request, open video and decoder takes some."""


def service_findings(settings: Settings, backend_url: str) -> Findings:
    """The service at its address, and the files that it keeps. Changes nothing."""
    yield from _answer_findings(settings, backend_url)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        yield note(f"a process may open {soft} files here", f"raise it to {_FEW_FILES} (ulimit -n)")
    for name, version in (
        ("jobs.sqlite3", store.VERSION), ("sessions.sqlite3", session_store.VERSION)
    ):
        path = settings.data_folder / name
        if path.exists():
            yield from _file_findings(path, version)
    jobs = settings.data_folder / "jobs.sqlite3"
    if jobs.exists():
        with contextlib.suppress(sqlite3.Error):  # said above
            yield from _work_findings(jobs)


def _answer_findings(settings: Settings, backend_url: str) -> Findings:
    try:
        health = get_json(f"{backend_url}/health")
        state, version = health["model"], health["model_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield note(
            f"no service answers at {backend_url} ({error})",
            "start it (sam2-label-studio serve), or name its address with --backend-url",
        )
        return
    if state == "failed":
        yield broken(
            f"{backend_url}: its model cannot be loaded: {health.get('detail', 'no reason given')}",
            "mend that and start the service again",
        )
        return
    yield ok(f"{backend_url}: up, {version} is {state}")
    if version != settings.model_version:
        yield note(
            f"it serves {version}, these settings name {settings.model_version}",
            "a fine-tuned model may have been chosen since (model.json in SAM2_DATA_FOLDER), or "
            "the service has other settings",
        )


def _file_findings(path: Path, known: int) -> Findings:
    try:
        with _reading(path) as db:
            found = db.execute("PRAGMA user_version").fetchone()[0]
            problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        yield broken(f"{path} cannot be read: {error}", "restore it from a backup, or move it away")
        return
    if problem != "ok":
        yield broken(
            f"{path} is damaged: {problem}",
            "stop the service, and restore it from a backup or with sqlite3's .recover",
        )
    elif found > known:
        yield broken(
            f"{path} is of version {found}, this program knows {known}",
            "run the newer program, or put back the file from before (docs/operations.md)",
        )
    elif found < known:
        yield note(
            f"{path} is of version {found}", "the service upgrades it at its start, and keeps a copy"
        )
    else:
        yield ok(f"{path}: whole, version {found}, {path.stat().st_size / 2**20:.1f} MiB")


def _work_findings(path: Path) -> Findings:
    with _reading(path) as db:
        jobs = dict(db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state"))
        posts = dict(db.execute("SELECT state, COUNT(*) FROM posts GROUP BY state"))
        reasons = dict(
            db.execute("SELECT state, error FROM posts WHERE error IS NOT NULL ORDER BY id")
        )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(jobs.items())) or "none"
    yield ok(f"jobs: {counts}")
    if posts.get("waiting") and "waiting" in reasons:
        yield note(
            f"{posts['waiting']} predictions wait for Label Studio: {reasons['waiting']}",
            "they are posted once it takes them; /ui has each with its reason",
        )
    if posts.get("refused"):
        yield note(
            f"{posts['refused']} predictions were refused, the last one: {reasons.get('refused')}",
            "/ui has each with its reason",
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    # The service may be writing: its lock is waited for, and nothing is changed.
    with contextlib.closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    ) as db:
        yield db
