import dataclasses

import pytest

from converters.mask_store import RenumberedMasks
from converters.masks import decode_mask, mask_area
from converters.report import Report
from converters.selection import LabelPolicy, Selection, is_validation, select
from converters.types import Track
from tests.converters.cases import annotated_video, constant_rate_info, late, moving_track


def selected(video, **options):
    """(video, source frames, report) after selection."""
    report = Report()
    result = select(video, Selection(**options), report)
    return result.video, result.source_frames, report


def labels_of(video):
    return [(track.object_id, track.labels) for track in video.tracks]


def test_the_defaults_change_nothing():
    video = annotated_video()
    result, frames, report = selected(video)
    assert result.info == video.info and result.tracks == video.tracks
    assert frames == tuple(range(10)) and report == Report()


def test_every_nth_frame_is_numbered_anew_and_keeps_its_image_and_time():
    video, frames, report = selected(annotated_video(), every=4)
    assert frames == (0, 4, 8)
    assert video.file_names == ("clip/00000.jpg", "clip/00004.jpg", "clip/00008.jpg")
    assert (video.info.frame_count, video.info.fps) == (3, 6.25)
    assert video.info.frame_times_seconds == (0.0, 0.16, 0.32)
    assert video.info.duration_seconds == pytest.approx(0.48)
    assert [sorted(track.masks) for track in video.tracks] == [[0, 2], [1]]
    before = annotated_video().tracks[0]
    assert video.tracks[0].masks[2] == before.masks[8]
    after = selected(late(annotated_video()), every=4)[0].info
    assert after.frame_times_seconds == pytest.approx(video.info.frame_times_seconds)
    assert after.duration_seconds == pytest.approx(video.info.duration_seconds)
    assert video.tracks[0].scores == {0: before.scores[0], 2: before.scores[8]}
    assert report.dropped == {"frames (not selected)": 7, "masks (on frames not selected)": 5}


def test_annotated_frames_only():
    video, frames, _ = selected(annotated_video(), annotated_only=True)
    assert frames == (0, 1, 2, 4, 6, 7, 8, 9)
    assert video.file_names[3:5] == ("clip/00004.jpg", "clip/00006.jpg")
    assert sorted(video.tracks[1].masks) == [3]
    # What other options leave out is not annotated.
    _, frames, _ = selected(annotated_video(), annotated_only=True, every=2, category_map={"Car": None})
    assert frames == (4,)


def test_a_video_with_nothing_on_it_has_no_annotated_frames():
    video, frames, report = selected(annotated_video(tracks=[]), annotated_only=True)
    assert (frames, video.info.frame_count, video.file_names) == ((), 0, ())
    assert report.dropped == {"frames (not selected)": 10}


def test_labels_are_renamed_merged_and_left_out():
    info = constant_rate_info()
    tracks = [
        moving_track(info, [1], object_id=1, labels=("Car", "Auto")),
        moving_track(info, [1], object_id=2, labels=("Dog",)),
        moving_track(info, [1], object_id=3, labels=("Dog", "Car")),
        moving_track(info, [1], object_id=4, labels=()),
    ]
    mapping = {"Auto": "Car", "Dog": None}
    video, _, report = selected(annotated_video(tracks=tracks), category_map=mapping, default_label="?")
    assert labels_of(video) == [(1, ("Car",)), (3, ("Car",)), (4, ("?",))]
    assert report.dropped == {
        "objects (all labels left out by the category map)": 1,
        "labels (left out by the category map)": 1,
    }


@pytest.mark.parametrize(
    ("policy", "labels", "dropped", "changed"),
    [
        ("attributes", [(1, ("A", "B")), (2, ("A",))], {}, {}),
        ("first", [(1, ("A",)), (2, ("A",))], {"labels (after an object's first)": 1}, {}),
        ("each", [("1/A", ("A",)), ("1/B", ("B",)), (2, ("A",))], {}, {"objects written once a label": 1}),
        ("joined", [(1, ("A|B",)), (2, ("A",))], {}, {}),
    ],
)
def test_objects_with_several_labels_go_by_the_policy(policy, labels, dropped, changed):
    info = constant_rate_info()
    tracks = [
        moving_track(info, [1], object_id=1, labels=("A", "B")),
        moving_track(info, [1], object_id=2, labels=("A",)),
    ]
    video, _, report = selected(annotated_video(tracks=tracks), label_policy=policy)
    assert labels_of(video) == labels
    assert (report.dropped, report.changed) == (dropped, changed)


