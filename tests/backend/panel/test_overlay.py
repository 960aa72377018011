"""Masks as the page paints them: filled, with an outline inside."""

from __future__ import annotations

import numpy as np

from tests.backend.panel.node import needs_node, run
from tests.backend.panel.test_rle import counts_of

pytestmark = needs_node

HEIGHT, WIDTH = 24, 30
FILLED, EDGE = 1, 2
SCRIPT = """
    const { outline, paintMask } = await load("overlay.js");
    const { decode } = await load("rle.js");
    const { size } = given;
    return given.masks.map(([counts, thickness]) => {
        const intervals = decode(counts, size.height * size.width);
        const pixels = new Uint32Array(size.height * size.width);
        paintMask(pixels, size, intervals, 1);
        outline(pixels, size, intervals, thickness, 2);
        return [...pixels];
    });
"""


def expected(mask, thickness):
    """A pixel is of the outline when one `thickness` beside it, or nearer above or below, is
    not of the mask. Runs go on from one column's end to the next one's start."""
    column = mask.ravel(order="F")
    edge = np.zeros_like(column)

    def moved(by):
        found = np.zeros_like(column)
        if by > 0:
            found[by:] = column[:-by]
        else:
            found[:by] = column[-by:]
        return found

    for step in range(1, thickness + 1):
        edge |= ~moved(step) | ~moved(-step)
    edge |= ~moved(thickness * HEIGHT) | ~moved(-thickness * HEIGHT)
    numbers = np.where(column, np.where(edge, EDGE, FILLED), 0)
    return numbers.reshape(HEIGHT, WIDTH, order="F").ravel().tolist()


def test_outlines_are_inside_the_mask_and_as_thick_as_asked(tmp_path):
    random = np.random.default_rng(9)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = [(rows - 12) ** 2 + (columns - 14) ** 2 < 90, np.ones((HEIGHT, WIDTH), bool)]
    shares = [0.1, 0.5, 0.9] * 30
    masks += [random.random((HEIGHT, WIDTH)) < share for share in shares]
    cases = [(mask, thickness) for mask in masks for thickness in (1, 2, 3)]
    size = {"width": WIDTH, "height": HEIGHT}
    given = {"size": size, "masks": [[counts_of(mask), thickness] for mask, thickness in cases]}
    for (mask, thickness), pixels in zip(cases, run(SCRIPT, given, tmp_path)):
        assert pixels == expected(mask, thickness)
