import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from converters.coco import save_coco, to_coco
from converters.masks import decode_mask, encode_mask
from converters.types import Track, VideoInfo
from tests.converters.cases import (
    ADVERSARIAL_MASKS,
    annotated_video,
    constant_rate_info,
    moving_track,
)

# pycocotools hands NumPy an __array__ without `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def load(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


VIDEOS = (annotated_video("one"), annotated_video("two"))


def test_the_document_has_the_sections_and_fields_of_coco():
    document = to_coco(VIDEOS)

    assert list(document) == [
        "info", "licenses", "videos", "images", "annotations", "categories",
    ]  # fmt: skip
    assert document["categories"] == [
        {"id": 1, "name": "Car", "supercategory": ""},
        {"id": 2, "name": "Hund ü 犬", "supercategory": ""},
    ]
    assert document["videos"][1] == {
        "id": 2, "name": "two", "width": 64, "height": 48, "length": 10, "fps": 25.0,
    }  # fmt: skip
    assert document["images"][12] == {
        "id": 13, "file_name": "two/00002.jpg", "width": 64, "height": 48,
        "video_id": 2, "frame_id": 2,
    }  # fmt: skip
    assert len(document["images"]) == 20
    annotation = document["annotations"][-1]
    assert {k: annotation[k] for k in annotation if k not in ("segmentation", "area", "bbox")} == {
        "id": 16, "image_id": 15, "category_id": 2, "iscrowd": 0,
        "instance_id": 2, "track_id": 4,
    }  # fmt: skip
    assert [a["id"] for a in document["annotations"]] == list(range(1, 17))


def test_pycocotools_reads_the_original_masks_back(tmp_path):
    save_coco(tmp_path / "coco.json", VIDEOS)
    coco = load(tmp_path / "coco.json")

    read = 0
    for number, video in enumerate(VIDEOS, start=1):
        for instance_id, track in enumerate(video.tracks, start=1):
            for frame_index, rle in track.masks.items():
                (image,) = [
                    i for i in coco.imgs.values() if (i["video_id"], i["frame_id"]) == (number, frame_index)
                ]
                (annotation,) = [
                    a for a in coco.imgToAnns[image["id"]] if a["instance_id"] == instance_id
                ]
                mask = decode_mask(rle)
                np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)
                rows, columns = np.nonzero(mask)
                assert annotation["area"] == mask.sum()
                assert annotation["bbox"] == [
                    columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1,
                ]  # fmt: skip
                read += 1
    assert read == len(coco.anns) == 16


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_compared_with_itself_the_average_precision_is_one(tmp_path, kind):
    save_coco(tmp_path / "coco.json", VIDEOS)
    truth = load(tmp_path / "coco.json")
    results = [
        {**{k: a[k] for k in ("image_id", "category_id", "segmentation", "bbox")}, "score": 0.9}
        for a in to_coco(VIDEOS)["annotations"]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == 1.0


@pytest.mark.parametrize("mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys())
def test_any_mask_is_written_whole_and_an_empty_one_left_out(tmp_path, mask):
    height, width = mask.shape
    info = VideoInfo(width, height, 1, 0.0, (0.0,), 1.0)
    track = Track("t", ("Car",), {0: encode_mask(mask)})
    save_coco(tmp_path / "coco.json", [annotated_video(info=info, tracks=[track])])

    coco = load(tmp_path / "coco.json")

    assert len(coco.imgs) == 1 and len(coco.anns) == int(mask.any())
    for annotation in coco.anns.values():
        np.testing.assert_array_equal(coco.annToMask(annotation).astype(bool), mask)


def test_the_file_is_the_document_in_the_same_bytes_each_time(tmp_path):
    save_coco(tmp_path / "a.json", VIDEOS)
    save_coco(tmp_path / "b.json", (video for video in VIDEOS))

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text("ascii")) == to_coco(VIDEOS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "coco.json"
    path.write_text("old")
    broken = Track("t", ("Car",), {0: encode_mask(np.ones((48, 64), bool))})
    object.__setattr__(broken.masks[0], "counts", "?")
    with pytest.raises(ValueError, match="counts"):
        save_coco(path, [annotated_video(tracks=[broken])])
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_numpy_numbers_do_not_reach_the_document():
    info = constant_rate_info(3)
    masks = {np.int64(i): m for i, m in moving_track(info, range(3)).masks.items()}
    track = Track(np.int64(7), ("Car",), masks, {np.int64(0): np.float32(1.0)})
    json.dumps(to_coco([annotated_video(info=info, tracks=[track])]))


def test_a_track_with_several_labels_is_written_once_with_all_of_them():
    track = moving_track(constant_rate_info(), [3], labels=("Dog", "Car"))
    document = to_coco([annotated_video(tracks=[track])])
    (annotation,) = document["annotations"]
    assert document["categories"] == [{"id": 1, "name": "Dog", "supercategory": ""}]
    assert annotation["attributes"] == {"labels": ["Dog", "Car"]}


def test_categories_can_be_given_in_order():
    document = to_coco(VIDEOS, categories=["Zebra", "Hund ü 犬", "Car"])
    assert [c["name"] for c in document["categories"]] == ["Zebra", "Hund ü 犬", "Car"]
    assert {a["category_id"] for a in document["annotations"]} == {2, 3}


def test_given_file_names_are_kept():
    names = tuple(f"frames/{i}.png" for i in range(10))
    document = to_coco([annotated_video(file_names=names)])
    assert [image["file_name"] for image in document["images"]] == list(names)


def test_no_videos_make_an_empty_data_set():
    document = to_coco([])
    assert document["images"] == document["annotations"] == document["categories"] == []


A = moving_track(constant_rate_info(), [1], object_id="a")


@pytest.mark.parametrize(
    ("videos", "options", "message"),
    [
        ([annotated_video("")], {}, "empty name"),
        ([annotated_video(), annotated_video()], {}, "would both have the folder 'clip'"),
        ([annotated_video(file_names=("a.jpg",))], {}, "has 1 file_names"),
        ([annotated_video(tracks=[A, A])], {}, "repeat"),
        ([annotated_video(tracks=[Track("t", (), {})])], {}, "object 't': has no label"),
        ([annotated_video(info=constant_rate_info(1), tracks=[A])], {}, r"index 1 must be in \[0, 1\)"),
        ([annotated_video(info=constant_rate_info(width=65), tracks=[A])], {}, "must be 48 x 65"),
        (VIDEOS, {"categories": ["Car"]}, "label 'Hund ü 犬' is not in categories"),
        (VIDEOS, {"categories": ["Car", "Car"]}, "repeat"),
    ],
)
def test_data_that_makes_no_data_set_is_refused(videos, options, message):
    with pytest.raises(ValueError, match=message):
        to_coco(videos, **options)
