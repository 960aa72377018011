"""What the readers make of other tools' files, and of files that are wrong."""

import copy
import json
import pickle

import numpy as np
import pytest

from converters.coco import load_coco, to_coco
from converters.mask_store import StoredMasks
from converters.masks import decode_mask, encode_mask
from converters.tracks_json import load_tracks, save_tracks
from converters.types import AnnotatedVideo, Track
from converters.youtube_vis import load_youtube_vis, to_youtube_vis
from tests.converters.cases import annotated_video, constant_rate_info, moving_track

SQUARE = {"size": [4, 6], "counts": [5, 2, 2, 2, 13]}
SQUARE_MASK = np.zeros((4, 6), bool)
SQUARE_MASK[1:3, 1:3] = True


def changed(document, *steps_and_value):
    """A deep copy with one value replaced; a value of `del` removes it."""
    *steps, value = steps_and_value
    document = copy.deepcopy(document)
    at = document
    for step in steps[:-1]:
        at = at[step]
    if value == "del":
        del at[steps[-1]]
    else:
        at[steps[-1]] = value
    return document


def load(reader, tmp_path, document):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    return list(reader(path))


# --- COCO ---------------------------------------------------------------------


def coco_image(image_id, file_name, **more):
    return {"id": image_id, "file_name": file_name, "width": 6, "height": 4, **more}


def coco_object(number, image_id, **more):
    return {
        "id": number, "image_id": image_id, "category_id": 7, "iscrowd": 0,
        "segmentation": SQUARE, "area": 4, "bbox": [1, 1, 2, 2], **more,
    }  # fmt: skip


def coco(images, annotations, **more):
    categories = [{"id": 7, "name": "Car"}, {"id": 9, "name": "Dog"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        {"size": [4, 6], "counts": encode_mask(SQUARE_MASK).counts},
        [[1, 1, 3, 1, 3, 3, 1, 3]],
        [[1.0, 1, 2, 1, 2, 3, 1, 3], [2, 1, 3, 1, 3, 3, 2, 3]],
    ],
    ids=["uncompressed", "compressed", "polygon", "two polygons"],
)
def test_coco_segmentations_of_every_kind_are_read(tmp_path, segmentation):
    document = coco([coco_image(1, "a.jpg")], [coco_object(1, 1, segmentation=segmentation)])
    (video,) = load(load_coco, tmp_path, document)
    (track,) = video.tracks
    np.testing.assert_array_equal(decode_mask(track.masks[0]), SQUARE_MASK)


def test_coco_images_without_videos_or_tracks_are_videos_of_one_frame(tmp_path):
    document = coco(
        [coco_image(2, "x/b.jpg"), coco_image(1, "x/a.jpg")],
        [coco_object(5, 1), coco_object(6, 2, category_id=9), coco_object(7, 2)],
    )
    first, second = load(load_coco, tmp_path, document)
    assert (first.name, first.file_names) == ("x/b", ("x/b.jpg",))
    assert [(t.object_id, t.labels) for t in first.tracks] == [
        ("annotation 6", ("Dog",)),
        ("annotation 7", ("Car",)),
    ]
    assert (second.name, len(second.tracks)) == ("x/a", 1)


def test_coco_images_with_tracks_but_no_videos_are_grouped_by_folder(tmp_path):
    document = coco(
        [coco_image(i, f"x/{i}.jpg") for i in (10, 9)] + [coco_image(1, "top.jpg")],
        [coco_object(i, i, track_id=3) for i in (9, 10)],
    )
    first, second = load(load_coco, tmp_path, document)
    assert (first.name, first.file_names) == ("x", ("x/9.jpg", "x/10.jpg"))
    assert [(t.object_id, sorted(t.masks)) for t in first.tracks] == [(3, [0, 1])]
    # It would be called as the file; the other video has that name already.
    assert (second.name, second.file_names, second.tracks) == ("x-1", ("top.jpg",), ())


def test_coco_frames_are_in_the_order_of_frame_id_from_wherever_it_counts(tmp_path):
    images = [
        coco_image(1, "v/c.jpg", video_id="v", frame_id=30),
        coco_image(2, "v/a.jpg", video_id="v", frame_id=10),
    ]
    document = coco(images, [coco_object(1, 1, instance_id="x")], videos=[
        {"id": "v", "name": "clip", "fps": 5}, {"id": "w", "width": 6, "height": 4},
    ])  # fmt: skip
    first, second = load(load_coco, tmp_path, document)
    assert (first.name, first.file_names) == ("clip", ("v/a.jpg", "v/c.jpg"))
    assert (first.info.fps, first.info.frame_times_seconds) == (5.0, (0.0, 0.2))
    assert [(t.object_id, list(t.masks)) for t in first.tracks] == [("x", [1])]
    # A video without an image is one all the same.
    assert (second.name, second.info.frame_count) == ("w", 0)


