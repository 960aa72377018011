"""A real Label Studio, the service beside it and a browser; `make e2e` sets up what they need."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from backend.label_studio_client import LabelStudioClient
from backend.label_studio_process import Account
from backend.studio import Studio, running_studio, write_sample
from tests.e2e.editor import Editor

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / ".venv-label-studio" / "bin" / "label-studio"
EMPTY_DATA = ROOT / ".venv-label-studio" / "empty"
CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium"))
CHROMIUM_OPTIONS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]
FRAME_COUNT = 16
SHORT_FRAME_COUNT = 4
ANSWER_SECONDS = 600.0
"""So that a slow machine changes no answer."""
ACCOUNT = Account(
    email="admin@example.com",
    password="e2e-password",
    legacy_token="0123456789abcdef0123456789abcdef01234567",
)


def pytest_sessionstart() -> None:
    # As Ctrl-C, or what was started would go on when the tests are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    missing = [] if PROGRAM.exists() and EMPTY_DATA.exists() else [f"{PROGRAM}: make e2e"]
    if CHROMIUM is None:
        missing.append("chromium: apt-get install chromium, or set CHROMIUM to a browser's path")
    if missing:
        pytest.exit(f"the e2e tests need {'; '.join(missing)}", returncode=2)


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are kept."""
    folder = ROOT / "out" / "e2e"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def studio(tmp_path_factory, pictures) -> Iterator[Studio]:
    """Both servers; their logs are kept beside the pictures, also of a run that fails."""
    folder = tmp_path_factory.mktemp("studio")
    try:
        with running_studio(
            PROGRAM, folder, account=ACCOUNT, empty_data=EMPTY_DATA, answer_seconds=ANSWER_SECONDS
        ) as running:
            yield running
    finally:
        for log in folder.glob("*.log"):
            shutil.copy(log, pictures)


@pytest.fixture(scope="session")
def label_studio(studio) -> LabelStudioClient:
    """Its API, asked apart from the editor."""
    return LabelStudioClient(studio.label_studio_url, ACCOUNT.legacy_token)


@pytest.fixture(scope="session")
def sample(tmp_path_factory) -> Path:
    """An opossum on a snowboard, with people behind it."""
    path = tmp_path_factory.mktemp("sample") / "opossum.mp4"
    return write_sample(PROGRAM, path, frame_count=FRAME_COUNT)


@pytest.fixture(scope="session")
def short_sample(tmp_path_factory) -> Path:
    """Its first frames."""
    path = tmp_path_factory.mktemp("sample") / "short.mp4"
    return write_sample(PROGRAM, path, frame_count=SHORT_FRAME_COUNT)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def signed_in(browser, studio, pictures):
    """The browser's context in which the account is signed in."""
    context = browser.new_context(viewport={"width": 1440, "height": 1050})
    page = context.new_page()
    Editor(page, studio.label_studio_url, pictures).log_in(ACCOUNT.email, ACCOUNT.password)
    page.close()
    yield context
    context.close()


@pytest.fixture
def editor(signed_in, studio, pictures, request) -> Iterator[Editor]:
    """The labeling screen in a page of its own; how it ended is kept as a picture."""
    page = signed_in.new_page()
    opened = Editor(page, studio.label_studio_url, pictures)
    yield opened
    opened.picture(f"end-{request.node.name}")
    page.close()
