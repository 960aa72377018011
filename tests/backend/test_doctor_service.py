"""What the doctor says of the service's own files, and of the service at its address."""

import contextlib
import sqlite3

import pytest

from backend.doctor_service import service_findings
from backend.findings import Level
from backend.jobs.store import VERSION, JobStore
from backend.jobs.types import JobState
from backend.settings import Settings
from tests.backend.http_server import Reply, serving_site
from tests.backend.jobs.conftest import spec

PREDICTION = {"result": [{"id": "a"}], "score": 0.5, "model_version": "v"}


@pytest.fixture
def settings(tmp_path):
    return Settings(data_folder=tmp_path, media_cache=tmp_path / "cache")


def found(settings, url="http://127.0.0.1:9"):
    return [(f.level, f.text, f.fix) for f in service_findings(settings, url)]


def test_what_waits_and_what_was_refused_is_told_with_its_reason(settings):
    with contextlib.closing(JobStore(settings.data_folder / "jobs.sqlite3")) as store:
        for number, tell in enumerate((store.retry_post, store.set_refused)):
            job, _ = store.add(spec(str(number), posts_prediction=True))
            store.finish(job.id, JobState.DONE, prediction=PREDICTION)
            post = store.post_of_job(job.id)
            more = (60.0,) if tell == store.retry_post else ()
            tell(post.id, f"reason {number}", *more)
        texts = [text for _, text, _ in found(settings)]  # while the service has it open
    assert any("1 predictions wait for Label Studio: reason 0" in text for text in texts)
    assert any("1 predictions were refused, the last one: reason 1" in text for text in texts)
    assert "jobs: 2 done" in texts and any(f"whole, version {VERSION}" in text for text in texts)


def test_a_damaged_file_and_one_of_another_version_are_told(settings):
    path = settings.data_folder / "jobs.sqlite3"
    JobStore(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    assert any(
        level is Level.BROKEN and "version 99" in text for level, text, _ in found(settings)
    )
    path.write_bytes(b"not a database " * 1000)
    assert any(
        level is Level.BROKEN and "cannot be read" in text and "backup" in fix
        for level, text, fix in found(settings)
    )


@pytest.mark.parametrize(
    ("answer", "level", "part"),
    [
        (b'{"model": "ready", "model_version": "sam2:demo"}', Level.OK, "is ready"),
        (b'{"model": "ready", "model_version": "other"}', Level.NOTE, "it serves other"),
        (b'{"model": "failed", "model_version": "x", "detail": "no file"}', Level.BROKEN, "no file"),
        (b"<html>", Level.NOTE, "no service answers"),
        (b"[]", Level.NOTE, "no service answers"),
    ],
)
def test_the_service_is_asked_how_it_is(settings, answer, level, part):
    with serving_site() as site:
        site.replies["/health"] = Reply(answer)
        assert any(
            said is level and part in text for said, text, _ in found(settings, site.url)
        )
