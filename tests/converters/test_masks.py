import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from pycocotools import mask as coco_mask
from scipy import ndimage

from converters.masks import (
    components,
    decode_mask,
    encode_mask,
    mask_area,
    mask_box,
    mask_iou,
    mask_runs,
)
from converters.types import Box, MaskRLE
from tests.converters.cases import ADVERSARIAL_MASKS

every_mask = pytest.mark.parametrize(
    "mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys()
)


@every_mask
def test_a_mask_survives_the_round_trip(mask):
    rle = encode_mask(mask)

    decoded = decode_mask(rle)

    assert decoded.dtype == bool and decoded.flags.c_contiguous
    np.testing.assert_array_equal(decoded, mask)
    assert isinstance(rle.counts, str) and (rle.height, rle.width) == mask.shape


@every_mask
def test_area_and_box_agree_with_pycocotools(mask):
    rle = encode_mask(mask)
    encoded = {"size": [rle.height, rle.width], "counts": rle.counts}

    x, y, width, height = coco_mask.toBbox(encoded).tolist()

    assert mask_area(rle) == int(coco_mask.area(encoded)) == int(mask.sum())
    expected = Box(x, y, x + width, y + height) if mask.any() else None
    assert mask_box(rle) == expected


@every_mask
def test_the_encoder_takes_any_memory_layout(mask):
    assert encode_mask(np.asfortranarray(mask)) == encode_mask(mask)
    assert encode_mask(mask[::-1][::-1]) == encode_mask(mask)


def test_iou_counts_pixels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.random((2, 13, 17)) < rng.random()
        union = (a | b).sum()
        expected = (a & b).sum() / union if union else 1.0
        assert mask_iou(encode_mask(a), encode_mask(b)) == pytest.approx(expected)


def test_iou_of_two_empty_masks_is_one_and_of_one_is_zero():
    empty, full = encode_mask(np.zeros((3, 4), bool)), encode_mask(np.ones((3, 4), bool))
    assert mask_iou(empty, empty) == 1.0
    assert mask_iou(empty, full) == 0.0


def test_iou_needs_equal_sizes():
    with pytest.raises(ValueError, match="3 x 4 and 4 x 3"):
        mask_iou(encode_mask(np.ones((3, 4), bool)), encode_mask(np.ones((4, 3), bool)))


def test_zero_length_runs_inside_are_read_right():
    # 2 clear, 1 set, 0 clear, 1 set, 2 clear: legal, though no encoder writes it.
    encoded = coco_mask.frPyObjects({"size": [3, 2], "counts": [2, 1, 0, 1, 2]}, 3, 2)
    rle = MaskRLE(3, 2, encoded["counts"].decode())

    assert mask_runs(rle).tolist() == [2, 1, 0, 1, 2]
    assert mask_area(rle) == 2
    assert mask_box(rle) == Box(0, 0, 2, 3)
    np.testing.assert_array_equal(decode_mask(rle).T.ravel(), [0, 0, 1, 1, 0, 0])


