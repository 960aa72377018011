"""Image files as frames: turned as browsers turn them, in order, and as bright as they are."""

import io
import warnings

import av
import numpy as np
import pytest
from PIL import Image

from sam2_model.video import (
    ImageFolderSource,
    ImageListSource,
    IsolatedSource,
    VideoDecodeError,
    VideoDecodeWarning,
    VideoFileSource,
    open_frame_source,
)
from tests.image_files import (
    exif,
    png_of_16_bits,
    with_exif_in_jpeg,
    with_exif_in_png,
)

WIDTH, HEIGHT = 48, 32
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))
"""Top left, top right, bottom left, bottom right as shown."""
TO_STORED = {
    1: None, 2: Image.FLIP_LEFT_RIGHT, 3: Image.ROTATE_180, 4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE, 6: Image.ROTATE_90, 7: Image.TRANSVERSE, 8: Image.ROTATE_270,
}


def upright_picture() -> Image.Image:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    half = HEIGHT // 2, WIDTH // 2
    pixels[: half[0], : half[1]], pixels[: half[0], half[1] :] = CORNERS[:2]
    pixels[half[0] :, : half[1]], pixels[half[0] :, half[1] :] = CORNERS[2:]
    return Image.fromarray(pixels)


def stored_as(orientation: int) -> Image.Image:
    turn = TO_STORED[orientation]
    return upright_picture() if turn is None else upright_picture().transpose(turn)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}}.get(kind, {}) | options
    image.save(file, kind, **options)
    return file.getvalue()


def corners(picture: np.ndarray) -> tuple:
    """The nearest of the colours at each corner."""
    found = [picture[y, x].astype(int) for y in (4, -5) for x in (4, -5)]
    return tuple(min(CORNERS, key=lambda c: int(np.abs(colour - c).sum())) for colour in found)


def is_upright(picture: np.ndarray) -> bool:
    return picture.shape == (HEIGHT, WIDTH, 3) and corners(picture) == CORNERS


# --- orientation -------------------------------------------------------------


@pytest.mark.parametrize("orientation", TO_STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "AVIF", "TIFF"])
def test_pictures_are_turned_upright(tmp_path, kind, orientation):
    said = Image.Exif()
    said[0x0112] = orientation
    path = tmp_path / f"0.{kind.lower()}"
    path.write_bytes(encoded(stored_as(orientation), kind, exif=said))
    for source in (open_frame_source([path]), open_frame_source(tmp_path), open_frame_source(path)):
        assert (source.info.width, source.info.height) == (WIDTH, HEIGHT)
        assert is_upright(source.frame(0))
        assert source.frame(0).flags.c_contiguous and source.frame(0).flags.writeable


JPEG, PNG, WEBP = (encoded(stored_as(6), kind) for kind in ("JPEG", "PNG", "WEBP"))
XMP = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'


@pytest.mark.parametrize(
    "content, is_turned",
    [
        # as naturalWidth of an <img> in Chromium 150 says
        (with_exif_in_jpeg(JPEG, exif(6)), True),
        (with_exif_in_jpeg(JPEG, exif(6, order="<")), True),
        (with_exif_in_jpeg(JPEG, exif(6)[:-4]), True),  # cut off behind what counts
        (with_exif_in_jpeg(JPEG, exif(6), exif(1)), True),  # the first counts
        (with_exif_in_jpeg(JPEG, exif(1), exif(6)), False),
        (with_exif_in_jpeg(JPEG, exif(6, kind=4)), False),  # LONG is not SHORT
        (with_exif_in_jpeg(JPEG, exif(9)), False),
        (with_exif_in_jpeg(JPEG, exif(0)), False),
        (with_exif_in_jpeg(JPEG, b"II*\0\xff\xff\xff\xff"), False),
        (with_exif_in_jpeg(JPEG, b""), False),
        (with_exif_in_jpeg(JPEG, XMP, title=b"http://ns.adobe.com/xap/1.0/\0"), False),
        (with_exif_in_png(PNG, exif(6)), True),
        (with_exif_in_png(PNG, exif(6), is_late=True), False),
        (encoded(stored_as(6), "WEBP", exif=exif(6), lossless=True), False),
    ],
)
def test_an_orientation_counts_where_a_browser_has_it_count(tmp_path, content, is_turned):
    (tmp_path / "0").write_bytes(content)
    with ImageListSource([tmp_path / "0"]) as source:
        shown = source.frame(0)
        assert (shown.shape[1], shown.shape[0]) == (source.info.width, source.info.height)
        assert is_upright(shown) == is_turned
        assert shown.shape == ((HEIGHT, WIDTH, 3) if is_turned else (WIDTH, HEIGHT, 3))