def test_coco_is_read_whatever_the_order_of_its_sections(tmp_path):
    document = to_coco([annotated_video()])
    backwards = dict(reversed(document.items()))
    assert [[dict(t.masks) for t in video.tracks] for video in load(load_coco, tmp_path, backwards)] == [
        [dict(t.masks) for t in video.tracks] for video in load(load_coco, tmp_path, document)
    ]


def test_coco_labels_of_an_object_are_those_of_all_its_annotations(tmp_path):
    document = coco(
        [coco_image(i, f"{i}.jpg", video_id=1, frame_id=i) for i in (1, 2)],
        [
            coco_object(1, 1, track_id=1, attributes={"labels": ["Car", "Red"]}),
            coco_object(2, 2, track_id=1, category_id=9, iscrowd=1),
        ],
    )
    (video,) = load(load_coco, tmp_path, document)
    assert [t.labels for t in video.tracks] == [("Car", "Red", "Dog")]


COCO = coco([coco_image(1, "a/1.jpg"), coco_image(2, "a/2.jpg")], [coco_object(1, 1), coco_object(2, 2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("annotations", 1, "image_id", 3), r"annotations\[1\].image_id: 3 is not the id of an image"),
        (("annotations", 1, "image_id", "del"), r"annotations\[1\]: has no 'image_id'"),
        (("annotations", 1, "category_id", 8), r"annotations\[1\].category_id: 8 is not the id of a cat"),
        (("annotations", 0, "id", "del"), r"annotations\[0\]: has no 'id'"),
        (("annotations", 0, "track_id", 1.5), r"annotations\[0\].track_id: must be a whole number"),
        (("annotations", 0, "segmentation", 5), r"annotations\[0\].segmentation: must be an array"),
        (("annotations", 0, "segmentation", "size", [6, 4]), r"segmentation.size: is 6 x 4, its picture has 4 x 6"),
        (("annotations", 0, "segmentation", "size", [4, -6]), r"segmentation.size\[1\]: must be >= 1"),
        (("annotations", 0, "segmentation", "size", [4]), r"segmentation.size: must be \[height, width\]"),
        (("annotations", 0, "segmentation", "counts", [5, 2]), r"segmentation.counts: .*cover 7 pixels"),
        (("annotations", 0, "segmentation", "counts", [-1, 25]), r"segmentation.counts: .*hold -1"),
        (("annotations", 0, "segmentation", "counts", [24.5]), r"segmentation.counts: .*hold 24.5"),
        # Neither the runs nor the size they claim are allocated.
        (("annotations", 0, "segmentation", "counts", [10**15]), r"segmentation.counts: .*hold 10{15}"),
        (("annotations", 0, "segmentation", "size", [2**31, 2**31]), r"counts: .*at most \d+ pixels"),
        (("annotations", 0, "segmentation", "counts", "PPPPPPPPPP7"), r"segmentation.counts: .*too large"),
        (("annotations", 0, "segmentation", "counts", "55"), r"segmentation.counts: .*cover 10 pixels"),
        (("annotations", 0, "segmentation", "counts", "5P"), r"segmentation.counts: .*end inside a number"),
        (("annotations", 0, "segmentation", "counts", "\u00e9"), r"segmentation.counts: .*characters"),
        (("annotations", 0, "segmentation", "counts", None), r"segmentation.counts: .*must be a str"),
        (("annotations", 0, "segmentation", [[1, 1, 2, 2]]), r"segmentation\[0\]: has 4 numbers"),
        (("annotations", 0, "segmentation", [[1, 1, 2, 2, 3, 3, 4]]), r"segmentation\[0\]: has 7 numbers"),
        (("annotations", 0, "segmentation", [[1, 1, 2, 2, 3, "x"]]), r"segmentation\[0\]\[5\]: .*'x'"),
        (("annotations", 0, "segmentation", [[1, 1, 2, 2, 3, 1e12]]), r"\[0\]\[5\]: .*too far outside"),
        (("images", 0, "width", 0), r"images\[0\].width: must be >= 1, is 0"),
        (("images", 0, "file_name", ""), r"images\[0\].file_name: must be a text"),
        (("images", 1, "id", 1), r"images\[1\].id: 1 is used twice"),
        (("images", 0, "frame_id", -1), r"images\[0\].frame_id: must be >= 0, is -1"),
        (("images", 0, "frame_id", True), r"images\[0\].frame_id: must be a whole number, is True"),
        (("categories", 1, "id", 7), r"categories\[1\].id: 7 is used twice"),
        (("categories", 0, "name", None), r"categories\[0\].name: must be a text"),
        (("videos", [{"id": 1, "width": 6}]), r"videos\[0\]: has no 'height'"),
        (("videos", [{"id": 1, "width": 6, "height": 4, "fps": -1}]), r"videos\[0\].fps: must be >= 0"),
    ],
)
def test_coco_errors_name_the_file_the_place_and_the_rule(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"x\.json: .*" + message):
        load(load_coco, tmp_path, changed(COCO, *change))


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        # One object, two masks on a frame.
        ([coco_image(1, "a.jpg")], [coco_object(1, 1, track_id=4), coco_object(2, 1, track_id=4)],
         r"annotations\[1\]: object 4 of image 1: .*second mask"),
        ([coco_image(1, "a.jpg", video_id=3, frame_id=0), coco_image(2, "b.jpg", video_id=3, frame_id=0)],
         [], r"images\[1\].frame_id: 0 is also that of image 1"),
        ([coco_image(1, "a.jpg", video_id=3), coco_image(2, "b.jpg", video_id=3) | {"width": 7}],
         [], r"images\[1\]: has 7 x 4 pixels, the video '3' has 6 x 4"),
    ],
)  # fmt: skip
def test_coco_videos_that_contradict_themselves_are_refused(tmp_path, images, annotations, message):
    with pytest.raises(ValueError, match=message):
        load(load_coco, tmp_path, coco(images, annotations))