def test_a_zero_length_set_run_does_not_widen_the_box():
    encoded = coco_mask.frPyObjects({"size": [2, 4], "counts": [1, 0, 2, 1, 4]}, 2, 4)
    assert mask_box(MaskRLE(2, 4, encoded["counts"].decode())) == Box(1, 1, 2, 2)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        # A batch of masks.
        (np.zeros((1, 2, 3), bool), r"shape \(1, 2, 3\), must be \(H, W\)"),
        # 0/1 integers, 0/255 or logits: not guessed at.
        (np.zeros((2, 3), np.uint8), "dtype uint8, must be bool"),
        (np.zeros((2, 3), np.float32), "dtype float32, must be bool"),
        # No pixels.
        (np.zeros((0, 3), bool), "at least one pixel"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        encode_mask(mask)


GOOD = encode_mask(ADVERSARIAL_MASKS["five parts with holes"]).counts


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        # Nothing at all.
        (MaskRLE(60, 80, ""), "one or more characters"),
        # Bytes, as pycocotools gives them.
        (MaskRLE(60, 80, GOOD.encode()), "type bytes must be a str"),
        (MaskRLE(60, 80, None), "must be a str"),
        # Characters that the code does not have.
        (MaskRLE(60, 80, "ab c"), "from '0' to 'o'"),
        (MaskRLE(60, 80, "abü"), "from '0' to 'o'"),
        # Cut short: inside a number, and between numbers.
        (MaskRLE(60, 80, GOOD + "P"), "end inside a number"),
        (MaskRLE(60, 80, GOOD[: len(GOOD) // 2]), "cover|end inside"),
        # A number that overflows pycocotools' 32 bits.
        (MaskRLE(60, 80, "o" * 12 + "0"), "too large"),
        # A negative run.
        (MaskRLE(60, 80, "O"), "negative run"),
        # Right runs for another size.
        (MaskRLE(80, 61, GOOD), r"must cover height \* width = 80 \* 61"),
        (MaskRLE(0, 80, GOOD), "height=0 must be an integer >= 1"),
        (MaskRLE(60, 80.0, GOOD), "width=80.0 must be an integer >= 1"),
        (MaskRLE(True, 80, GOOD), "height=True"),
        (MaskRLE(10**6, 10**6, GOOD), "at most"),
    ],
)
def test_malformed_counts_are_refused_before_pycocotools_sees_them(rle, message):
    for read in (decode_mask, mask_area, mask_box, mask_runs):
        with pytest.raises(ValueError, match=message):
            read(rle)


def test_random_counts_raise_or_decode_to_a_whole_mask():
    rng = np.random.default_rng(1)
    for _ in range(500):
        text = bytes(rng.integers(48, 112, rng.integers(1, 12)).astype(np.uint8)).decode()
        try:
            mask = decode_mask(MaskRLE(4, 5, text))
        except ValueError:
            continue
        assert mask.shape == (4, 5)


# --- components --------------------------------------------------------------


def labelled_by_scipy(mask, connectivity):
    structure = np.ones((3, 3)) if connectivity == 8 else None
    numbers, count = ndimage.label(mask, structure)
    return [numbers == number for number in range(1, count + 1)]


def assert_components_are_scipys(mask, connectivity):
    found = components(encode_mask(mask), connectivity=connectivity)
    expected = labelled_by_scipy(mask, connectivity)
    assert {c.mask for c in found} == {encode_mask(part) for part in expected}
    assert len(found) == len(expected)
    assert [c.area for c in found] == sorted((mask_area(c.mask) for c in found), reverse=True)
    assert components(mask, connectivity=connectivity) == found


@pytest.mark.parametrize("connectivity", [4, 8])
@every_mask
def test_components_are_those_of_scipy(mask, connectivity):
    assert_components_are_scipys(mask, connectivity)


@settings(max_examples=200, deadline=None)
@given(
    np_st.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.sampled_from([4, 8])
)
def test_components_of_any_mask_are_those_of_scipy(mask, connectivity):
    assert_components_are_scipys(mask, connectivity)


def test_a_spiral_is_one_component():
    """The longest way from one end of a component to the other."""
    mask = np.zeros((101, 101), bool)
    for ring in range(0, 50, 2):
        mask[ring, max(ring - 2, 0) : 101 - ring] = True
        mask[ring : 101 - ring, 100 - ring] = True
        mask[100 - ring, ring : 101 - ring] = True
        mask[ring + 2 : 101 - ring, ring] = True
    assert labelled_by_scipy(mask, 4)[1:] == []
    assert [c.area for c in components(mask, connectivity=4)] == [mask.sum()]


def test_pixels_that_touch_at_a_corner_are_connected_by_8_alone():
    mask = np.eye(5, dtype=bool)
    assert [c.area for c in components(mask)] == [5]
    assert [c.area for c in components(mask, connectivity=4)] == [1] * 5
    # From the left; the end of a column does not touch the next one's top.
    assert [mask_box(c.mask).x_min for c in components(mask, connectivity=4)] == [0, 1, 2, 3, 4]
    apart = np.array([[False, False, True], [False, False, False], [False, True, False]])
    assert len(components(apart)) == 2


def test_a_run_in_two_pieces_is_one_component():
    counts = coco_mask.frPyObjects({"size": [8, 1], "counts": [1, 2, 0, 3, 2]}, 8, 1)["counts"]
    (found,) = components(MaskRLE(8, 1, counts.decode()), connectivity=4)
    assert found.area == 5 and found.mask == encode_mask(decode_mask(found.mask))


@pytest.mark.parametrize(
    ("mask", "options", "message"),
    [
        (np.ones((2, 2), bool), {"connectivity": 6}, "connectivity=6 must be 4 or 8"),
        (np.ones((2, 2), np.uint8), {}, "dtype uint8, must be bool"),
        (MaskRLE(2, 2, "9"), {}, "cover 9 pixels"),
    ],
)
def test_components_of_what_is_no_mask_are_refused(mask, options, message):
    with pytest.raises(ValueError, match=message):
        components(mask, **options)
