import pytest

from converters.label_studio.keyframes import PercentBox, editor_box


def keyframe(frame, x=10.0, enabled=True, rotation=0, **fields):
    return {
        "frame": frame, "x": x, "y": 20, "width": 30, "height": 40,
        "enabled": enabled, "rotation": rotation, **fields,
    }  # fmt: skip


def shown(sequence, frame):
    box = editor_box(sequence, frame)
    return None if box is None else (box.x_percent, box.rotation_degrees)


@pytest.mark.parametrize(
    ("sequence", "frame", "expected"),
    [
        # Before the first key frame there is no box.
        ([keyframe(5)], 4, None),
        ([keyframe(5)], 5, (10, 0)),
        # After the last it holds.
        ([keyframe(5)], 99, (10, 0)),
        # A straight line to the next.
        ([keyframe(1), keyframe(11, x=20)], 4, (13, 0)),
        # Towards the next, whatever its `enabled`.
        ([keyframe(1), keyframe(11, x=20, enabled=False)], 4, (13, 0)),
        # The one that disables is visible itself, and no longer.
        ([keyframe(1), keyframe(11, x=20, enabled=False)], 11, (20, 0)),
        ([keyframe(1), keyframe(11, x=20, enabled=False)], 12, None),
        ([keyframe(1, enabled=False), keyframe(11)], 5, None),
        # Rotation goes the short way round.
        ([keyframe(1, rotation=-170), keyframe(3, rotation=170)], 2, (10, 180)),
        ([keyframe(1, rotation=350), keyframe(5, rotation=10)], 2, (10, -5)),
        # A key frame's own rotation is left as written.
        ([keyframe(1, rotation=350)], 1, (10, 350)),
        # Duplicates: the box of the first, the visibility of the last.
        ([keyframe(3), keyframe(3, x=50)], 3, (10, 0)),
        ([keyframe(3), keyframe(3, x=50, enabled=False)], 4, None),
        ([keyframe(3), keyframe(3, x=50)], 4, (50, 0)),
        # Unsorted: the search stops at the first later key frame.
        ([keyframe(9, x=90), keyframe(3)], 5, None),
        ([keyframe(1), keyframe(9, x=90), keyframe(3, x=30)], 5, (50, 0)),
        # Past framesCount it is still aimed at.
        ([keyframe(1), keyframe(1001, x=20)], 501, (15, 0)),
        # Without `enabled`: as if it were false. Without rotation: 0.
        ([{"frame": 2, "x": 1, "y": 2, "width": 3, "height": 4}], 2, (1, 0)),
        ([{"frame": 2, "x": 1, "y": 2, "width": 3, "height": 4}], 3, None),
        ([], 1, None),
    ],
)  # fmt: skip
def test_the_editor_shows(sequence, frame, expected):
    assert shown(sequence, frame) == (expected and pytest.approx(expected))


def test_all_four_numbers_are_interpolated():
    end = {"frame": 3, "x": 20, "y": 40, "width": 10, "height": 0, "enabled": True}
    assert editor_box([keyframe(1), end], 2) == PercentBox(15, 30, 20, 20, 0)
