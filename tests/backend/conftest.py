"""The real predictor with the embedded weights, real media files, and a Label Studio of sorts."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from PIL import Image

from backend.app import create_app
from backend.model import load_model, load_tracker
from backend.settings import Settings
from sam2_model.checkpoints import resolve_checkpoint
from tests.backend.http_server import Reply, serving_site
from tests.backend.label_studio_site import KEY, serving_label_studio
from tests.backend.quick_model import QuickModel
from tests.redis_server import serving_redis
from tests.video_files import TICKS_PER_FRAME, write_video

# `make fuzz`: other requests each time, and many.
hypothesis_settings.register_profile("fuzz", max_examples=300)

FRAME_COUNT = 8
SIZE = (320, 240)
"""Width and height: those of the captured payloads' media."""


@pytest.fixture(autouse=True)
def process_as_it_was():
    """A command line that is run in this process sets it up for itself: how it logs, and to
    whom its files are open."""
    root, mask = logging.getLogger(), os.umask(0o077)
    os.umask(mask)
    level = root.level
    yield
    os.umask(mask)
    root.setLevel(level)
    root.handlers[:] = [h for h in root.handlers if type(h) is not logging.StreamHandler]


def payload(name: str) -> dict:
    """A captured request, one that may be changed."""
    path = Path(__file__).with_name("data") / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def picture(index: int) -> np.ndarray:
    """A bright disc that moves over a dark, grainy ground."""
    width, height = SIZE
    rows, columns = np.mgrid[:height, :width]
    grain = np.random.default_rng(index).integers(0, 40, (height, width, 3))
    disc = (columns - 110 - 8 * index) ** 2 + (rows - 90 - 4 * index) ** 2 < 40**2
    grain[disc] += np.array([180, 120, 40])
    return grain.astype(np.uint8)


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """The embedded model's weights."""
    return resolve_checkpoint("demo")


@pytest.fixture(scope="session")
def model(checkpoint):
    """The real one, loaded once for all tests."""
    return load_model(Settings(checkpoint=str(checkpoint), device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def tracker(checkpoint):
    """The real predictor's, for what runs without a service."""
    return load_tracker(Settings(checkpoint=str(checkpoint), device="cpu", dtype="float32"))


@pytest.fixture(scope="session")
def media_root(tmp_path_factory) -> Path:
    """`n25.mp4`, `late.mp4` (0.2 s of sound first) and `sub/f0.jpg` to `sub/f5.jpg`, all of
    the same moving disc."""
    root = tmp_path_factory.mktemp("media")
    pictures = [picture(index) for index in range(FRAME_COUNT)]
    write_video(root / "n25.mp4", FRAME_COUNT, size=SIZE, pictures=pictures)
    write_video(
        root / "late.mp4", FRAME_COUNT, size=SIZE, pictures=pictures,
        with_audio=True, shift_ticks=5 * TICKS_PER_FRAME,
    )
    (root / "sub").mkdir()
    for index in range(6):
        Image.fromarray(pictures[index]).save(root / "sub" / f"f{index}.jpg", quality=95)
    return root


@pytest.fixture
def label_studio(media_root):
    """A site that serves the captured payloads' uploads to those who know the key."""
    with serving_site() as site:
        video = (media_root / "n25.mp4").read_bytes()

        def upload(asked):
            if asked.headers.get("Authorization") != "Token secret-key":
                return Reply(status=401)
            return Reply(video, headers={"Content-Type": "video/mp4"})

        site.replies["/data/upload/1/ef9e5fd2-n25.mp4"] = upload
        # As from Label Studio, which gives its static files to everyone.
        site.replies["/static/samples/opossum_snow.mp4"] = Reply(
            video, headers={"Content-Type": "video/mp4"}
        )
        yield site


@pytest.fixture
def settings(label_studio, media_root, tmp_path) -> Settings:
    return Settings(
        label_studio_url=label_studio.url,
        label_studio_api_key="secret-key",
        label_studio_local_files_root=media_root,
        media_cache=tmp_path / "cache",
        data_folder=tmp_path / "service",
        device="cpu",
        dtype="float32",
    )


@pytest.fixture
def make_client(settings, model):
    """A client of the app with the real model; keywords change the settings.

    `track` stands for the model's own.
    """
    services = []

    def make(*, load=None, track=None, **changes):
        used = model if track is None else dataclasses.replace(model, track=track)
        app = create_app(
            dataclasses.replace(settings, **changes), load=load or (lambda _: used)
        )
        services.append(app.extensions["sam2"])
        return app.test_client()

    yield make
    for service in services:
        service.stop()


@pytest.fixture
def client(make_client):
    return make_client()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    with serving_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


# --- the service around a quick model ----------------------------------------


@pytest.fixture
def quick() -> QuickModel:
    return QuickModel()


@pytest.fixture
def studio():
    """A Label Studio that takes predictions."""
    with serving_label_studio() as site:
        yield site


@pytest.fixture
def make_quick_client(quick, studio, media_root, tmp_path):
    """A client of the app with the quick model; keywords change the settings."""
    services = []

    def make(load=None, **changes):
        settings = Settings(
            label_studio_url=studio.url,
            label_studio_api_key=KEY,
            label_studio_local_files_root=media_root,
            media_cache=tmp_path / "cache",
            data_folder=tmp_path / "service",
        )
        app = create_app(dataclasses.replace(settings, **changes), load=load or quick.load)
        services.append(app.extensions["sam2"])
        return app.test_client()

    yield make
    for service in services:
        service.stop()
