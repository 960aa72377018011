"""Videos that can be looked at while they are written."""

import av
import numpy as np
import pytest

from backend.preview.growing import Still, finish, look, spread_stills, write_growing
from sam2_model.video import open_frame_source
from tests.video_files import TICKS_PER_SECOND, write_video

COUNT = 120
TICKS = [600 * i + 200 * (i % 3) for i in range(COUNT)]


LATE_TICKS = 6400


@pytest.fixture(params=[0, LATE_TICKS], ids=["", "sound_first"])
def source(tmp_path, request):
    path = write_video(
        tmp_path / "in.mp4", COUNT, frame_ticks=TICKS,
        with_audio=request.param > 0, shift_ticks=request.param,
    )
    with open_frame_source(path) as source:
        assert source.info.start_seconds == request.param / TICKS_PER_SECOND
        yield source


def playing_seconds(path):
    """As Chromium counts them."""
    with av.open(str(path)) as container:
        return container.duration / 1e6


@pytest.fixture
def grown(source, tmp_path):
    write_growing(tmp_path / "grown", source, [], lambda done, total: None)
    return tmp_path / "grown"


def test_a_finished_one_has_the_sources_size_and_times(source, grown, tmp_path):
    finish(tmp_path / "out.mp4", grown)
    with open_frame_source(tmp_path / "out.mp4") as out:
        assert (out.info.width, out.info.height) == (source.info.width, source.info.height)
        np.testing.assert_allclose(
            out.info.frame_times_seconds, source.info.frame_times_seconds, atol=1e-5
        )
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "grown", "out.mp4"}


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5, 0.77, 0.99, 1.0])
def test_wherever_it_has_come_to_a_look_is_a_whole_video(source, grown, tmp_path, share):
    data = grown.read_bytes()
    grown.write_bytes(data[: int(len(data) * share)])
    count = look(tmp_path / "out.mp4", grown, source.info, spread_stills(source), "being drawn")
    assert count == (COUNT if share == 1 else count)
    with open_frame_source(tmp_path / "out.mp4") as out:
        assert playing_seconds(out.path) == pytest.approx(source.info.duration_seconds, abs=1e-3)
        np.testing.assert_allclose(
            out.info.frame_times_seconds[:count], source.info.frame_times_seconds[:count],
            atol=1e-5,
        )
        if 0 < count < COUNT:
            last = source.frame(count - 1).astype(float)[16:]  # below the frame's number
            assert np.abs(out.frame(count - 1)[16:] - last).mean() < 12
            assert out.frame(count).mean() < 128  # dimmed


def test_stills_alone_are_dimmed_and_as_long_as_the_video(source, tmp_path):
    white = np.full((64, 96, 3), 255, np.uint8)
    assert look(tmp_path / "out.mp4", None, source.info, [Still(0.0, white)], "none") == 0
    with open_frame_source(tmp_path / "out.mp4") as out:
        assert out.info.duration_seconds == pytest.approx(source.info.duration_seconds, abs=1e-3)
        assert 80 < out.frame(0)[:20].mean() < 150
