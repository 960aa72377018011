"""Which picture a browser shows when: the right values of the tests of frame times, asked again.

The files are those of `tests.sam2_model.test_video.LATE`. Each picture tells its own index.
"""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from backend.preview import save_video
from converters.geometry import ls_frame_to_index
from sam2_model.video import open_frame_source
from tests.sam2_model.test_video import LATE
from tests.video_files import shown_index, write_video

FRAMERATE = 25
_SHOWN = """async ([data, times]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const video = document.createElement('video');
    video.muted = true;
    video.src = URL.createObjectURL(new Blob([bytes]));
    const event = name => new Promise((resolve, reject) => {
        video.addEventListener(name, resolve, { once: true });
        video.addEventListener('error', () => reject(video.error.message), { once: true });
    });
    await event('loadeddata');
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const pictures = [];
    for (const time of times) {
        const seeked = event('seeked');
        video.currentTime = time;
        await seeked;
        await new Promise(resolve => setTimeout(resolve, 50));
        canvas.getContext('2d').drawImage(video, 0, 0);
        pictures.push(canvas.toDataURL('image/png').split(',')[1]);
    }
    return pictures;
}"""


def shown_in(browser, path, ls_frames):
    """The index that the browser shows at the editor's time of each frame."""
    page = browser.new_page()
    times = [round((n - 1) / FRAMERATE / 0.002) * 0.002 + 0.002 for n in ls_frames]
    data = base64.b64encode(path.read_bytes()).decode()
    pictures = page.evaluate(_SHOWN, [data, times])
    page.close()
    return [shown_index(picture_of(data)) for data in pictures]


def picture_of(data):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


@pytest.mark.parametrize("name, arguments, start", LATE, ids=[f[0] for f in LATE])
def test_a_label_studio_frame_is_the_picture_that_the_browser_shows(
    browser, tmp_path, name, arguments, start
):
    path = write_video(tmp_path / name, **arguments)
    first = max(1, round(start * FRAMERATE) - 3)
    ls_frames = [1, *range(first, first + 12)]
    with open_frame_source(path) as source:
        times = source.info.frame_times_seconds
        expected = [ls_frame_to_index(n, FRAMERATE, times) for n in ls_frames]
        assert shown_in(browser, path, ls_frames) == expected


def test_a_preview_shows_the_same_picture_at_every_time(browser, tmp_path):
    name, arguments, _ = LATE[0]
    path, preview = write_video(tmp_path / name, **arguments), tmp_path / "preview.mp4"
    with open_frame_source(path) as source:
        save_video(preview, source, [], width=source.info.width)
    ls_frames = range(1, 37)  # to the end: 0.5 s of sound and 24 pictures
    assert shown_in(browser, preview, ls_frames) == shown_in(browser, path, ls_frames)
