"""YouTube-VIS as other tools write it: polygons, boxes, nulls, lists of other lengths."""

import json

import numpy as np
import pytest

from converters.formats import Format, recognise
from converters.masks import decode_mask, mask_area
from converters.report import Report
from converters.youtube_vis import load_youtube_vis, save_youtube_vis, to_youtube_vis

POLYGON = [4, 5, 13, 5, 13, 14, 4, 14]
RLE = {"size": [48, 64], "counts": [101.0, 20.0, 2951.0]}
BOX, RLE_BOX = [4, 5, 9, 9], [2, 5, 1, 20]
NAMES = [f"clip/{i}.jpg" for i in range(3)]
BOTH = {0: 81, 2: 20}
BOXES = {"changed": {"masks missing, written as their box": 2}}


def document(video=None, annotation=None, **more):
    """A polygon, nothing and an RLE on three frames; a value of `del` takes a field away."""
    whole = {
        "videos": [{"id": 1, "width": 64, "height": 48, "length": 3, "file_names": NAMES}],
        "categories": [{"id": 5, "name": "cat", "supercategory": "animal"}, {"id": 2, "name": "dog"}],
        "annotations": [{
            "id": 1, "video_id": 1, "category_id": 5, "iscrowd": 0,
            "segmentations": [[POLYGON], None, RLE], "bboxes": [BOX, None, RLE_BOX], "areas": [81, None, 20],
        }],
    }  # fmt: skip
    for entry, changes in ((whole["videos"][0], video), (whole["annotations"][0], annotation)):
        entry.update(changes or {})
        for key in [key for key, value in entry.items() if value == "del"]:
            del entry[key]
    return whole | more


@pytest.fixture
def read(tmp_path):
    def read(document, **options):
        path = tmp_path / "set.json"
        path.write_text(json.dumps(document))
        assert recognise(path) == Format.YOUTUBE_VIS
        report = Report(**options)
        return list(load_youtube_vis(path, report=report)), report

    return read


def areas(video):
    return {f: mask_area(m) for track in video.tracks for f, m in sorted(track.masks.items())}


@pytest.mark.parametrize(
    ("video", "annotation", "found", "said"),
    [
        ({}, {}, BOTH, {}),
        # Polygons, flat too; nulls wherever a list may stand.
        ({}, {"segmentations": [POLYGON, [], RLE], "bboxes": None, "areas": None}, BOTH, {}),
        ({}, {"bboxes": "del", "areas": "del"}, BOTH, {}),
        ({"file_names": None}, {}, BOTH, {}),
        ({"file_names": [], "length": "3"}, {}, BOTH, {}),
        # Boxes alone.
        ({}, {"segmentations": None}, BOTH, BOXES),
        ({}, {"segmentations": "del"}, BOTH, BOXES),
        ({}, {"segmentations": []}, BOTH, BOXES),
        ({}, {"segmentations": [None, None, None]}, BOTH, BOXES),
        ({}, {"segmentations": [None, None, RLE]}, BOTH, {"changed": {"masks missing, written as their box": 1}}),
        ({}, {"segmentations": [None, None, RLE], "bboxes": [[0, 0, 0, 0], None, RLE_BOX]}, {2: 20}, {}),
        # What a video does not say is taken from its annotations.
        ({"length": "del"}, {}, BOTH, {}),
        ({"length": None, "file_names": None}, {}, BOTH, {}),
        ({"length": "del", "file_names": "del", "width": None, "height": "del"}, {}, BOTH, {}),
        ({"width": "del", "height": "del"}, {"width": 64, "height": 48}, BOTH, {}),
        # More than is asked for.
        ({"name": "clip", "extra": [1]}, {"score": 0.5, "extra": {"a": [None]}, "iscrowd": None}, BOTH, {}),
        ({"id": "1"}, {"id": "7", "category_id": "5"}, BOTH, {}),
    ],
)
def test_the_masks_are_read_and_what_stands_for_them_is_said(read, video, annotation, found, said):
    (result,), report = read(document(video, annotation), strict=True)
    assert areas(result) == found and result.info.frame_count == 3
    assert (result.info.width, result.info.height) == (64, 48)
    assert {"changed": report.changed} == ({"changed": {}} | said) and report.dropped == {}