def test_nan_in_a_polygon_is_refused_with_its_place(tmp_path):
    path = tmp_path / "x.json"
    document = coco(
        [coco_image(1, "a.jpg")], [coco_object(1, 1, segmentation=[[0, 0, 1, float("nan"), 1, 1]])]
    )
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"annotations\[0\].segmentation\[0\].*NaN"):
        list(load_coco(path))


# --- YouTube-VIS --------------------------------------------------------------

YOUTUBE_VIS = to_youtube_vis([annotated_video("one"), annotated_video("two")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("annotations", 2, "segmentations", 1, "counts", [1]),
            r"annotations\[2\].segmentations\[1\].counts:",
        ),
        (("annotations", 2, "segmentations", 1, "size", "del"), r"segmentations\[1\]: has no 'size'"),
        (("annotations", 2, "segmentations", 1, "size", [1, 3072]), r"segmentations\[1\].size: is 1 x 3072"),
        (("annotations", 1, "segmentations", [None]), r"annotations\[1\].segmentations: has 1 items"),
        (("annotations", 1, "segmentations", 5), r"annotations\[1\].segmentations: must be an array, is 5"),
        (("annotations", 1, "iscrowd", 2), r"annotations\[1\].iscrowd: must be 0 or 1, is 2"),
        (("annotations", 3, "video_id", 5), r"annotations\[3\].video_id: 5 is not the id of a video"),
        (("annotations", 3, "category_id", 5), r"annotations\[3\].category_id: 5 is not the id"),
        (("annotations", 3, "id", 3), r"annotations\[3\].id: 3 is used twice"),
        (("videos", 1, "id", 1), r"videos\[1\].id: 1 is used twice"),
        (("videos", 0, "length", 9), r"videos\[0\].length: is 9 for 10 file_names"),
        (("videos", 0, "length", -3), r"videos\[0\].length: must be >= 0"),
        (("videos", 0, "height", 49), r"annotations\[0\].segmentations\[0\].size: is 48 x 64, its picture has 49"),
        (("videos", 0, "file_names", 3, 7), r"videos\[0\].file_names\[3\]: must be a text, is 7"),
    ],
)
def test_youtube_vis_errors_name_the_file_the_place_and_the_rule(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"x\.json: .*" + message):
        load(load_youtube_vis, tmp_path, changed(YOUTUBE_VIS, *change))


def test_youtube_vis_needs_no_file_names_and_no_boxes(tmp_path):
    document = changed(YOUTUBE_VIS, "videos", 0, "file_names", "del")
    for annotation in document["annotations"]:
        del annotation["bboxes"], annotation["areas"]
    first, second = load(load_youtube_vis, tmp_path, document)
    assert (first.name, first.file_names, first.info.frame_count) == ("1", (), 10)
    assert second.name == "two"


# --- tracks.json --------------------------------------------------------------


def tracks_document(tmp_path):
    save_tracks(tmp_path / "t.json", [annotated_video("one"), annotated_video("two")])
    return json.loads((tmp_path / "t.json").read_text())


