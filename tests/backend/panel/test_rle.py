"""The page's run lengths against pycocotools', both ways, thousands of masks in one process."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from tests.backend.panel.node import needs_node, run

pytestmark = needs_node

ROUND_TRIP = """
    const rle = await load("rle.js");
    return given.map(({counts, length}) => {
        const intervals = rle.decode(counts, length);
        const pixels = new Uint8Array(length);
        rle.fill(pixels, intervals, 1);
        const found = rle.intervalsOf(pixels);
        let checksum = 0;
        pixels.forEach((one, place) => { if (one) checksum = (checksum + place) % 1000003; });
        return {
            counts: rle.encode(found, length),
            isSame: found.join() === intervals.join(),
            area: rle.area(intervals),
            checksum,
        };
    });
"""


def masks():
    """Empty, full, one pixel, speckled, blobs, stripes, every size from 1 x 1 on."""
    random = np.random.default_rng(6)
    yield from (np.full((h, w), value) for h, w in ((1, 1), (7, 3)) for value in (False, True))
    for place in range(12):
        one = np.zeros((3, 4), bool)
        one.flat[place] = True
        yield from (one, ~one)
    for _ in range(3000):
        height, width = random.integers(1, 40, 2)
        yield random.random((height, width)) < random.choice([0.02, 0.3, 0.5, 0.98])
    rows, columns = np.mgrid[:1080, :1920]
    yield from (np.zeros((1080, 1920), bool), np.ones((1080, 1920), bool))
    yield (rows - 500) ** 2 + (columns - 900) ** 2 < 400**2
    yield (rows % 200 < 100) & (columns % 300 > 10)  # runs that go on in the next column
    yield random.random((1080, 1920)) < 0.5
    yield columns >= 1919


def counts_of(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()


def check_round_trips(run_script):
    """`run_script(script, given)` runs it somewhere."""
    every = list(masks())
    given = [{"counts": counts_of(mask), "length": mask.size} for mask in every]
    found = run_script(ROUND_TRIP, given)
    assert len(found) == len(every) > 3000
    for mask, asked, answer in zip(every, given, found):
        assert answer["counts"] == asked["counts"] and answer["isSame"]
        assert answer["area"] == mask.sum()
        places = np.flatnonzero(mask.ravel(order="F"))
        assert answer["checksum"] == places.sum() % 1000003


def test_masks_of_pycocotools_are_read_and_written_as_it_does(tmp_path):
    check_round_trips(lambda script, given: run(script, given, tmp_path))


def test_what_two_masks_share_is_counted(tmp_path):
    random = np.random.default_rng(7)
    pairs = [random.random((2, 9, 11)) < random.random() for _ in range(500)]
    given = [[counts_of(one), counts_of(other)] for one, other in pairs]
    script = """
        const rle = await load("rle.js");
        return given.map(([a, b]) => rle.sharedArea(rle.decode(a, 99), rle.decode(b, 99)));
    """
    assert run(script, given, tmp_path) == [int((a & b).sum()) for a, b in pairs]


def test_text_that_is_no_mask_is_refused(tmp_path):
    fine = counts_of(np.eye(3, dtype=bool))
    given = ["", fine + "1", fine[:-1], "\x00", "é", "oooooooooo0", "/", "0" * 5, "NN"]
    script = """
        const rle = await load("rle.js");
        return given.map((counts) => {
            try { return [...rle.decode(counts, 9)]; } catch (error) { return error.name; }
        });
    """
    answers = run(script, [fine, *given], tmp_path)
    assert answers == [[0, 1, 4, 5, 8, 9], *["RangeError"] * len(given)]