@pytest.mark.parametrize(
    ("video", "annotation", "found", "reason"),
    [
        ({}, {"segmentations": [[POLYGON]], "bboxes": None}, {0: 81},
         "objects taken for not visible on the frames that are not listed"),
        ({}, {"segmentations": [[POLYGON], None, RLE, RLE]}, BOTH,
         "objects without what is listed after the last frame"),
        ({"length": 5}, {}, BOTH, "lengths taken from the file names"),
        ({"fps": -1}, {}, BOTH, "frame rates taken for unknown"),
        ({"file_names": ["a/0.jpg", None, "a/2.jpg"]}, {}, BOTH, "image names taken for unknown"),
        ({"name": 7}, {}, BOTH, "videos named by their folders or ids"),
        ({}, {"segmentations": [[POLYGON], 5, RLE]}, BOTH, "masks (segmentations: must be an array"),
        ({}, {"segmentations": [[[1, 2, 3, 4]], None, RLE]}, {2: 20}, "masks (segmentations: has …"),
        ({}, {"segmentations": [{"size": [64, 48], "counts": [3072]}, None, RLE]}, {2: 20}, "masks (size: is"),
        ({}, {"segmentations": None, "bboxes": [BOX, [1, 2], RLE_BOX]}, BOTH, "masks (bboxes: has … numbers"),
        ({}, {"segmentations": 5, "bboxes": None}, {}, "annotations (segmentations: must be an array, is …"),
        ({}, {"segmentations": [], "bboxes": []}, {}, "annotations (segmentations: has … items"),
        ({}, {"category_id": 9}, {}, "annotations (category_id: … is not the id of a category"),
        ({}, {"video_id": 9}, {}, "annotations (video_id: … is not the id of a video"),
        ({}, {"id": None}, {}, "annotations (id: must be a whole number"),
    ],
)  # fmt: skip
def test_a_malformed_value_costs_what_it_spoils(read, video, annotation, found, reason):
    (result,), report = read(document(video, annotation))
    assert areas(result) == found
    assert any(reason in what for what in (*report.dropped, *report.changed)), report.remarks()
    assert report.malformed_count == 1
    with pytest.raises(ValueError, match=r"(annotations|videos)\[0\]"):
        read(document(video, annotation), strict=True)


def test_a_video_that_cannot_be_read_takes_its_annotations_with_it(read):
    good = document()
    bad = {"id": 2, "width": 0, "height": 48, "length": 3}
    annotations = [good["annotations"][0], {**good["annotations"][0], "id": 2, "video_id": 2}, 5, None]
    (video,), report = read({**good, "videos": [bad, *good["videos"], 7], "annotations": annotations})
    assert (video.name, areas(video)) == ("clip", BOTH)
    assert report.dropped == {
        "videos (videos: must be an object, is …)": 1,
        "videos (width: must be >= …, is …)": 1,
        "annotations (of videos that were left out)": 1,
        "annotations (annotations: must be an object, is …)": 1,
        "annotations (annotations: must be an object, is null or NaN)": 1,
    }


def test_crowds_categories_and_their_ids_come_back(read, tmp_path):
    videos, _ = read(document(annotation={"iscrowd": 1}))
    assert videos[0].tracks[0].crowd_frames == {0, 2} and videos[0].tracks[0].is_crowd
    written = to_youtube_vis(videos)
    assert written["annotations"][0]["iscrowd"] == 1 and written["annotations"][0]["category_id"] == 5
    assert written["categories"] == [
        {"id": 5, "name": "cat", "supercategory": "animal"},
        {"id": 2, "name": "dog", "supercategory": ""},
    ]
    save_youtube_vis(tmp_path / "a.json", videos)
    save_youtube_vis(tmp_path / "b.json", load_youtube_vis(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_polygon_is_drawn_as_pycocotools_draws_it(read):
    (video,), _ = read(document())
    expected = np.zeros((48, 64), bool)
    expected[5:14, 4:13] = True
    np.testing.assert_array_equal(decode_mask(video.tracks[0].masks[0]), expected)


def test_annotations_null_is_none_of_them_and_names_of_windows_have_folders(read):
    names = [rf"C:\data\clip\{i}.jpg" for i in range(3)]
    (video,), report = read(document({"file_names": names}, annotations=None))
    assert (video.name, video.file_names, video.tracks) == ("clip", tuple(NAMES), ())
    assert report.changed == {"paths of Windows, written from the folders they share": 3}


def test_videos_of_windows_in_folders_of_one_name_stay_apart(read):
    whole = document()
    whole["videos"] = [
        {**whole["videos"][0], "id": n, "file_names": [rf"C:\{top}\clip\{i}.jpg" for i in range(3)]}
        for n, top in ((1, "a"), (2, "b"))
    ]
    videos, _ = read(whole)
    assert [(v.name, v.file_names[0]) for v in videos] == [
        ("a/clip", "a/clip/0.jpg"), ("b/clip", "b/clip/0.jpg"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (("0.jpg", "1.png", "2.jpg"), ["clip/0.jpg", "clip/1.png", "clip/2.jpg"]),
        (("/a/0.jpg", "/b/0.jpg", "/b/1.jpg"), ["clip/__a__0.jpg", "clip/__b__0.jpg", "clip/__b__1.jpg"]),
        (("x/0.jpg", "y/1.jpg", "y/2.jpg"), ["x/0.jpg", "y/1.jpg", "y/2.jpg"]),
    ],
)
def test_images_without_a_folder_of_their_video_s_get_one(read, names, written):
    (video,), _ = read(document({"name": "clip", "file_names": list(names)}))
    report = Report()
    assert to_youtube_vis([video], report=report)["videos"][0]["file_names"] == written
    count = 0 if tuple(written) == names else 3
    assert report.changed == ({"image names, written with a folder a video": count} if count else {})
