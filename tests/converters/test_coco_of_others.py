"""COCO as other tools write it: CVAT, kwcoco, pandas, Windows, detection data sets."""

import contextlib
import dataclasses
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from converters.coco import load_coco, save_coco, to_coco
from converters.masks import decode_mask, mask_area
from converters.report import Report
from tests.converters.cases import DATA

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

POLYGON = [4, 5, 13, 5, 13, 14, 4, 14]
POLYGON_MASK = np.zeros((48, 64), bool)
POLYGON_MASK[5:14, 4:13] = True
BOX = [4, 5, 9, 9]
RLE = {"size": [48, 64], "counts": [101, 20, 2951]}


def image(number, name=None, **more):
    return {"id": number, "file_name": name or f"v/{number}.jpg", "width": 64, "height": 48, **more}


def annotation(number, image_id, **more):
    return {
        "id": number, "image_id": image_id, "category_id": 1, "segmentation": [POLYGON],
        "bbox": BOX, "area": 81, "iscrowd": 0, **more,
    }  # fmt: skip


def coco(images, annotations, **more):
    categories = [{"id": 1, "name": "cat", "supercategory": "animal"}]
    return {"images": images, "annotations": annotations, "categories": categories, **more}


@pytest.fixture
def read(tmp_path):
    """(videos, report) of a document, or of a text."""

    def read(document, **options):
        path = tmp_path / "set.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        report = Report(**options)
        return list(load_coco(path, report=report)), report

    return read


def frames(video):
    return {track.object_id: sorted(track.masks) for track in video.tracks}


# --- tracks and frames ----------------------------------------------------------


def test_cvat_s_tracks_are_objects():
    (video,) = load_coco(DATA / "cvat_tracks.json")
    assert (video.name, video.info.frame_count) == ("cvat_tracks", 4)
    assert frames(video) == {0: [0, 1, 2, 3]}


def test_track_ids_are_numbers_or_texts_of_them_and_null_is_none(read):
    (video,), report = read(coco(
        [image("1"), image(2)],
        [annotation(1, 1, track_id="7"), annotation(2, "2", track_id=7, category_id="1"),
         annotation(3, 2, attributes={"track_id": None}), annotation(4, 1, attributes=[], track_id="")],
    ))  # fmt: skip
    assert frames(video) == {7: [0, 1], "annotation 3": [1], "annotation 4": [0]}
    assert report.remarks() == []


def test_kwcoco_s_frames_are_in_the_order_of_frame_index():
    (video,) = load_coco(DATA / "kwcoco_frames.json")
    assert video.file_names == ("vid/z.jpg", "vid/a.jpg", "vid/m.jpg")


@pytest.mark.parametrize(
    ("numbers", "order", "remark"),
    [
        # frame_id counts from 1, frame_index from 0: the same order.
        ([(1, 0), (2, 1), (3, 2)], [0, 1, 2], ""),
        ([(3, 0), (2, 1), (1, 2)], [2, 1, 0], "in the order of frame_id, which frame_index contradicts"),
        # A number that two frames share is worth less than one of each frame's own.
        ([(0, 2), (0, 1), (0, 0)], [2, 1, 0], ""),
        ([("2", None), ("1", None), ("0", None)], [2, 1, 0], ""),
        ([(0, None), (1, None), (None, None)], [0, 1, 2], "in the order of names, as not all have"),
        ([(5, None), (5, None), (5, None)], [0, 1, 2], "in the order of names (frame_id: … is also"),
    ],
)
def test_the_order_of_frames_and_what_is_said_of_it(read, numbers, order, remark):
    images = [
        image(i, video_id=1, **{k: n for k, n in zip(("frame_id", "frame_index"), pair) if n is not None})
        for i, pair in enumerate(numbers)
    ]
    (video,), report = read(coco(images, []))
    assert video.file_names == tuple(f"v/{i}.jpg" for i in order)
    assert remark in str(report.remarks()) and bool(remark) == bool(report.remarks())


def test_a_frame_that_has_another_s_number_is_left_out_with_its_annotations(read):
    images = [image(i, video_id=1, frame_id=n) for i, n in ((1, 0), (2, 0), (3, 1))]
    (video,), report = read(coco(images, [annotation(i, i, track_id=1) for i in (1, 2, 3)]))
    assert video.file_names == ("v/1.jpg", "v/3.jpg") and frames(video) == {1: [0, 1]}
    assert report.dropped == {
        "images (frame_id: … is also that of image … of the same video)": 1,
        "annotations (of images that were left out)": 1,
    }
    assert report.malformed == ["images[1].frame_id: 0 is also that of image 1 of the same video"]


