"""Masks as the page paints them: filled, with an outline inside."""

from __future__ import annotations

import numpy as np

from tests.backend.panel.node import needs_node, run
from tests.backend.panel.test_rle import counts_of

pytestmark = needs_node

HEIGHT, WIDTH = 24, 30
FILLED, EDGE = 1, 2
SCRIPT = """
    const { outline } = await load("overlay.js");
    const { decode, fill } = await load("rle.js");
    return given.masks.map(([counts, thickness]) => {
        const intervals = decode(counts, given.height * given.width);
        const pixels = new Uint32Array(given.height * given.width);
        fill(pixels, intervals, 1);
        outline(pixels, intervals, given.height, thickness, 2);
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
    return np.where(column, np.where(edge, EDGE, FILLED), 0).tolist()


def test_outlines_are_inside_the_mask_and_as_thick_as_asked(tmp_path):
    random = np.random.default_rng(9)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    masks = [(rows - 12) ** 2 + (columns - 14) ** 2 < 90, np.ones((HEIGHT, WIDTH), bool)]
    shares = [0.1, 0.5, 0.9] * 30
    masks += [random.random((HEIGHT, WIDTH)) < share for share in shares]
    cases = [(mask, thickness) for mask in masks for thickness in (1, 2, 3)]
    given = {"height": HEIGHT, "width": WIDTH, "masks": [[counts_of(m), t] for m, t in cases]}
    for (mask, thickness), pixels in zip(cases, run(SCRIPT, given, tmp_path)):
        assert pixels == expected(mask, thickness)


def test_columns_become_rows_of_colours(tmp_path):
    random = np.random.default_rng(10)
    width, height = 75, 9  # more columns than are turned together
    numbers = random.integers(0, 4, (height, width))
    palette = [0, 7, 4294967295, 5]
    script = """
        const { colourColumns } = await load("overlay.js");
        const { numbers, palette, width, height } = given;
        const pixels = new Uint32Array(width * height).fill(1);
        const size = { width, height };
        colourColumns(pixels, Uint16Array.from(numbers), size, palette, 3, width - 2);
        return [...pixels];
    """
    given = {
        "numbers": numbers.ravel(order="F").tolist(), "palette": palette,
        "width": width, "height": height,
    }
    expected = np.array(palette)[numbers]
    expected[:, :3] = expected[:, -2:] = 1
    assert run(script, given, tmp_path) == expected.ravel().tolist()
