"""Whatever stands in a file: a reader gives videos or a ValueError that names the file."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.coco import load_coco, save_coco, to_coco
from converters.dataset import check_videos
from converters.formats import recognise
from converters.report import Report
from converters.sav import load_sav, save_sav
from converters.tracks_json import load_tracks, save_tracks
from converters.youtube_vis import load_youtube_vis, save_youtube_vis
from tests.converters.cases import annotated_video, constant_rate_info, moving_track

INFO = constant_rate_info(3, width=8, height=6)
VIDEO = annotated_video(
    "v",
    info=INFO,
    tracks=[moving_track(INFO, [0, 2], object_id=i, labels=("a", "b")) for i in (1, 2)],
)

READERS = {
    "coco": (save_coco, load_coco, "x.json"),
    "coco polygons": (lambda p, v: save_coco(p, v, polygons=True), load_coco, "x.json"),
    "youtube-vis": (save_youtube_vis, load_youtube_vis, "x.json"),
    "tracks": (save_tracks, load_tracks, "x.json"),
    "sav": (lambda p, v: save_sav(p.parent, v), load_sav, "v_manual.json"),
}

odd_values = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2, 3, 7, 10**6, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308]),
    st.sampled_from(["", "0", "a", "\u0000", "../x", "é", "Q3", "o" * 50, "\ud800"]),
    st.sampled_from([[], {}, [[]], [0], {"size": [6, 8], "counts": [48]}, [1, 1, 3, 1, 3, 3]]),
)


def places(value, place=()):
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


@pytest.mark.parametrize(("save", "load", "name"), READERS.values(), ids=READERS.keys())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_changed_file_is_read_or_refused_with_its_name(tmp_path, save, load, name, data):
    path = tmp_path / name
    path.unlink(missing_ok=True)
    save(path, [VIDEO])
    document = json.loads(path.read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        *steps, last = data.draw(st.sampled_from([p for p in places(document) if p]))
        at = document
        for step in steps:
            at = at[step]
        if isinstance(at, dict) and data.draw(st.booleans()):
            del at[last]
        else:
            at[last] = copy.deepcopy(data.draw(odd_values))
    path.write_text(json.dumps(document))
    for report in (None, Report()):
        try:
            videos = list(load(path, report=report))
            # What was read can be checked, and so written.
            check_videos(videos, labels_needed=False)
        except ValueError as error:
            assert name in str(error) or "repeat" in str(error) or "empty name" in str(error)
    try:
        recognise(path)
    except ValueError as error:
        assert name in str(error)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cut=st.integers(0, 5000), junk=st.binary(max_size=4))
def test_a_file_cut_short_is_refused(tmp_path, cut, junk):
    whole = json.dumps(to_coco([VIDEO])).encode()
    path = tmp_path / "x.json"
    path.write_bytes(whole[: min(cut, len(whole) - 1)] + junk)
    try:
        json.loads(path.read_bytes())
    except ValueError:
        with pytest.raises(ValueError, match="x.json"):
            list(load_coco(path))