def test_frames_stored_in_different_ways_are_one_size_when_they_are_shown_so(tmp_path):
    for index, orientation in enumerate((1, 6, 8)):
        jpeg = with_exif_in_jpeg(encoded(stored_as(orientation), "JPEG"), exif(orientation))
        (tmp_path / f"{index}.jpg").write_bytes(jpeg)
    with ImageFolderSource(tmp_path) as source:
        assert all(is_upright(picture) for _, picture in source.frames())


def test_pixels_as_stored_are_read_when_asked_for(tmp_path):
    (tmp_path / "0.jpg").write_bytes(with_exif_in_jpeg(JPEG, exif(6)))
    for source in (
        open_frame_source(tmp_path, upright=False),
        ImageListSource([tmp_path / "0.jpg"], upright=False),
    ):
        assert (source.info.width, source.info.height) == (HEIGHT, WIDTH)
        assert source.frame(0).shape == (WIDTH, HEIGHT, 3)


def test_a_picture_in_memory_is_taken_as_it_is(tmp_path):
    (tmp_path / "0.jpg").write_bytes(with_exif_in_jpeg(JPEG, exif(6)))
    with Image.open(tmp_path / "0.jpg") as image:
        assert ImageListSource([image]).frame(0).shape == (WIDTH, HEIGHT, 3)


def test_another_process_turns_them_too(tmp_path):
    (tmp_path / "0.jpg").write_bytes(with_exif_in_jpeg(JPEG, exif(6)))
    for files in (tmp_path / "0.jpg", [tmp_path / "0.jpg"]):
        with IsolatedSource(files) as source:
            assert source.info.width == WIDTH and is_upright(source.frame(0))


# --- which files, and in which order ------------------------------------------


def save_gray(folder, names):
    """Pictures as bright as their places in the list."""
    folder.mkdir(exist_ok=True)
    for index, name in enumerate(names):
        Image.new("RGB", (16, 16), (20 * index,) * 3).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        ["0.05.jpg", "0.10.jpg", "0.5.jpg", "1.25.jpg"],
        ["1700000000.100000.jpg", "1700000000.99.jpg", "1700000001.5.jpg"],
        ["-10.jpg", "-2.5.jpg", "-2.jpg", "0.jpg", "+1.jpg"],
        ["1e-05.jpg", "0.0001.jpg", "0.1.jpg"],
        ["t0.05.jpg", "t0.5.jpg", "t10.25.jpg"],
        ["frame_-2.jpg", "frame_-1.jpg", "frame_0.jpg"],
        ["frame-2.jpg", "frame-10.jpg"],
        ["2024-01-05.jpg", "2024-01-10.jpg", "2024-02-01.jpg"],
        ["1.9.1.jpg", "1.10.1.jpg"],
        ["12345678901234567890.jpg", "12345678901234567891.jpg"],
        ["9.webp", "10.BMP", "11.tiff", "12.TIF", "13.JPG", "14.gif", "15.avif"],
    ],
)
def test_a_folder_goes_by_number(tmp_path, names):
    with open_frame_source(save_gray(tmp_path / "f", names)) as source:
        assert [round(source.frame(i).mean() / 20) for i in range(len(source))] == [*range(len(names))]


