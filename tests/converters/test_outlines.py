import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from scipy import ndimage

from converters.coco import load_coco, save_coco, to_coco
from converters.masks import decode_mask, encode_mask
from converters.outlines import mask_outlines
from converters.report import Report
from converters.types import Track
from tests.converters.cases import ADVERSARIAL_MASKS, annotated_video, blob, constant_rate_info

# pycocotools hands NumPy an __array__ without `copy`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def drawn(polygons, shape):
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *shape))).astype(bool)


def has_hole(mask):
    """In 4-connected masks the outside is what touches the border, corners included."""
    _, outside_parts = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))
    return outside_parts > 1


def parts(mask):
    return ndimage.label(mask)[1]


@pytest.mark.parametrize("mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys())
def test_outlines_hold_the_mask_or_say_why_not(mask):
    polygons, hindrance = mask_outlines(encode_mask(mask))
    if hindrance:
        assert polygons == [] and (not mask.any() or has_hole(mask))
    else:
        assert len(polygons) == parts(mask)
        assert all(len(polygon) >= 8 for polygon in polygons)
        np.testing.assert_array_equal(drawn(polygons, mask.shape), mask)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_mask_is_held_or_refused_with_a_reason(data):
    height, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    bits = data.draw(st.binary(min_size=height * width, max_size=height * width))
    mask = (np.frombuffer(bits, np.uint8) % 2 == 1).reshape(height, width)
    polygons, hindrance = mask_outlines(encode_mask(mask))
    if not mask.any():
        assert hindrance == "empty"
    elif has_hole(mask):
        assert hindrance == "with a hole"
    elif not hindrance:
        assert len(polygons) == parts(mask)
        union = (drawn(polygons, mask.shape) | mask).sum()
        assert (drawn(polygons, mask.shape) & mask).sum() / union >= 0.95


def test_a_rectangle_has_four_corners():
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:8] = True
    ((*corners,),), _ = mask_outlines(encode_mask(mask))
    assert corners == [3.0, 2.0, 8.0, 2.0, 8.0, 5.0, 3.0, 5.0]


def test_an_outline_too_long_for_a_polygon_is_refused():
    mask = np.indices((400, 400)).sum(axis=0) % 2 == 0
    assert mask_outlines(encode_mask(mask)) == ([], "outline too long")


def test_coco_with_polygons_falls_back_to_rle_and_counts_it(tmp_path):
    ring = blob(48, 64) & ~blob(48, 64, size=(0.2, 0.2))
    masks = {0: encode_mask(blob(48, 64)), 1: encode_mask(ring)}
    videos = [annotated_video(info=constant_rate_info(2), tracks=[Track(1, ("Car",), masks)])]
    report = Report()
    outlined, whole = to_coco(videos, polygons=True, report=report)["annotations"]
    assert isinstance(outlined["segmentation"], list) and outlined["iscrowd"] == 0
    assert isinstance(whole["segmentation"], dict) and whole["iscrowd"] == 0
    assert outlined["area"] == blob(48, 64).sum()
    assert report.changed == {"masks kept as RLE (with a hole)": 1}
    save_coco(tmp_path / "x.json", videos, polygons=True)
    (read,) = load_coco(tmp_path / "x.json")
    for frame, mask in masks.items():
        np.testing.assert_array_equal(decode_mask(read.tracks[0].masks[frame]), decode_mask(mask))
