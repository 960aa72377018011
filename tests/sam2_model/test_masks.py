"""Small components, overlaps, and masks at video size, each against plain arithmetic."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sam2_model.masks import (
    HOLE_FILL_LOGIT,
    fill_holes,
    masks_at_size,
    remove_specks,
    resize_logits,
    small_components,
    without_ghosts,
    without_overlaps,
    without_refused_ground,
    without_unclicked_pieces,
)


def flood_fill(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Pixels of 8-connected components of at most `max_area` pixels, one at a time."""
    height, width = mask.shape
    small = np.zeros_like(mask)
    seen = np.zeros_like(mask)
    for start in zip(*np.nonzero(mask)):
        if seen[start]:
            continue
        seen[start] = True
        component = [start]
        for y, x in component:  # grows while it is walked
            for v in range(max(y - 1, 0), min(y + 2, height)):
                for u in range(max(x - 1, 0), min(x + 2, width)):
                    if mask[v, u] and not seen[v, u]:
                        seen[v, u] = True
                        component.append((v, u))
        if len(component) <= max_area:
            for pixel in component:
                small[pixel] = True
    return small


def picture(rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows.split()])


SPIRAL = picture("""
    ###########
    ..........#
    #########.#
    #.......#.#
    #.#####.#.#
    #.#...#.#.#
    #.#.###.#.#
    #.#.....#.#
    #.#######.#
    #.........#
    ###########
""")
"""One line that winds to the middle: the longest way between two pixels."""


def snake(height: int, width: int) -> np.ndarray:
    """Rows joined at alternating ends."""
    mask = np.zeros((height, width), dtype=bool)
    mask[::2] = True
    mask[1::4, -1] = True
    mask[3::4, 0] = True
    return mask


@pytest.mark.parametrize("density", [0.1, 0.3, 0.45, 0.6, 0.9])
@pytest.mark.parametrize("size_hw", [(1, 1), (1, 9), (9, 1), (7, 12), (16, 16), (23, 17)])
def test_small_components_are_those_of_a_flood_fill(size_hw, density):
    random = np.random.default_rng(int(100 * density))
    masks = random.random((3, *size_hw)) < density
    for max_area in (1, 2, 3, 5, 8, 13, 50):
        found = small_components(torch.from_numpy(masks), max_area).numpy()
        expected = np.stack([flood_fill(mask, max_area) for mask in masks])
        np.testing.assert_array_equal(found, expected, err_msg=f"max_area={max_area}")


SHAPES = {
    # the whole mask is one component
    "diagonal": np.eye(9, dtype=bool),  # joined at the corners only
    "other diagonal": np.eye(9, dtype=bool)[:, ::-1].copy(),
    "checkerboard": np.indices((7, 7)).sum(0) % 2 == 0,
    "spiral": SPIRAL,
    "spiral, turned": SPIRAL[::-1, ::-1].copy(),
    "snake": snake(9, 8),
    "ring": np.pad(np.zeros((4, 4), dtype=bool), 1, constant_values=True),
    "all": np.ones((6, 5), dtype=bool),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_component_counts_up_to_exactly_its_own_area(name):
    mask = SHAPES[name]
    area = int(mask.sum())
    assert flood_fill(mask, area).sum() == area  # one component, by the plain way
    for max_area in (*range(1, area + 3), 10_000):
        found = small_components(torch.from_numpy(mask), max_area).numpy()
        np.testing.assert_array_equal(found, mask & (area <= max_area), err_msg=str(max_area))


@pytest.mark.parametrize("max_area", [0, 1, 50])
def test_a_mask_of_nothing_has_no_components(max_area):
    assert not small_components(torch.zeros(2, 5, 6, dtype=torch.bool), max_area).any()


def test_planes_do_not_touch_each_other():
    masks = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    masks[0, 0, 3, 3] = True  # a speck, with another plane's pixel "below" it
    masks[0, 1, 0] = True
    masks[1, 1, 0, 0] = True
    found = small_components(masks, 2)
    expected = masks.clone()
    expected[0, 1] = False
    assert torch.equal(found, expected)


def test_holes_are_filled_up_to_the_area_and_the_rest_is_left():
    logits = torch.full((1, 1, 9, 9), 5.0)
    logits[..., 2, 2] = -3.0  # one pixel
    logits[..., 5:7, 5:7] = 0.0  # four pixels; zero is outside
    filled = fill_holes(logits, 1)
    assert filled[0, 0, 2, 2] == pytest.approx(HOLE_FILL_LOGIT)
    assert torch.equal(filled[..., 3:, 3:], logits[..., 3:, 3:])
    assert (fill_holes(logits, 4) > 0).all()
    assert torch.equal(fill_holes(logits, 0), logits)


def test_specks_go_up_to_the_area_and_the_rest_is_left():
    logits = torch.full((1, 1, 9, 9), -5.0)
    logits[..., 2, 2] = 3.0
    logits[..., 5:7, 5:7] = 1.0
    cleaned = remove_specks(logits, 1)
    assert cleaned[0, 0, 2, 2] == -10.0
    assert torch.equal(cleaned[..., 3:, 3:], logits[..., 3:, 3:])
    assert not (remove_specks(logits, 4) > 0).any()
    assert torch.equal(remove_specks(logits, 0), logits)


def test_holes_and_specks_follow_the_threshold():
    logits = torch.full((1, 1, 5, 5), 3.0)
    logits[..., 2, 2] = 1.0
    assert torch.equal(fill_holes(logits, 1), logits)  # 1 is above 0
    assert fill_holes(logits, 1, threshold=2.0, value=12.0)[0, 0, 2, 2] == 12.0
    assert remove_specks(-logits, 1, threshold=-2.0, value=-12.0)[0, 0, 2, 2] == -12.0


def test_without_overlaps_gives_each_pixel_to_the_highest_claim():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1, 12, 9, generator=generator) * 20
    alone = without_overlaps(logits)
    assert ((alone > 0).sum(dim=0) <= 1).all()
    winner = logits.argmax(dim=0)
    for index in range(4):
        won = winner == index
        assert torch.equal(alone[index][won], logits[index][won])
        assert torch.equal(alone[index][~won], logits[index][~won].clamp(max=-10))