@pytest.mark.parametrize(
    "pair",
    [
        ("00000.jpg", "00000.png"),
        ("00000_left.jpg", "00000_right.jpg"),
        ("00000.jpg", "00000_1.png"),
        ("frame_7.jpg", "frame_7.png"),
        ("frame_7.jpg", "mask_7.jpg"),
        ("frame_0007.jpg", "frame_0007_object_2.png"),
        ("0.5.jpg", "0.50.jpg"),
        ("a.jpg", "a.png"),
    ],
)
def test_two_files_of_one_number_are_refused(tmp_path, pair):
    folder = save_gray(tmp_path / "f", pair)
    save_gray(folder, [name.translate({ord("0"): "3", ord("7"): "8", ord("a"): "b"}) for name in pair[:1]])
    with pytest.raises(VideoDecodeError) as refused:
        open_frame_source(folder)
    assert all(name in str(refused.value) for name in pair)
    assert "masks" in str(refused.value)


@pytest.mark.parametrize("mask", ["{}_mask.png", "{}.mask.jpg", "mask_{}.png", "{}-seg.png", "{}_mask_1.png", "{}_GT.png"])
@pytest.mark.parametrize("stem", ["0000{}", "frame_{}", "0.{}"])
def test_masks_beside_pictures_are_no_frames_and_that_is_said(tmp_path, stem, mask):
    names = [stem.format(i) for i in range(3)]
    folder = save_gray(tmp_path / "f", [f"{name}.jpg" for name in names])
    save_gray(folder, [mask.format(name) for name in names])
    with pytest.warns(VideoDecodeWarning, match="3 files are masks"), open_frame_source(folder) as source:
        assert [round(source.frame(i).mean() / 20) for i in range(len(source))] == [0, 1, 2]


def test_masks_alone_are_frames_like_any_other(tmp_path):
    with open_frame_source(save_gray(tmp_path / "f", ["9_mask.png", "10_mask.png"])) as source:
        assert len(source) == 2


def test_frames_are_told_by_content_not_by_suffix(tmp_path):
    folder = save_gray(tmp_path / "f", ["0.png", "1.jpg", "2.webp"])
    (folder / "0.png").rename(folder / "0")
    (folder / "1.jpg").rename(folder / "1.png")
    (folder / "notes.txt").write_text("not a frame")
    (folder / "3.mp4").write_bytes(b"\0\0\0\x20ftypisom")
    with open_frame_source(folder) as source:
        assert [round(source.frame(i).mean() / 20) for i in range(len(source))] == [0, 1, 2]


# --- more than 8 bits ---------------------------------------------------------


def ramp(most: int, shape=(16, 16)) -> np.ndarray:
    return np.linspace(0, most, int(np.prod(shape))).reshape(shape).astype(np.uint16)