def test_several_labels_can_be_refused():
    track = moving_track(constant_rate_info(), [1], object_id="x", labels=("A", "B"))
    with pytest.raises(ValueError, match=r"object 'x': has labels \['A', 'B'\], must have one"):
        selected(annotated_video(tracks=[track]), label_policy=LabelPolicy.REFUSE)


def test_masks_of_low_scores_and_small_areas_are_dropped_and_counted():
    info = constant_rate_info()
    track = moving_track(info, range(10), speed=0.0)
    areas = {frame: mask_area(mask) for frame, mask in track.masks.items()}
    # Logit 0 is probability one half; frame 9 has no score.
    scores = {frame: float(frame - 4) for frame in range(9)}
    track = dataclasses.replace(track, scores=scores)
    video, _, report = selected(annotated_video(tracks=[track]), min_score=0.5)
    assert sorted(video.tracks[0].masks) == [4, 5, 6, 7, 8, 9]
    assert report.dropped == {"masks (score below 0.5)": 4}

    limit = sorted(areas.values())[5]
    video, _, report = selected(annotated_video(tracks=[track]), min_area=limit)
    kept = [frame for frame, area in areas.items() if area >= limit]
    assert sorted(video.tracks[0].masks) == kept
    assert report.dropped == {f"masks (smaller than {limit} pixels)": 10 - len(kept)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every=0 must be >= 1"),
        ({"min_score": 1.5}, r"min_score=1.5 must be in \[0, 1\]"),
        ({"min_score": float("nan")}, "min_score=nan"),
        ({"min_area": -1}, "min_area=-1 must be >= 0"),
        ({"label_policy": "some"}, "'some' is not a valid LabelPolicy"),
    ],
)
def test_options_that_break_their_rule_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Selection(**options)


def test_the_split_is_a_matter_of_name_and_seed_alone():
    names = [f"video {i}" for i in range(1000)]
    chosen = {name for name in names if is_validation(name, 0.2, seed=3)}
    assert 150 < len(chosen) < 250
    # A larger part holds the smaller one; another seed is another part.
    assert chosen < {name for name in names if is_validation(name, 0.4, seed=3)}
    assert chosen != {name for name in names if is_validation(name, 0.2, seed=4)}
    assert is_validation("a", 1.0, 0) and not is_validation("a", 0.0, 0)
    # The same on every machine and in every run.
    assert [is_validation(name, 0.5, 0) for name in ("a", "b", "c", "ü")] == [True, False, True, False]
    with pytest.raises(ValueError, match="1.5 must be in"):
        is_validation("a", 1.5, 0)


def test_masks_under_other_frame_numbers_are_not_read_until_asked_for():
    class Unread(dict):
        def __getitem__(self, key):
            raise AssertionError("read")

    masks = RenumberedMasks(Unread({3: None, 7: None}), {0: 3, 1: 7})
    assert list(masks) == [0, 1] and 1 in masks and 3 not in masks and len(masks) == 2
    with pytest.raises(AssertionError, match="read"):
        masks[1]


def test_selection_of_masks_on_disk_reads_the_right_ones(tmp_path):
    from converters.tracks_json import load_tracks, save_tracks

    save_tracks(tmp_path / "t.json", [annotated_video()])
    (read,) = load_tracks(tmp_path / "t.json")
    video, frames, _ = selected(read, every=3)
    for track, before in zip(video.tracks, annotated_video().tracks):
        for frame, mask in track.masks.items():
            assert (decode_mask(mask) == decode_mask(before.masks[frames[frame]])).all()


def test_a_summary_says_what_was_dropped_and_changed():
    report = Report()
    assert report.summary() == "0 videos, 0 frames, 0 objects, 0 masks"
    report.add_video(1)
    report.visible_frames(moving_track(constant_rate_info(), [1, 2]))
    report.visible_frames(Track(2, ("x",), {}))
    report.change("pixels moved", 0)
    report.change("pixels moved", 5)
    assert report.summary() == (
        "1 video, 1 frame, 1 object, 2 masks; dropped: 1 objects (on no frame); changed: 5 pixels moved"
    )
