"""The synced second video shows the masks, at the frame that the first one shows."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from backend.studio import SAMPLE_FPS, SAMPLE_SIZE
from converters.label_studio.lifespan import region_to_track
from converters.masks import decode_mask
from sam2_model.video import open_frame_source
from tests.e2e.objects import OPOSSUM

FRAMES = (1, 9, 16)
"""1-based, as the editor counts."""
_SHOWN = """number => [...document.querySelectorAll('canvas')]
    .filter(canvas => !canvas.closest('.konvajs-content'))[number]
    .toDataURL('image/png').split(',')[1]"""
_AT_FRAME = """seconds => [...document.querySelectorAll('video')]
    .every(v => !v.seeking && v.readyState >= 2 && Math.abs(v.currentTime - seconds) < 0.01)"""


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Preview", "video-preview")


def picture_of(editor, number):
    """What the editor shows of a video, at the sample's size."""
    shown = Image.open(io.BytesIO(base64.b64decode(editor.page.evaluate(_SHOWN, number))))
    width, height = SAMPLE_SIZE
    scale = min(shown.width / width, shown.height / height)
    left, top = (shown.width - width * scale) / 2, (shown.height - height * scale) / 2
    box = (left, top, left + width * scale, top + height * scale)
    return np.asarray(shown.convert("RGB").resize(SAMPLE_SIZE, box=box), np.int16)


def test_the_second_video_shows_the_masks_of_the_first_ones_frame(editor, studio, project, sample):
    task = studio.import_video(project, sample)
    editor.open_task(project, task)
    editor.draw_unlabelled(OPOSSUM)
    editor.ask(lambda: editor.page.keyboard.press("1"))
    (region,) = editor.regions()
    editor.wait_until_saved(region)
    with open_frame_source(sample) as source:
        track = region_to_track(region, source.info, SAMPLE_FPS)
    editor.open_task(project, task)  # the preview is of the newest track when it is opened
    for ls_frame in FRAMES:
        editor.go_to_frame(ls_frame)
        editor.page.wait_for_function(_AT_FRAME, arg=(ls_frame - 1) / SAMPLE_FPS + 0.002)
        editor.page.wait_for_timeout(500)  # drawn with the next animation frame
        editor.picture(f"preview-frame-{ls_frame}")
        plain, masked = picture_of(editor, 0), picture_of(editor, 1)
        changed = np.abs(plain - masked).max(axis=2) > 12
        mask = decode_mask(track.masks[ls_frame - 1])
        inside = ndimage.binary_erosion(mask, iterations=6)
        near = ndimage.binary_dilation(mask, iterations=12)
        near[:, :][: np.flatnonzero(mask.any(axis=1))[0]] = True  # captions stand above it
        assert changed[inside].mean() > 0.9, ls_frame
        assert changed[~near].mean() < 0.02, ls_frame