def test_tracks_json_loses_nothing(tmp_path):
    info = constant_rate_info(4)
    object.__setattr__(info, "frame_times_seconds", (0.0, 0.1, 0.5, 0.75))
    tracks = (
        moving_track(info, [3, 1], object_id="ü", labels=("Car", "Red")),
        Track(5, (), {0: encode_mask(np.zeros((48, 64), bool))}, {0: -4.25, 2: 1e-3}),
        Track(np.int64(7), ("Dog",), {}),
    )
    video = AnnotatedVideo("clip ü", info, tracks, tuple(f"f/{i}.png" for i in range(4)))
    save_tracks(tmp_path / "t.json", iter([video]))
    (read,) = load_tracks(tmp_path / "t.json")
    assert (read.name, read.info, read.file_names) == (video.name, info, video.file_names)
    for before, after in zip(tracks, read.tracks, strict=True):
        assert (after.object_id, after.labels) == (before.object_id, before.labels)
        assert dict(after.masks) == dict(before.masks)
        assert after.scores == before.scores
    assert list(load_tracks(written_empty(tmp_path))) == []


def written_empty(tmp_path):
    save_tracks(tmp_path / "empty.json", [])
    return tmp_path / "empty.json"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("format", "other"), "format: is 'other', must be 'sam2-tracks'"),
        (("format", "del"), "has no 'format' before it"),
        (("version", 2), "version: is 2, must be 1"),
        (("version", "del"), "has no 'version' before it"),
        (("videos", 1, "name", ""), r"videos\[1\].name: must be a text"),
        (("videos", 1, "info", "del"), r"videos\[1\]: must have 'info', and before 'tracks'"),
        (("videos", 0, "info", "width", 63), r"videos\[0\].tracks\[0\].masks\[0\].counts: .*cover 3072"),
        (("videos", 0, "info", "frame_count", 9), r"frame_times_seconds: has 10 items for frame_count 9"),
        (("videos", 0, "info", "fps", "x"), r"videos\[0\].info.fps: must be a finite number"),
        (
            ("videos", 0, "tracks", 0, "masks", 2, [10, "0"]),
            r"tracks\[0\].masks\[2\]\[0\]: is 10, must be in",
        ),
        (("videos", 0, "tracks", 0, "masks", 2, [-1, "0"]), r"masks\[2\]\[0\]: must be >= 0, is -1"),
        (("videos", 0, "tracks", 0, "masks", 2, [1]), r"masks\[2\]: must be \[frame index, counts\]"),
        (("videos", 0, "tracks", 0, "masks", 2, 0, 0), r"masks\[2\]: frame index 0 has a second mask"),
        (("videos", 0, "tracks", 0, "masks", 2, 1, []), r"masks\[2\]\[1\]: must be a text"),
        (("videos", 0, "tracks", 0, "scores", 0, [0, None]), r"scores\[0\]\[1\]: must be a finite number"),
        (("videos", 0, "tracks", 0, "labels", "Car"), r"tracks\[0\].labels: must be an array"),
        (("videos", 0, "tracks", 1, "object_id", "a"), r"tracks\[1\].object_id: 'a' is used twice"),
        (("videos", 0, "tracks", 1, "object_id", None), r"tracks\[1\].object_id: must be a whole number"),
        (("videos", 0, "file_names", ["x"]), r"videos\[0\].file_names: has 1 items"),
    ],
)
def test_tracks_errors_name_the_file_the_place_and_the_rule(tmp_path, change, message):
    with pytest.raises(ValueError, match=r"x\.json: .*" + message):
        load(load_tracks, tmp_path, changed(tracks_document(tmp_path), *change))


@pytest.mark.parametrize("object_id", [True, 1.5, None, ("a", 1)])
def test_an_object_id_that_json_cannot_hold_is_refused(tmp_path, object_id):
    track = moving_track(constant_rate_info(), [1], object_id=object_id)
    with pytest.raises(ValueError, match="must be a text or a whole number"):
        save_tracks(tmp_path / "t.json", [annotated_video(tracks=[track])])
    assert list(tmp_path.iterdir()) == []


# --- masks on disk ------------------------------------------------------------


def test_masks_that_were_read_behave_as_a_mapping_and_travel_to_other_processes(tmp_path):
    video = annotated_video()
    save_tracks(tmp_path / "t.json", [video])
    (read,) = load_tracks(tmp_path / "t.json")
    masks = read.tracks[0].masks
    assert isinstance(masks, StoredMasks)
    assert sorted(masks) == [0, 1, 2, 6, 7, 8, 9] and len(masks) == 7
    assert 6 in masks and 5 not in masks and masks.get(5) is None
    with pytest.raises(KeyError):
        masks[5]
    assert pickle.loads(pickle.dumps(masks)) == dict(video.tracks[0].masks)