@pytest.mark.parametrize(
    "most, said, shift",
    [
        (65535, None, 8),
        (4095, None, 4),
        (1000, None, 2),
        (200, None, 0),
        (2000, 12, 4),  # a dark picture of 12 bits
        (60000, 12, 8),  # as PNG wants it: 12 bits spread over 16
        (4095, 16, 4),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_bits_that_are_used_are_shown(tmp_path, most, said, shift, channels):
    samples = ramp(most) if channels == 1 else ramp(most, (16, 16, 3))
    (tmp_path / "0.png").write_bytes(png_of_16_bits(samples, significant_bits=said))
    shown = ImageFolderSource(tmp_path).frame(0)
    expected = (samples >> shift).astype(np.uint8)
    np.testing.assert_array_equal(shown[..., 0] if channels == 1 else shown, expected)


@pytest.mark.parametrize("said, shift", [({}, 3), ({281: 4095}, 4), ({281: 65535}, 3)])
def test_tiff_says_its_highest_value(tmp_path, said, shift):
    Image.fromarray(ramp(2000)).save(tmp_path / "0.tif", tiffinfo=said)
    shown = ImageFolderSource(tmp_path).frame(0)
    np.testing.assert_array_equal(shown[..., 1], ramp(2000) >> shift)


def test_all_frames_are_as_bright_as_they_are_beside_each_other(tmp_path):
    for index, most in enumerate((300, 4000, 0)):
        (tmp_path / f"{index}.png").write_bytes(png_of_16_bits(ramp(most)))
    with ImageFolderSource(tmp_path) as source:
        assert [int(source.frame(i).max()) for i in range(3)] == [300 >> 4, 4000 >> 4, 0]
    in_memory = [Image.fromarray(ramp(most)) for most in (300, 4000)]
    assert int(ImageListSource(in_memory).frame(0).max()) == 300 >> 4


# --- files of several pictures --------------------------------------------------


def shades(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (24, 16), (60 * i, 60 * i, 60 * i)) for i in range(count)]


@pytest.mark.parametrize(
    "name, options, times",
    [
        ("a.webp", {"duration": [100, 200, 40], "lossless": True}, (0.0, 0.1, 0.3)),
        ("a.avif", {"duration": 50}, (0.0, 0.05, 0.1)),
        ("a.tif", {}, (0.0, 1.0, 2.0)),
        ("a.png", {"duration": 100}, (0.0, 0.1, 0.2)),
        ("a.gif", {"duration": 100}, (0.0, 0.1, 0.2)),
    ],
)
@pytest.mark.parametrize("is_isolated", [False, True])
def test_an_animation_is_a_video(tmp_path, name, options, times, is_isolated):
    first, *others = shades(3)
    first.save(tmp_path / name, save_all=True, append_images=others, **options)
    opening = IsolatedSource if is_isolated else open_frame_source
    with opening(tmp_path / name) as source:
        assert source.info.frame_times_seconds == times
        assert [round(picture.mean() / 60) for _, picture in source.frames(step=-1)] == [2, 1, 0]
        assert [round(source.frame(i).mean() / 60) for i in (1, 2, 0)] == [1, 2, 0]


def test_a_still_image_is_a_video_of_one_frame(tmp_path):
    for name in ("a.jpg", "a.png", "a.webp", "a.bmp", "a.tif"):
        shades(2)[1].save(tmp_path / name)
        with open_frame_source(tmp_path / name) as source:
            assert (len(source), round(source.frame(0).mean() / 60)) == (1, 1)


def test_an_animation_among_frames_shows_its_first_picture_and_says_so(tmp_path):
    first, *others = shades(2)
    for index in range(2):
        first.save(tmp_path / f"{index}.webp", save_all=True, append_images=others)
    with ImageFolderSource(tmp_path) as source, pytest.warns(VideoDecodeWarning, match="animated"):
        assert source.frame(0).max() < 30


def test_pages_of_two_sizes_are_refused(tmp_path):
    first = shades(1)[0]
    first.save(tmp_path / "a.tif", save_all=True, append_images=[first.resize((12, 8))])
    with pytest.raises(VideoDecodeError, match=r"a\.tif: .*\(12, 8\), \(24, 16\).*one"):
        open_frame_source(tmp_path / "a.tif")


def test_a_damaged_animation_names_the_file(tmp_path):
    first, *others = shades(3)
    first.save(tmp_path / "a.webp", save_all=True, append_images=others)
    content = (tmp_path / "a.webp").read_bytes()
    for length in range(12, len(content), 7):
        (tmp_path / "b.webp").write_bytes(content[:length])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", VideoDecodeWarning)
            try:
                with open_frame_source(tmp_path / "b.webp") as source:
                    source.frame(0)
            except VideoDecodeError as error:
                assert "b.webp" in str(error)


def test_a_video_is_told_by_its_content_whatever_its_name(tmp_path):
    with av.open(str(tmp_path / "clip.jpg"), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for packet in (*stream.encode(av.VideoFrame(32, 32, "yuv420p")), *stream.encode(None)):
            container.mux(packet)
    with open_frame_source(tmp_path / "clip.jpg") as source:
        assert isinstance(source, VideoFileSource)