def test_without_overlaps_gives_a_tie_to_the_first_object():
    alone = without_overlaps(torch.full((3, 1, 2, 2), 4.0))
    assert (alone > 0).flatten(1).all(dim=1).tolist() == [True, False, False]


@pytest.mark.parametrize("count", [0, 1])
def test_without_overlaps_leaves_one_object_and_none_alone(count):
    logits = torch.ones(count, 1, 3, 3)
    assert without_overlaps(logits).shape == (count, 1, 3, 3)


SIZES = [
    # low resolution, video
    ((16, 16), (64, 96)),
    ((64, 64), (480, 854)),  # no whole factor
    ((256, 256), (271, 333)),
    ((32, 32), (17, 23)),  # smaller than the logits
    ((32, 32), (40, 8)),  # up one way, down the other
    ((16, 16), (1, 1)),
    ((1, 1), (5, 7)),
    ((7, 5), (7, 5)),  # equal
    ((7, 5), (7, 11)),  # equal one way
    ((3, 50), (200, 51)),
]


def reference_masks(logits, size_hw):
    resized = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)
    return (resized[:, 0] > 0).numpy()


@pytest.mark.parametrize("low_hw, size_hw", SIZES)
@pytest.mark.parametrize(
    "positive_share",
    [0.5, 0.02, 0.98],  # mixed; a few pixels; a few holes
)
def test_masks_at_size_are_exactly_the_full_resize(low_hw, size_hw, positive_share):
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(3, 1, *low_hw, generator=generator)
    logits = noise - torch.quantile(noise[:1].flatten(), 1 - positive_share)
    masks = masks_at_size(logits, size_hw)
    assert masks.dtype == bool and masks.shape == (3, *size_hw)
    np.testing.assert_array_equal(masks, reference_masks(logits, size_hw))


@pytest.mark.parametrize("low_hw, size_hw", SIZES)
def test_masks_at_size_differ_at_most_where_sums_cancel_to_the_last_bit(low_hw, size_hw):
    # Few small whole numbers: many sums are zero, but for how they are rounded.
    generator = torch.Generator().manual_seed(4)
    logits = torch.randint(-2, 3, (3, 1, *low_hw), generator=generator).float()
    resized = F.interpolate(logits, size=size_hw, mode="bilinear", align_corners=False)[:, 0]
    differ = masks_at_size(logits, size_hw) != (resized > 0).numpy()
    assert (resized[torch.from_numpy(differ)].abs() < 1e-6).all()


@pytest.mark.parametrize("low_hw, size_hw", SIZES)
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_masks_at_size_keep_a_positive_corner(low_hw, size_hw, corner):
    logits = torch.full((1, 1, *low_hw), -1.0)
    logits[0, 0, corner[0], corner[1]] = 5.0
    np.testing.assert_array_equal(
        masks_at_size(logits, size_hw), reference_masks(logits, size_hw)
    )


@pytest.mark.parametrize("value, expected", [(-1024.0, False), (0.0, False), (7.0, True)])
def test_masks_at_size_of_one_value(value, expected):
    masks = masks_at_size(torch.full((2, 1, 16, 16), value), (33, 21))
    assert (masks == expected).all()


def test_masks_at_size_take_far_apart_values():
    # An absent object's -1024 beside a strong one's +30.
    logits = torch.full((1, 1, 16, 16), -1024.0)
    logits[..., 5:9, 6:8] = 30.0
    np.testing.assert_array_equal(
        masks_at_size(logits, (90, 160)), reference_masks(logits, (90, 160))
    )


