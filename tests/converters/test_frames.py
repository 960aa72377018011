import numpy as np
import pytest
from PIL import Image

from converters.frames import copy_frames, missing_images, write_frames
from tests.video_files import index_picture, shown_index


def pictures(count=6):
    return ((index, index_picture(index, 96, 64)) for index in range(count))


def test_the_named_frames_are_written_in_one_pass(tmp_path):
    names = {1: "clip/00001.jpg", 4: "clip/four.png"}
    assert write_frames(tmp_path, pictures(), names) == 2
    assert sorted(p.name for p in (tmp_path / "clip").iterdir()) == ["00001.jpg", "four.png"]
    for index, name in names.items():
        with Image.open(tmp_path / name) as image:
            assert shown_index(np.asarray(image)) == index
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "clip/four.png")), index_picture(4, 96, 64)
    )


def test_no_more_frames_are_asked_for_than_needed(tmp_path):
    frames = pictures(100)
    write_frames(tmp_path, frames, {0: "a.jpg", 2: "b.jpg"})
    assert next(frames)[0] == 3


def test_quality_is_set_and_the_bytes_are_the_same_each_time(tmp_path):
    sizes = {}
    for quality in (10, 75, 95):
        for run in ("a", "b"):
            write_frames(tmp_path / run, pictures(), {3: f"{quality}.jpg"}, quality=quality)
        first, second = ((tmp_path / run / f"{quality}.jpg").read_bytes() for run in ("a", "b"))
        assert first == second
        sizes[quality] = len(first)
    assert sizes[10] < sizes[75] < sizes[95]


@pytest.mark.parametrize(
    ("frames", "names", "options", "message"),
    [
        (pictures(), {0: "../x.jpg"}, {}, "'../x.jpg' must lie in the image folder"),
        (pictures(), {0: "/x.jpg"}, {}, "must lie in the image folder"),
        (pictures(), {0: "a\0.jpg"}, {}, "must lie in the image folder"),
        (pictures(), {0: "x.svg"}, {}, "'x.svg' must end in .jpg, .jpeg"),
        (pictures(), {0: "x.gif"}, {}, "'x.gif': a GIF has 256 colours"),
        (pictures(), {0: "x.jpg"}, {"quality": 0}, r"quality 0 must be in \[1, 100\]"),
        (pictures(2), {1: "x.jpg", 5: "y.jpg", 6: "z.jpg"}, {}, "frame 5 did not come, nor 1 more"),
        ([(0, np.zeros((4, 4)))], {0: "x.jpg"}, {}, "float64"),
        ([(0, np.zeros((4, 4), np.uint8))], {0: "x.jpg"}, {}, r"must be uint8 \(H, W, 3\)"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, frames, names, options, message):
    with pytest.raises(ValueError, match=message):
        write_frames(tmp_path, frames, names, **options)


def test_existing_images_are_copied_as_they_are_or_only_looked_for(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    write_frames(source, pictures(), {0: "v/0.jpg", 1: "v/1.jpeg"})
    assert missing_images(source, ["v/0.jpg", "v/1.jpeg", "v/2.jpg"]) == ["v/2.jpg"]
    assert copy_frames(source, target, {"v/0.jpg": "w/a.jpg", "v/1.jpeg": "w/b.jpg"}) == 2
    assert (target / "w/a.jpg").read_bytes() == (source / "v/0.jpg").read_bytes()
    with pytest.raises(ValueError, match="another format"):
        copy_frames(source, target, {"v/0.jpg": "w/a.png"})
    with pytest.raises(FileNotFoundError):
        copy_frames(source, target, {"v/9.jpg": "w/a.jpg"})
