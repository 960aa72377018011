import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from converters.masks import decode_mask, encode_mask
from converters.types import Track
from converters.youtube_vis import (
    save_youtube_vis,
    save_youtube_vis_results,
    to_youtube_vis,
    to_youtube_vis_results,
)
from tests.converters.cases import annotated_video, constant_rate_info, moving_track

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

VIDEOS = (annotated_video("one"), annotated_video("two"))


def test_the_document_has_the_sections_and_fields_of_youtube_vis():
    document = to_youtube_vis(VIDEOS)

    assert list(document) == ["info", "licenses", "videos", "categories", "annotations"]
    assert document["videos"][1] == {
        "id": 2, "width": 64, "height": 48, "length": 10,
        "file_names": [f"two/{i:05d}.jpg" for i in range(10)],
    }  # fmt: skip
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4]
    lists = ("segmentations", "bboxes", "areas")
    last = document["annotations"][3]
    assert {k: v for k, v in last.items() if k not in lists} == {
        "id": 4, "video_id": 2, "category_id": 2, "iscrowd": 0,
        "width": 64, "height": 48, "length": 10,
    }  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
def test_each_frame_has_its_mask_or_nothing_in_all_three_lists(compressed):
    document = to_youtube_vis(VIDEOS, compressed=compressed)

    tracks = [track for video in VIDEOS for track in video.tracks]
    for annotation, track in zip(document["annotations"], tracks, strict=True):
        for frame_index in range(10):
            segmentation, box, area = (
                annotation[name][frame_index] for name in ("segmentations", "bboxes", "areas")
            )
            if frame_index not in track.masks:
                assert segmentation is None and box is None and area is None
                continue
            assert isinstance(segmentation["counts"], str if compressed else list)
            if not compressed:
                segmentation = coco_mask.frPyObjects(segmentation, 48, 64)
            mask = decode_mask(track.masks[frame_index])
            np.testing.assert_array_equal(coco_mask.decode(segmentation).astype(bool), mask)
            assert area == mask.sum()
            assert box == coco_mask.toBbox(segmentation).tolist()


def test_an_empty_mask_is_absence_and_an_object_never_seen_is_left_out():
    empty = encode_mask(np.zeros((48, 64), bool))
    seen = moving_track(constant_rate_info(), [1], object_id="seen")
    seen = Track("seen", ("Car",), {**seen.masks, 2: empty})
    videos = [annotated_video(tracks=[Track("never", ("Dog",), {0: empty}), seen])]

    (annotation,) = to_youtube_vis(videos)["annotations"]
    assert annotation["id"] == 1
    assert [i for i, area in enumerate(annotation["areas"]) if area is not None] == [1]
    assert len(to_youtube_vis_results(videos)) == 1


def test_results_have_compressed_masks_and_a_score():
    results = to_youtube_vis_results(VIDEOS)

    assert [(r["video_id"], r["category_id"]) for r in results] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert sorted(results[0]) == ["category_id", "score", "segmentations", "video_id"]
    assert 0 < results[0]["score"] < 1
    first = VIDEOS[0].tracks[0]
    for frame_index, segmentation in enumerate(results[0]["segmentations"]):
        rle = first.masks.get(frame_index)
        assert segmentation == (rle and {"size": [48, 64], "counts": rle.counts})


def test_a_track_without_scores_is_certain():
    track = moving_track(constant_rate_info(), [1], with_scores=False)
    assert to_youtube_vis_results([annotated_video(tracks=[track])])[0]["score"] == 1.0


def test_files_are_the_documents_in_the_same_bytes_each_time(tmp_path):
    save_youtube_vis(tmp_path / "a.json", VIDEOS)
    save_youtube_vis(tmp_path / "b.json", iter(VIDEOS))
    save_youtube_vis(tmp_path / "c.json", VIDEOS, compressed=True)
    save_youtube_vis_results(tmp_path / "r.json", VIDEOS)

    def read(name):
        return json.loads((tmp_path / name).read_text("ascii"))

    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read("a.json") == to_youtube_vis(VIDEOS)
    assert read("c.json") == to_youtube_vis(VIDEOS, compressed=True)
    assert read("r.json") == to_youtube_vis_results(VIDEOS)
    assert len(list(tmp_path.iterdir())) == 4


def test_ids_of_results_are_those_of_the_ground_truth_when_categories_are_given():
    only_second = [annotated_video(tracks=[moving_track(constant_rate_info(), [1], labels=("B",))])]
    (result,) = to_youtube_vis_results(only_second, categories=["A", "B"])
    assert result["category_id"] == 2


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        ([annotated_video(), annotated_video()], "would both have the folder 'clip'"),
        ([annotated_video(tracks=[Track("t", (), {})])], "has no label"),
    ],
)
def test_data_that_makes_no_data_set_is_refused(videos, message):
    with pytest.raises(ValueError, match=message):
        to_youtube_vis(videos)
    with pytest.raises(ValueError, match=message):
        to_youtube_vis_results(videos)