def test_masks_at_size_of_no_object():
    assert masks_at_size(torch.zeros(0, 1, 16, 16), (9, 8)).shape == (0, 9, 8)


def test_resize_logits_leaves_the_right_size_as_it_is():
    logits = torch.randn(1, 1, 6, 7)
    assert resize_logits(logits, (6, 7)) is logits
    assert resize_logits(logits, (3, 9)).shape == (1, 1, 3, 9)


def plane(*pixels: str) -> torch.Tensor:
    """A drawing of "#" (logit 5) and "." (logit -5) as (1, 1, H, W)."""
    rows = [[5.0 if c == "#" else -5.0 for c in row] for row in pixels]
    return torch.tensor(rows)[None, None]


def test_a_piece_apart_from_where_the_object_was_is_a_ghost():
    before = plane("##........", "##........", "..........")
    now = plane(".##.....##", ".###....##", "..##......")
    kept = without_ghosts(now, before, reach=1)
    assert ((kept > 0) == plane(".##.......", ".###......", "..##......").gt(0)).all()
    assert (kept[now <= 0] == -5).all()


def test_a_piece_that_hangs_together_may_reach_far():
    before = plane("#.........", "..........")
    now = plane("##########", ".........#")
    assert torch.equal(without_ghosts(now, before), now)


@pytest.mark.parametrize(
    "before",
    [plane("..........", ".........."), plane("#.........", "..........")],
    ids=["was not there", "jumped"],
)
def test_nothing_is_a_ghost_where_nothing_says_so(before):
    now = plane("......##..", "......##..")
    assert torch.equal(without_ghosts(now, before), now)


def test_ghosts_are_told_for_each_object_by_itself():
    before = torch.cat((plane("#........."), plane(".........#")))
    now = plane("##......##").expand(2, -1, -1, -1)
    kept = without_ghosts(now, before, reach=1) > 0
    assert torch.equal(kept, torch.cat((plane("##........"), plane("........##"))) > 0)


TWO_PIECES = plane("##......##", "##......##")


@pytest.mark.parametrize(
    "points, labels, expected",
    [
        ([(0, 0), (8, 1)], [1, 0], plane("##........", "##........")),
        ([(0, 0), (8.9, 1.9)], [1, 1], TWO_PIECES),
        ([(0, 0), (4, 0)], [1, 0], plane("##........", "##........")),
        ([(0, 0)], [1], TWO_PIECES),
        ([(0, 0), (0, 0)], [1, -1], TWO_PIECES),
        ([(0, 0), (1, 1), (0, 0)], [2, 3, 1], TWO_PIECES),
        ([(4, 0), (8, 0)], [1, 0], TWO_PIECES),
        ([(-3, -1), (10, 2)], [1, 0], plane("##........", "##........")),
    ],
    ids=["refused", "both clicked", "neither", "one click", "padding", "box", "missed", "outside"],
)
def test_a_corrected_click_keeps_the_pieces_that_were_clicked(points, labels, expected):
    kept = without_unclicked_pieces(TWO_PIECES, torch.tensor([points]), torch.tensor([labels]))
    assert torch.equal(kept > 0, expected > 0)
    assert torch.equal(kept[kept > 0], TWO_PIECES[kept > 0])


def test_a_negative_click_takes_away_and_adds_nothing():
    before = torch.full((1, 1, 40, 40), -5.0)
    before[..., 10:30, 5:30] = 5
    grown = torch.full_like(before, 5.0)
    clicks, labels = torch.tensor([[[10.0, 20.0], [28.0, 20.0]]]), torch.tensor([[1, 0]])
    kept = without_refused_ground(grown, before, clicks, labels) > 0
    assert not (kept & (before <= 0)).any()
    assert not kept[0, 0, 20, 28] and kept[0, 0, 20, 10]
    assert (before > 0).sum() - kept.sum() > 60  # a disc of radius 6, cut off by the border


def test_a_positive_click_may_add_and_refused_ground_stays_out():
    before = torch.full((1, 1, 40, 40), -5.0)
    grown = torch.full_like(before, 5.0)
    clicks = torch.tensor([[[10.0, 20.0], [13.0, 20.0], [30.0, 5.0]]])
    kept = without_refused_ground(grown, before, clicks, torch.tensor([[1, 0, 1]])) > 0
    assert not kept[0, 0, 20, 13] and kept[0, 0, 20, 10] and kept[0, 0, 5, 30]
    assert (~kept).sum() < 10  # the disc is small, as a positive click is near


def test_without_clicks_nothing_is_refused():
    logits = torch.randn(2, 3, 8, 8)
    points, labels = torch.zeros(2, 2, 2), torch.tensor([[2, 3], [-1, -1]])
    assert torch.equal(without_refused_ground(logits, None, points, labels), logits)
