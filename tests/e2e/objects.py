"""What the sample shows, boxes drawn by hand."""

from backend.studio import SAMPLE_SIZE
from converters.types import Box


def _box(x_min: int, y_min: int, x_max: int, y_max: int) -> Box:
    """Of a frame that is 640 wide."""
    scale = SAMPLE_SIZE[0] / 640
    return Box(x_min * scale, y_min * scale, x_max * scale, y_max * scale)


OPOSSUM = _box(362, 120, 463, 252)
"""On the first frame."""
OPOSSUM_LATER = _box(332, 121, 458, 246)
"""On frame index 15."""
STANDING_PERSON = _box(283, 16, 339, 175)
RED_PERSON = _box(159, 62, 204, 177)
