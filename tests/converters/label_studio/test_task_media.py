"""Names of a task's frames in data sets, whose readers sort by name."""

import pytest

from converters.label_studio.task_media import TaskMedia


def names(*references, is_video=False):
    return TaskMedia("img", references, is_video).file_names("clip")


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        # Uploaded frames: the random part says nothing of their order.
        (
            ["/data/upload/1/ff2b3c4d-00012.jpg", "/data/upload/1/1a2b3c4d-00013.jpg"],
            ["00012.jpg", "00013.jpg"],
        ),
        (["/data/upload/1/1a2b3c4d-cat.png"], ["cat.png"]),
        # Their own names are the same: numbers.
        (
            ["/data/upload/1/ff2b3c4d-frame.jpg", "/data/upload/1/1a2b3c4d-frame.png"],
            ["00000.jpg", "00001.png"],
        ),
        # Some are uploads, some not: no order by name.
        (["/data/upload/1/ff2b3c4d-1.jpg", "http://host/2.jpg"], ["00000.jpg", "00001.jpg"]),
        # No uploads.
        (["s3://bucket/b.jpg", "s3://bucket/a.jpg"], ["b.jpg", "a.jpg"]),
        (["/data/local-files/?d=x/1a2b3c4d.jpg"], ["1a2b3c4d.jpg"]),
        (["/x/1a2b3c4d-.jpg"], ["1a2b3c4d-.jpg"]),
        (["/x/1A2B3C4D-1.jpg"], ["1A2B3C4D-1.jpg"]),
        # Dates over midnight.
        (
            ["/x/20261231-2359.jpg", "/x/20270101-0000.jpg"],
            ["20261231-2359.jpg", "20270101-0000.jpg"],
        ),
        # The same name twice, or none.
        (["/a/1.jpg", "/b/1.jpg"], []),
        (["/", "/b/1.jpg"], []),
    ],
)
def test_frames_are_named_so_that_they_sort_in_their_order(references, expected):
    assert names(*references) == tuple(f"clip/{name}" for name in expected)


def test_a_video_has_no_image_names():
    assert names("/data/upload/1/1a2b3c4d-clip.mp4", is_video=True) == ()