# --- names ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "right"),
    [
        ([r"C:\data\vid\a.jpg", r"C:\data\vid\b.jpg"], ["vid/a.jpg", "vid/b.jpg"]),
        ([r"C:\data\one\a.jpg", r"C:\data\two\a.jpg"], ["one/a.jpg", "two/a.jpg"]),
        (["C:/data/vid/a.jpg", r"C:/data/vid\b.jpg"], ["vid/a.jpg", "vid/b.jpg"]),
        ([r"\\server\share\vid\a.jpg", r"\\server\share\vid\b.jpg"], ["vid/a.jpg", "vid/b.jpg"]),
        ([r"C:\v\a.jpg", r"D:\v\a.jpg"], ["C/v/a.jpg", "D/v/a.jpg"]),
        ([r"vid\a.jpg", r".\vid\b.jpg"], ["vid/a.jpg", "vid/b.jpg"]),
        (["vid/a.jpg", "/home/me/vid/b.jpg"], ["vid/a.jpg", "/home/me/vid/b.jpg"]),
    ],
)
def test_names_of_windows_have_folders_and_the_drive_is_left_out(read, names, right):
    images = [image(i, name) for i, name in enumerate(names)]
    videos, report = read(coco(images, [annotation(1, 0, track_id=1)]))
    assert [name for video in videos for name in video.file_names] == right
    folders = dict.fromkeys(name.rpartition("/")[0] for name in right)
    assert [video.name for video in videos] == list(folders)
    assert bool(report.changed) == (names != right)


