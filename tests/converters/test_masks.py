import numpy as np
import pytest
from tests.converters.cases import ADVERSARIAL_MASKS
from pycocotools import mask as coco_mask

from converters.masks import (
    decode_mask,
    encode_mask,
    mask_area,
    mask_box,
    mask_iou,
    mask_runs,
)
from converters.types import Box, MaskRLE

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