def test_names_that_several_images_or_videos_share(read, tmp_path):
    videos, report = read(coco([image(1, "a.jpg"), image(2, "a.png"), image(3, "a.jpg")], [
        annotation(1, 1), annotation(2, 3),
    ]))  # fmt: skip
    assert [(v.name, v.file_names, len(v.tracks)) for v in videos] == [
        ("a", ("a.jpg",), 2), ("a-2", ("a.png",), 0),
    ]  # fmt: skip
    assert list(report.changed.values()) == [1, 1]
    # Two videos with frames of the same names, written apart.
    images = [image(10 * v + f, f"{f}.jpg", video_id=v, frame_id=f) for v in (1, 2) for f in (0, 1)]
    videos, _ = read(coco(images, [], videos=[{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]))
    report = save_coco(tmp_path / "out.json", videos)
    names = [i["file_name"] for i in json.loads((tmp_path / "out.json").read_text())["images"]]
    assert names == ["x/0.jpg", "x/1.jpg", "x-2/0.jpg", "x-2/1.jpg"]
    assert report.changed == {"image names, written with a folder a video": 4}


# --- masks ----------------------------------------------------------------------


@pytest.mark.parametrize("segmentation", [None, [], [[]], {}, "missing"])
def test_an_annotation_with_a_box_alone_is_the_box(read, segmentation):
    entry = annotation(1, 1, segmentation=segmentation)
    if segmentation == "missing":
        del entry["segmentation"]
    (video,), report = read(coco([image(1)], [entry]), strict=True)
    np.testing.assert_array_equal(decode_mask(video.tracks[0].masks[0]), POLYGON_MASK)
    assert report.changed == {"masks missing, written as their box": 1}


@pytest.mark.parametrize(
    ("box", "area", "reason"),
    [
        ([-3, -3, 10, 10], 49, None),
        ([60.4, 40.4, 20, 20], 32, None),
        ([0.3, 0.3, 1, 1], 1, None),
        ([-0.4, -0.2, 64.5, 48.2], 64 * 48, None),
        ([64, 0, 5, 5], 0, "bbox: is …, on no pixel of the picture of … x … pixels"),
        ([1, 1, 0, 5], 0, "bbox: must have a width and a height above …, is …"),
        ([1, 1, -2, 5], 0, "bbox: must have a width and a height above …, is …"),
        ([1, 1, 5], 0, "bbox: has … numbers, must be …"),
        ([1, None, 5, 5], 0, "bbox: must be a finite number, is null or NaN"),
        (None, 0, "annotations: has no 'segmentation' and has no 'bbox'"),
    ],
)
def test_boxes_are_clipped_and_those_outside_left_out(read, box, area, reason):
    entry = annotation(1, 1, segmentation=[], bbox=box)
    (video,), report = read(coco([image(1)], [entry, annotation(2, 1)]))
    masks = {track.object_id: mask_area(track.masks[0]) for track in video.tracks}
    assert masks == ({"annotation 1": area} if area else {}) | {"annotation 2": 81}
    assert report.dropped == ({f"annotations ({reason})": 1} if reason else {})


@pytest.mark.parametrize(
    ("segmentation", "dropped"),
    [
        (POLYGON, {}),
        ([[POLYGON[i : i + 2] for i in range(0, 8, 2)]], {}),
        ([POLYGON, [5, 6, 10, 12]], {"polygons": 1}),
        ([POLYGON, [5, 6], []], {"polygons": 2}),
        ([POLYGON, [5, 6, 10, 12, 7]], {"polygons": 1}),
        ([POLYGON, [5, 6, 10, 12, 7, None]], {"polygons": 1}),
        ([[5, 6, 10, 12]], {"annotations": 1}),
        ([5, 6], {"annotations": 1}),
        ([{}], {"annotations": 1}),
        ("x", {"annotations": 1}),
        ({"size": [48, 64], "counts": [245.0, 9.0, 2818.0]}, {}),
        ({"size": [48, 64], "counts": [245.5, 8.5, 2818]}, {"annotations": 1}),
    ],
)
def test_a_bad_polygon_costs_itself_and_an_annotation_without_another(read, segmentation, dropped):
    (video,), report = read(coco([image(1)], [annotation(1, 1, segmentation=segmentation)]))
    counted = {}
    for what, count in report.dropped.items():
        kind = what.partition(" ")[0]
        counted[kind] = counted.get(kind, 0) + count
    assert counted == dropped and len(video.tracks) == 1 - dropped.get("annotations", 0)
    if isinstance(segmentation, list) and video.tracks:
        np.testing.assert_array_equal(decode_mask(video.tracks[0].masks[0]), POLYGON_MASK)
    if dropped:
        with pytest.raises(ValueError, match=r"annotations\[0\].segmentation"):
            read(coco([image(1)], [annotation(1, 1, segmentation=segmentation)]), strict=True)


# --- crowds ---------------------------------------------------------------------


def test_crowds_stay_crowds_frame_by_frame_and_are_not_asked_for(read, tmp_path):
    document = coco([image(1), image(2)], [
        annotation(1, 1, segmentation=RLE, iscrowd=1, track_id=1),
        annotation(2, 2, track_id=1),
        annotation(3, 1, track_id=2),
        annotation(4, 2, segmentation=RLE, iscrowd=1, track_id=3),
    ])  # fmt: skip
    videos, _ = read(document)
    assert [(t.crowd_frames, t.is_crowd) for t in videos[0].tracks] == [
        ({0}, False), (frozenset(), False), ({1}, True),
    ]  # fmt: skip
    written = to_coco(videos, polygons=True)["annotations"]
    assert [(a["track_id"], a["image_id"], a["iscrowd"]) for a in written] == [
        (1, 1, 1), (1, 2, 0), (2, 1, 0), (3, 2, 1),
    ]  # fmt: skip
    # By COCO's rules a crowd is RLE.
    assert [isinstance(a["segmentation"], dict) for a in written] == [True, False, False, True]
    save_coco(tmp_path / "truth.json", videos)
    found = [{**a, "score": 0.9} for a in to_coco(videos)["annotations"] if not a["iscrowd"]]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        judge = COCOeval(truth, truth.loadRes(found), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0)


# --- categories -----------------------------------------------------------------


def test_category_ids_order_and_unused_categories_are_kept(read):
    categories = [{"id": 18, "name": "dog", "supercategory": "animal"}, {"id": 1, "name": "person"}]
    document = coco([image(1)], [annotation(1, 1, category_id=18)]) | {"categories": categories}
    videos, report = read(document)
    written = to_coco(videos)
    assert written["categories"] == [categories[0], {"id": 1, "name": "person", "supercategory": ""}]
    assert written["annotations"][0]["category_id"] == 18
    # A label that the source has no category for comes after them.
    more = dataclasses.replace(videos[0].tracks[0], object_id=2, labels=("bird",))
    videos = [dataclasses.replace(videos[0], tracks=(*videos[0].tracks, more))]
    assert [(c["id"], c["name"]) for c in to_coco(videos)["categories"]][-1] == (19, "bird")
    # Names that are given win.
    assert [(c["id"], c["name"]) for c in to_coco(videos, categories=["bird", "dog"])["categories"]] == [
        (1, "bird"), (2, "dog"),
    ]  # fmt: skip


def test_categories_that_are_wrong_cost_what_is_of_them(read):
    categories = [
        {"id": 1, "name": "cat"}, {"id": 2, "name": None}, {"id": 3, "name": "cat"},
        {"id": 1, "name": "other"}, {"name": "x"}, 5, {"id": 9},
    ]  # fmt: skip
    annotations = [annotation(i, 1, category_id=i) for i in (1, 2, 3, 4)]
    (video,), report = read(coco([image(1)], annotations) | {"categories": categories})
    assert [(t.object_id, t.labels) for t in video.tracks] == [
        ("annotation 1", ("cat",)), ("annotation 3", ("cat",)),
    ]  # fmt: skip
    assert [(c.id, c.name) for c in video.categories] == [(1, "cat")]
    assert report.changed == {"categories of one name, written as the first of them": 1}
    assert sum(report.dropped.values()) == 7


def test_names_that_are_numbers_and_attributes_that_are_another_tool_s(read):
    categories = [{"id": 1, "name": 0}]
    entry = annotation(1, 1, attributes={"labels": "red", "occluded": False})
    (video,), report = read(coco([image(1)], [entry]) | {"categories": categories})
    assert [t.labels for t in video.tracks] == [("0",)]
    assert list(report.changed.values()) == [1] and report.dropped == {}


def test_an_unused_category_without_a_name_stops_nothing_even_when_strict(read):
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": ""}]
    (video,), _ = read(coco([image(1)], [annotation(1, 1)]) | {"categories": categories}, strict=True)
    assert [c.id for c in video.categories] == [1]


# --- what is missing or wrong elsewhere -------------------------------------------


def test_sizes_that_images_lack_are_those_of_their_masks_or_their_video(read):
    def bare(number, **more):
        return {"id": number, "file_name": f"v{number}/1.jpg", **more}

    images = [bare(1), bare(2, video_id=5), bare(3, video_id=6), image(4, video_id=6), bare(7)]
    entries = [{"id": 5, "name": "five", "width": 64, "height": 48}, {"id": 6, "name": "six"}]
    videos, report = read(coco(images, [
        annotation(1, 1, segmentation=RLE), annotation(2, 2), annotation(3, 3), annotation(7, 7),
    ], videos=entries))  # fmt: skip
    assert [(v.name, v.info.width, v.info.height, len(v.tracks)) for v in videos] == [
        ("five", 64, 48, 1), ("six", 64, 48, 1), ("v1/1", 64, 48, 1),
    ]  # fmt: skip
    # Where nothing says it, a polygon has no picture.
    assert report.dropped == {
        "images (images: has no 'width')": 1, "annotations (of images that were left out)": 1,
    }  # fmt: skip


def test_nan_is_null_wherever_it_stands(read):
    nan = float("nan")
    document = coco([image(1, fps=nan), image(2)], [
        annotation(1, 1, track_id=nan, area=nan, bbox=[nan] * 4),
        annotation(2, 1, segmentation=[[0, 0, 1, nan, 4, 4]]),
        annotation(3, 2, segmentation=nan),
    ])  # fmt: skip
    videos, report = read(document)
    assert [[t.object_id for t in v.tracks] for v in videos] == [["annotation 1"], ["annotation 3"]]
    assert report.dropped == {"annotations (segmentation: must be a finite number, is null or NaN)": 1}


def test_everything_that_can_be_wrong_at_once_leaves_the_rest(read):
    images = [
        image(1, video_id=1, frame_id=0), image(2, video_id=1, frame_id=1),
        image(2, "twice.jpg", video_id=1), image(3, video_id=1, frame_id=2) | {"width": 7},
        image(4, video_id=8), image(5, video_id=1, frame_id=-1), 7, None, {"file_name": "x.jpg"},
        {"id": 6, "file_name": None, "width": 64, "height": 48, "video_id": 1, "frame_id": 3},
    ]  # fmt: skip
    annotations = [annotation(i, i, track_id=1) for i in (1, 2, 3, 4, 5, 6)] + [5, None, [], {"image_id": 1}]
    videos = [{"id": 1, "name": 5, "fps": "x"}, {"id": 1}, 9, {"id": 3, "name": "no size"}]
    (video,), report = read(coco(images, annotations, videos=videos))
    assert (video.name, video.info.fps) == ("1", 0.0)
    assert video.file_names == ("v/1.jpg", "v/2.jpg", "6.jpg") and frames(video) == {1: [0, 1, 2]}
    assert {k.partition(" ")[0] for k in report.dropped} == {"images", "videos", "annotations"}
    assert report.dropped["annotations (of images that were left out)"] == 3
    assert len(report.changed) == 3
    assert report.malformed_count == len(report.malformed) == 17


@pytest.mark.parametrize("section", ["annotations", "categories", "videos"])
def test_null_may_stand_for_a_section_and_another_kind_of_value_stops(read, section):
    document = coco([image(1)], [], videos=[]) | {section: None}
    (video,), report = read(document)
    assert report.remarks() == []
    with pytest.raises(ValueError, match=f"set.json: {section}: must be an array"):
        read(document | {section: {"1": {}}})
